"""What every method costs to train, per step, relative to its peers alone and to two independent networks.

python benchmarks/method_cost.py [--peers resnet20] [--batch-size 128] [--rounds 7] [--out results/method_cost]

Each method trains in a process of its own, on one thread. Its steps alternate with those of two references: *peers
alone*, the same peers (on the same trunk, if they share one) with cross-entropy and the same optimizer, without any
of the library's training code; and *independent*, two whole networks alike, trained in the same way. A step is
forward, backward and update; loading images is left out, and freed memory is kept, as in training. Time is CPU time,
whose median over rounds tells the ratio even on a machine that does other things meanwhile. FLOPs of one step are
counted by torch. Memory is the process's largest resident set during the method's first steps, over what it was
before the networks were built.
"""

import argparse
import dataclasses
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

Job = tuple[str, dict[str, Any], int, str]
"""A row's name, its recipe, a number of rounds, and the network of the teacher where the method needs one."""

# Settings of the methods whose peers are not two networks apart. At batch 128 the teacher is of the peers' kind.
SETTINGS: dict[str, dict[str, Any]] = {
    "one": {"share_until": "stage2"},
    "ffl": {"share_until": "stage2"},
    "cl_ilr": {"share_until": "stage2"},
    "okddip": {"count": 3, "share_until": "stage2"},
    "pcl": {"count": 3, "share_until": "stage2"},
    "ffsd": {"count": 3},
}


def measure(job: Job) -> dict[str, Any]:
    """What a row costs, measured in this process."""
    import torch
    from contenders import batch, peers_alone, random_images
    from measuring import step_flops

    from collegium import methods, networks
    from collegium.training.engine import make_fabric
    from collegium.training.experiment import build
    from collegium.training.loop import Run
    from collegium.training.memory import keep_freed_memory
    from collegium.training.recipe import Recipe
    from collegium.training.run_folder import RunFolder

    torch.set_num_threads(1)
    name, plain, rounds, kind = job
    recipe = Recipe.from_dict(plain)
    kinds = networks.parse_peers(recipe.peers)
    data = random_images(recipe.batch_size)
    before = _resident()
    with tempfile.TemporaryDirectory() as folder:
        teacher = networks.build(kind, num_classes=100) if methods.get(recipe.method_name).needs_teacher else None
        run = Run(build(recipe, data=data, teacher=teacher), RunFolder(folder), make_fabric(recipe), quiet=True)
    run.learner.train()
    views = len(kinds) if run.learner.method.own_views else 1
    images, target = batch(recipe.batch_size, run.fabric.device, views=views)
    contenders: dict[str, Callable[[], None]] = {"method": lambda: run.train_step(images, target, 0.6)}
    for _ in range(2):
        contenders["method"]()
    memory = _peak() - before
    contenders["peers alone"] = peers_alone(recipe, images, target)
    two = dataclasses.replace(recipe, peers=f"2x{kinds[0]}", share_until=None)
    contenders["independent"] = peers_alone(two, images, target)
    flops: dict[str, int] = {}
    for who, step in contenders.items():
        step()
        flops[who] = step_flops(step)
    taken: dict[str, list[float]] = {who: [] for who in contenders}
    with keep_freed_memory():
        for _ in range(rounds):
            for who, step in contenders.items():
                begun = time.process_time()
                step()
                taken[who].append(time.process_time() - begun)
    seconds = {who: median(times) for who, times in taken.items()}
    return {
        "row": name,
        "peers": recipe.peers,
        "share_until": recipe.share_until,
        "seconds": seconds,
        "flops": flops,
        "memory_mb": memory / 2**20,
        "shadow": run.learner.shadow is not None,
        "own_views": run.learner.method.own_views,
        "players": len(run.players.optimizers),
        "teacher": teacher is not None,
    }


def measure_all(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Each in a process of its own, one after another."""
    rows = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(measure, jobs):
            rows.append(row)
            print(markdown([row])[-1], flush=True)
    return rows


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Time, FLOPs and memory; ratios to the references of the same process."""
    lines = [
        "| method | peers | time, x peers alone | time, x two independent | FLOPs, x peers alone "
        "| FLOPs, x two independent | memory, MB | besides one pass of the peers |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        seconds, flops = row["seconds"], row["flops"]
        extra = [
            *(["copies that follow"] if row["shadow"] else []),
            *(["a view for each peer"] if row["own_views"] else []),
            *(["a frozen teacher"] if row["teacher"] else []),
            *([f"{row['players']} players"] if row["players"] > 1 else []),
        ]
        peers = row["peers"] + (f", sharing until {row['share_until']}" if row["share_until"] else "")
        ratios = [
            f"{kind['method'] / kind[who]:.2f}" for kind in (seconds, flops) for who in ("peers alone", "independent")
        ]
        lines.append(f"| {row['row']} | {peers} | {' | '.join(ratios)} | {row['memory_mb']:.0f} | {', '.join(extra)} |")
    return lines


def write_readme(folder: Path, rows: list[dict[str, Any]], setting: str) -> None:
    """How it was measured, the table, and the discussion beside it."""
    import torch

    from collegium.training.provenance import provenance

    assert __doc__ is not None
    how = __doc__.partition("\n\n")[2].partition("\n\n")[2]
    where = provenance(torch.device("cpu"))
    machine = f"{where['device']}, one thread, torch {where['torch']}, {setting}, commit {where['commit']}."
    discussion = folder / "discussion.md"
    text = ["# What a training step costs", "", how.strip(), "", machine, "", *markdown(rows), ""]
    text += [discussion.read_text().strip(), ""] if discussion.exists() else []
    (folder / "README.md").write_text("\n".join(text))


def main() -> None:
    from collegium import methods

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="resnet20", help="one network's name")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jobs = []
    for name in options.methods.split(","):
        setting = {"count": 2, "share_until": None} | SETTINGS.get(name, {})
        for variant in [{}, {"adversarial": "l1"}] if name == "afd" else [{}]:
            recipe = {
                "method": {"name": name, **variant},
                "peers": f"{setting['count']}x{options.peers}",
                "share_until": setting["share_until"],
                "batch_size": options.batch_size,
                "device": "cpu",
            }
            jobs.append((" ".join([name, *variant.values()]), recipe, options.rounds, options.peers))
    rows = measure_all(jobs)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "rows.json").write_text(json.dumps(rows, indent=2) + "\n")
        write_readme(options.out, rows, f"two or three {options.peers}, batches of {options.batch_size}, float32")


if __name__ == "__main__":
    main()
