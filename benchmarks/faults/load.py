"""Many steps in one run, and many runs in one process: memory, open files and threads do not grow.

python benchmarks/faults/load.py [--steps 20000] [--runs 200] [--out FOLDER]

Two linear peers with DML on 1,000 digits. What the process holds is noted 100 times each; load.csv has a line for each
quantity, load_samples.csv what was noted, and load.svg shows it.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trials import OK, Case, Record, finish, must, parser, trial, warm

QUANTITIES = {"memory": "resident memory, MiB", "files": "open files", "threads": "threads"}
GROWTH = {"memory": 8.0, "files": 0.0, "threads": 0.0}
"""By how much the median of the last quarter may be above that of the second one."""
SAMPLES = 100


def held() -> dict[str, float]:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def train(run: Path, **changes: Any) -> None:
    from collegium import api

    torch.manual_seed(0)
    recipe: dict[str, Any] = {"method": "dml", "batch_size": 20, "device": "cpu", "keep_checkpoints": 2}
    peers = [nn.Sequential(nn.Flatten(), nn.Linear(256, 10)) for _ in range(2)]
    api.train(run=run, peers=peers, quiet=True, **recipe | changes)


def many_steps(folder: Path, steps: int) -> list[dict[str, float]]:
    """Samples of one run of so many steps, of 50 an epoch."""
    from collegium.training.loop import Run

    samples: list[dict[str, float]] = []
    step, done, every = Run.train_step, 0, max(1, steps // SAMPLES)

    def counted(self: Run, *arguments: Any) -> None:
        nonlocal done
        step(self, *arguments)
        done += 1
        if done % every == 0:
            samples.append({"done": done, **held()})

    Run.train_step = counted  # type: ignore[method-assign]
    epochs = max(1, steps // 50)
    data = {"name": "digits", "per_class": 100}
    train(folder / "run", data=data, epochs=epochs, evaluate_every=10, checkpoint_every=10)
    return samples


def many_runs(folder: Path, runs: int) -> list[dict[str, float]]:
    """Samples after so many runs of two epochs."""
    samples = []
    for number in range(runs):
        train(folder / str(number), data={"name": "digits", "per_class": 4}, epochs=2)
        shutil.rmtree(folder / str(number))
        if (number + 1) % max(1, runs // SAMPLES) == 0:
            samples.append({"done": number + 1, **held()})
    return samples


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def growth(samples: list[dict[str, float]], quantity: str) -> float:
    """Of the median of the last quarter over that of the second: what a process keeps from its start is no growth."""
    part = max(1, len(samples) // 4)
    values = [sample[quantity] for sample in samples]
    return median(values[-part:]) - median(values[part : 2 * part])


def draw(found: dict[str, list[dict[str, float]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "load"
    figure, axes = pyplot.subplots(len(QUANTITIES), len(found), figsize=(9, 6), squeeze=False, layout="constrained")
    for column, (what, samples) in enumerate(found.items()):
        for row, (quantity, title) in enumerate(QUANTITIES.items()):
            axis = axes[row][column]
            axis.plot([s["done"] for s in samples], [s[quantity] for s in samples], linewidth=1)
            axis.set_ylim(0, 1.2 * max(s[quantity] for s in samples))
            axis.set_ylabel(title)
            axis.set_xlabel(what)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    made = parser(__doc__ or "", 0)
    made.add_argument("--steps", type=int, default=20_000)
    made.add_argument("--runs", type=int, default=200)
    options = made.parse_args()
    warm()
    record, found = Record("load", options.out), {}
    campaigns: dict[str, tuple[Callable[[Path, int], list[dict[str, float]]], int]] = {
        "steps": (many_steps, options.steps),
        "runs": (many_runs, options.runs),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for what, (sample, count) in campaigns.items():
            folder = Path(scratch) / what
            folder.mkdir()
            call = lambda sample=sample, folder=folder, count=count: print(json.dumps(sample(folder, count)))  # noqa: E731
            outcome = must(trial(call, folder, seconds=36_000), what)
            found[what] = json.loads(outcome.output.splitlines()[-1])
            for quantity, title in QUANTITIES.items():
                grown = growth(found[what], quantity)
                begin, end = found[what][0][quantity], found[what][-1][quantity]
                wrong = OK if grown <= GROWTH[quantity] else f"grew by {grown:.1f}"
                told = f"{title}: {begin:.0f} after the first sample, {end:.0f} at the end"
                record.add(Case(record.next_number, f"{count:,} {what}", told, wrong, outcome.seconds))
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "load_samples.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["of", "done", *QUANTITIES])
        for what, samples in found.items():
            writer.writerows([what, s["done"], *(round(s[q], 1) for q in QUANTITIES)] for s in samples)
    draw(found, options.out / "load.svg")
    finish(record, options)


if __name__ == "__main__":
    main()
