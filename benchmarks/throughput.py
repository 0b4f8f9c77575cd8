"""How fast training is: against its peers alone, and against the loop that paper repositories have.

python benchmarks/throughput.py [--methods ffl,dml] [--peers 2xresnet32] [--batch-size 128] [--out results/throughput]

In one run, alternating, medians of several rounds:

floor      the peers alone: forward, backward and update with cross-entropy, same precision, layout and trunk
step       Collegium's training step on a batch that lies ready
epoch      Collegium's epoch with data, augmentation, metrics and reading them, without evaluation
obvious    the same epoch as paper repositories write it: see ``contenders.ObviousLoop``
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SHARED = {"ffl": "stage2", "one": "stage2", "cl_ilr": "stage2", "okddip": "stage2", "pcl": "stage2"}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One method with one cohort, in this process."""
    import torch
    from contenders import ObviousLoop, batch, peers_alone, random_images

    from collegium import methods, networks
    from collegium.training.engine import make_fabric
    from collegium.training.experiment import build
    from collegium.training.loop import Run
    from collegium.training.recipe import Recipe
    from collegium.training.run_folder import RunFolder

    size, rounds = job["batch_size"], job["rounds"]
    alike = len(set(networks.parse_peers(job["peers"]))) == 1
    recipe = Recipe(
        method={"name": job["method"]},
        peers=job["peers"],
        share_until=SHARED.get(job["method"]) if alike else None,
        teacher="python:teacher" if methods.get(job["method"]).needs_teacher else None,
        batch_size=size,
        precision=job["precision"],
        compile=job["compile"],
        device=job["device"],
    )
    data = random_images(size * job["steps"])
    teacher = networks.build(networks.parse_peers(job["peers"])[0], num_classes=100) if recipe.teacher else None
    with tempfile.TemporaryDirectory() as folder:
        run = Run(build(recipe, data=data, teacher=teacher), RunFolder(folder), make_fabric(recipe), quiet=True)
    run.learner.train()
    device = run.fabric.device
    views = run.experiment.spec.num_peers if run.learner.method.own_views else 1
    images, target = batch(size, device, views=views)
    obvious = ObviousLoop(build(recipe, data=data, teacher=teacher), device) if job["obvious"] else None
    alone = peers_alone(recipe, images, target)

    def steps(step: Callable[[], None]) -> None:
        for _ in range(job["steps"]):
            step()

    def epoch() -> None:
        for pictures, labels in run.training_batches.epoch(0, 0):
            run._one_step(pictures, labels, 0.6)
        run._read_tally()

    contenders: dict[str, Callable[[], Any]] = {
        "floor": lambda: steps(alone),
        "step": lambda: steps(lambda: run._one_step(images, target, 0.6)),
        "epoch": epoch,
    }
    if obvious is not None:
        contenders["obvious"] = lambda: list(obvious.epoch())
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            begun = time.perf_counter()
            contender()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    rate = {name: size * job["steps"] / statistics.median(times) for name, times in seconds.items()}
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {**job, "share_until": recipe.share_until, "images_per_second": rate, "gpu_memory": memory}


HEADINGS = "method", "peers", "batch", "images/s", "step / floor", "epoch / floor", "x obvious loop"


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Images a second of the whole epoch, and the ratios."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        rate = row["images_per_second"]
        peers = row["peers"] + (f", sharing until {row['share_until']}" if row["share_until"] else "")
        cells = [row["method"], peers, str(row["batch_size"]), f"{rate['epoch']:,.0f}"]
        cells += [f"{rate['floor'] / rate['step']:.3f}", f"{rate['floor'] / rate['epoch']:.3f}"]
        cells.append(f"{rate['epoch'] / rate['obvious']:.2f}" if "obvious" in rate else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    from collegium import methods

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--peers", default="2xresnet32", help="cohorts, separated by semicolons")
    parser.add_argument("--batch-size", default="128", help="one or several")
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-obvious", action="store_true", help="leave the obvious loop out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    jobs = [
        {
            "method": method,
            "peers": peers.strip(),
            "batch_size": int(size),
            "obvious": not options.no_obvious,
            **{name: getattr(options, name) for name in ("steps", "rounds", "precision", "compile", "device")},
        }
        for peers in options.peers.split(";")
        for size in options.batch_size.split(",")
        for method in options.methods.split(",")
    ]
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(measure, jobs):
            rows.append(row)
            print(markdown([row])[-1], flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "rows.json").write_text(json.dumps(rows, indent=2) + "\n")
        (options.out / "README.md").write_text("\n".join(markdown(rows)) + "\n")


if __name__ == "__main__":
    main()
