"""Settings of recipes/indian_pines.yaml, compared by one network alone on validation pixels.

python benchmarks/indian_pines_tuning.py run PART    trains; goes on where it was interrupted
python benchmarks/indian_pines_tuning.py table       writes results/indian_pines: tuning.md, a CSV file of each part

The parts are `network` (the network, the patch and more, at small weight decays) and `decay` (weight decay and learning
rate of the network that was taken, for each number of labelled pixels). Indian Pines is looked for under
COLLEGIUM_DATA. What tests in a split is taken out of the scene before anything else is done; what is left is split
apart in space again, into pixels to train on and pixels to validate on.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from grid import spread, train_all

TARGET = Path(__file__).parent.parent / "results" / "indian_pines"
BLOCK = 8
BASE: dict[str, Any] = {
    "peers": "hybridsn_8_bn",
    "patch": 5,
    "pca": 15,
    "epochs": 100,
    "batch_size": 16,
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
}
SMALL: dict[str, Any] = {"peers": "hybridsn_4_bn", "patch": 9}
OF_DATA = ("patch", "pca", "normalise")


@dataclass(frozen=True)
class Part:
    """Settings that are compared with each other.

    Args:
        changes: what each setting changes of `BASE`.
        pixels: labelled training pixels of each class.
        splits: seeds, which no study of results uses.
    """

    changes: tuple[dict[str, Any], ...]
    pixels: tuple[int, ...]
    splits: tuple[int, ...]


PARTS = {
    "network": Part(
        (
            {},
            {"patch": 3},
            {"patch": 7},
            {"learning_rate": 0.02},
            {"learning_rate": 0.05},
            {"learning_rate": 0.2},
            {"normalise": "scene"},
            {"peers": "hybridsn_4_bn"},
            {"peers": "hybridsn_4_bn", "patch": 7},
            SMALL,
            SMALL | {"learning_rate": 0.05},
            SMALL | {"batch_size": 30},
            SMALL | {"normalise": "scene"},
            SMALL | {"learning_rate": 0.02},
            SMALL | {"epochs": 50},
            SMALL | {"weight_decay": 1e-3},
            SMALL | {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2},
        ),
        pixels=(5,),
        splits=(100, 101, 102, 103),
    ),
    "decay": Part(
        tuple(
            SMALL | {"learning_rate": rate, "weight_decay": decay}
            for rate in (0.02, 0.05, 0.1)
            for decay in (0.001, 0.01, 0.05, 0.1, 0.2)
        ),
        pixels=(5, 10, 20),
        splits=(100, 101, 102, 103),
    ),
}


def described(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items()) or "base"


def folder(runs: Path, part: str, changes: dict[str, Any], pixels: int, split: int) -> Path:
    return runs / part / described(changes).replace(", ", "-").replace(" ", "_") / f"{pixels}_pixels" / str(split)


def training_side(split: int, pixels: int, settings: dict[str, Any]) -> Any:
    """The scene without what tests in a split; its "test" pixels are those to validate on."""
    from collegium import data

    inside = max(20, 9 * pixels // 4)  # so many pixels of each class that there are enough to train and to validate on
    whole = data.load("indian_pines", split_seed=split, per_class=inside, patch=9, block=BLOCK)
    truth = whole.ground_truth + 1
    truth.view(-1)[whole.test.positions] = 0
    options: dict[str, Any] = {key: settings[key] for key in ("pca", "normalise") if key in settings}
    left = data.from_scene(
        whole.cube.numpy(),
        truth.numpy(),
        name="indian_pines_training_side",
        class_names=whole.class_names,
        patch=9,
        per_class=pixels,
        block=BLOCK,
        split_seed=split,
        **options,
    )
    return replace(left, patch=settings["patch"])  # the same pixels for every patch


def jobs(runs: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    part = PARTS[name]
    for changes, pixels, split in product(part.changes, part.pixels, part.splits):
        settings = BASE | changes
        training = {key: value for key, value in settings.items() if key not in OF_DATA}
        keywords = {
            **training,
            "method": "independent",
            "data": training_side(split, pixels, settings),
            "schedule": "cosine",
            "seed": split,
            "evaluate_every": settings["epochs"],
            "checkpoint_every": settings["epochs"],
        }
        yield folder(runs, name, changes, pixels, split), keywords


def collect(runs: Path, name: str) -> None:
    """Writes the CSV file of one part from its finished runs."""
    part, rows = PARTS[name], []
    for changes, pixels, split in product(part.changes, part.pixels, part.splits):
        result = json.loads((folder(runs, name, changes, pixels, split) / "result.json").read_text())
        last = result["predictors"]["peer0"]["last"]
        overall, average = 100 * (1 - last["top1_error"]), 100 * last["average_accuracy"]
        rows.append([described(changes), pixels, split, f"{overall:.2f}", f"{average:.2f}"])
    with (TARGET / f"{name}.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["changed", "pixels", "split", "overall_accuracy", "average_accuracy"])
        writer.writerows(rows)


def table(name: str) -> list[str]:
    """One line for each setting, the best first."""
    part = PARTS[name]
    with (TARGET / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = []
    for changes in part.changes:
        cells, means = [], []
        for pixels in part.pixels:
            found = [row for row in rows if row["changed"] == described(changes) and int(row["pixels"]) == pixels]
            overall = [float(row["overall_accuracy"]) for row in found]
            average = [float(row["average_accuracy"]) for row in found]
            means.append(fmean(overall))
            cells += [spread(overall), spread(average)]
        lines.append((fmean(means), f"| {described(changes)} | {' | '.join(cells)} |"))
    heads = [f"{pixels} pixels, {kind}" for pixels in part.pixels for kind in ("overall", "average")]
    return [
        f"| changed | {' | '.join(heads)} |",
        f"|---{'|---:' * len(heads)}|",
        *(line for _, line in sorted(lines, reverse=True)),
    ]


def write_page() -> None:
    """Writes tuning.md from the CSV files and what was concluded from them."""
    base = ", ".join(f"`{key}` {value}" for key, value in BASE.items())
    text = [
        "# How the recipe for Indian Pines was found",
        "",
        f"One network alone (`independent`), blocks of {BLOCK} x {BLOCK} pixels. Of each split, the test pixels were "
        "taken out of the scene; the scores are on validation pixels, which lie in other blocks than the training "
        "pixels among what was left, and are the same for every patch side. Percent after the last epoch, mean ± "
        "sample standard deviation over splits that no study here uses.",
        "",
        f"Base: {base}, SGD, cosine schedule. Each line changes what it names. Repeat it: `python "
        "benchmarks/indian_pines_tuning.py run network`, `run decay` and then `table`.",
        "",
    ]
    for name, part in PARTS.items():
        splits = f"splits {part.splits[0]} to {part.splits[-1]}"
        text += [f"## {name.capitalize()}", "", f"Over {splits}; every run: [`{name}.csv`]({name}.csv).", ""]
        text += [*table(name), "", (TARGET / f"{name}_taken.md").read_text().strip(), ""]
    (TARGET / "tuning.md").write_text("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("part", choices=PARTS)
    run.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    commands.add_parser("table")
    parser.add_argument("--runs", type=Path, default=Path("runs/indian_pines_tuning"))
    options = parser.parse_args()
    if options.command == "run":
        train_all(jobs(options.runs, options.part), options.workers)
        return
    for name in PARTS:
        if (options.runs / name).is_dir():
            collect(options.runs, name)
    write_page()


if __name__ == "__main__":
    main()
