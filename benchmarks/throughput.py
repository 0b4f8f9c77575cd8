"""How fast training is: against its peers alone, and against the loop that paper repositories have.

python benchmarks/throughput.py [--methods ffl,dml] [--peers 2xresnet32] [--batch-size 128] [--out results/throughput]

In one run, alternating, medians of several rounds:

floor      the peers alone: forward, backward and update with cross-entropy, same precision, layout and trunk
step       Collegium's training step on a batch that lies ready
epoch      Collegium's epoch with data, augmentation, metrics and reading them, without evaluation
obvious    the same epoch as paper repositories write it, twice as long and without the start of the processes that read
           the pictures: see ``contenders.ObviousLoop``

All of them keep the memory that they free, as training does. Arithmetic is the FLOPs of a step, as torch counts them:
over the floor's it is what the method's own modules, teacher, copies, views and further backward passes must have.
State is the bytes of parameters, buffers, gradients and optimizer state that exist after a step, a frozen teacher and
copies that follow among them. Rows are written one by one, and a repeated command measures those that are missing;
the table shows all that were measured alike.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import SHARED, ObviousLoop, batch, peers_alone, random_images, training
from measuring import (
    Row,
    measure_missing,
    median_seconds,
    origin,
    repeated,
    step_flops,
    table,
    training_state,
    write_readme,
)
from torch._dynamo.utils import counters

from collegium import methods, networks
from collegium.training.experiment import build
from collegium.training.recipe import Recipe


def measure(job: Row) -> Row:
    """One method with one cohort, in this process."""
    size, count = job["batch_size"], job["steps"]
    names = networks.parse_peers(job["peers"])
    recipe = Recipe(
        method={"name": job["method"]},
        peers=job["peers"],
        share_until=SHARED.get(job["method"]) if len(set(names)) == 1 else None,
        teacher="python:teacher" if methods.get(job["method"]).needs_teacher else None,
        batch_size=size,
        precision=job["precision"],
        compile=job["compile"],
        cuda_graphs=job["cuda_graphs"],
        device=job["device"],
    )
    data = random_images(size * count)
    teacher = networks.build(names[0], num_classes=100) if recipe.teacher else None
    run = training(recipe, data, teacher)
    device = run.fabric.device
    images, target = batch(size, device, views=len(names) if run.learner.method.own_views else 1)
    longer = build(recipe, data=random_images(2 * size * count + size), teacher=teacher)
    obvious = ObviousLoop(longer, device) if job["obvious"] else None
    floor = peers_alone(recipe, images, target)

    def epoch() -> None:
        for pictures, labels in run.training_batches.epoch(0, 0):
            run.train_step(pictures, labels, 0.6)
        run.read_tally()

    contenders: dict[str, Callable[[], Any]] = {
        "floor": repeated(floor, count),
        "step": repeated(lambda: run.train_step(images, target, 0.6), count),
        "epoch": epoch,
    }
    if obvious is not None:
        contenders["obvious"] = lambda: obvious.step_seconds() * count
    seconds = median_seconds(contenders, job["rounds"], device)
    seconds["epoch"] *= count / len(run.training_batches)  # pairs of a class may leave an epoch fewer steps
    flops = {} if recipe.compile else {name: step_flops(contenders[name]) // count for name in ("floor", "step")}
    return {
        "share_until": recipe.share_until,
        "images_per_second": {name: size * count / time for name, time in seconds.items()},
        "flops": flops,
        "state": {
            "floor": training_state(floor.cohort, [floor.optimizer]),
            "step": training_state(run.learner, run.players.optimizers.values()),
        },
        "graphs_skipped": counters["inductor"]["cudagraph_skips"] if recipe.cuda_graphs else None,
    }


WANTED = "steps", "rounds", "precision", "compile", "cuda_graphs", "device"
COMPUTED = "precision", "compile", "cuda_graphs", "device"  # what one table has alike
HEADINGS = (
    *("method", "peers", "batch", "images/s", "step / floor", "arithmetic / floor", "epoch / floor"),
    *("x obvious loop", "state / floor"),
)


def cells(row: Row) -> list[str]:
    """Images a second of the whole epoch, and the ratios."""
    rate, state, flops = row["images_per_second"], row["state"], row["flops"]
    peers = row["peers"] + (f", sharing until {row['share_until']}" if row["share_until"] else "")
    return [
        row["method"],
        peers,
        str(row["batch_size"]),
        f"{rate['epoch']:,.0f}",
        f"{rate['floor'] / rate['step']:.3f}",
        f"{flops['step'] / flops['floor']:.3f}" if flops else "",
        f"{rate['floor'] / rate['epoch']:.3f}",
        f"{rate['epoch'] / rate['obvious']:.2f}" if "obvious" in rate else "",
        f"{state['step'] / state['floor']:.3f}",
    ]


def enough_peers(peers: str, method: str) -> str:
    """The cohort, with more of its first network where the method needs more peers."""
    names = networks.parse_peers(peers)
    names = [*names, *[names[0]] * (methods.get(method).min_peers - len(names))]
    return f"{len(names)}x{names[0]}" if len(set(names)) == 1 else ",".join(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--peers", default="2xresnet32", help="cohorts, separated by semicolons")
    parser.add_argument("--batch-size", default="128", help="one or several")
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graphs", action="store_true", help="of compiled steps")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-obvious", action="store_true", help="leave the obvious loop out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    jobs = [
        {
            "method": method,
            "peers": enough_peers(peers.strip(), method),
            "batch_size": int(size),
            "obvious": not options.no_obvious,
            **{name: getattr(options, name) for name in WANTED},
        }
        for peers in options.peers.split(";")
        for size in options.batch_size.split(",")
        for method in options.methods.split(",")
    ]
    measured = measure_missing(
        options.out and options.out / "rows.json",
        jobs,
        measure,
        lambda row: " | ".join(cells(row)),
        device=options.device,
        overwrite=options.overwrite,
    )
    if options.out:
        assert __doc__ is not None
        here, every = measured[0]["provenance"]["device"], json.loads((options.out / "rows.json").read_text())
        alike = [row for row in every if all(row[name] == getattr(options, name) for name in COMPUTED)]
        alike = [row for row in alike if row["provenance"]["device"] == here]
        _, _, _, contenders, meaning = __doc__.strip().split("\n\n")
        contenders = "\n".join(["```", contenders, "```"])
        lines = [
            "# How fast training is",
            "",
            "Medians of several rounds, in which these take turns:",
            "",
            contenders,
            "",
        ]
        lines += [meaning.partition(" Rows are written")[0], "", origin(alike), "", *table(HEADINGS, map(cells, alike))]
        write_readme(options.out, lines)


if __name__ == "__main__":
    main()
