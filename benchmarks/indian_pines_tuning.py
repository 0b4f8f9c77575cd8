"""Settings of recipes/indian_pines.yaml, compared by one network alone on validation pixels.

python benchmarks/indian_pines_tuning.py run       trains; goes on where it was interrupted
python benchmarks/indian_pines_tuning.py table     writes results/indian_pines/tuning.csv and tuning.md

Indian Pines is looked for under COLLEGIUM_DATA. What tests in a split is taken out of the scene before anything else is
done; what is left is split apart in space again, into pixels to train on and pixels to validate on.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from grid import spread, train_all

TARGET = Path(__file__).parent.parent / "results" / "indian_pines"
SPLITS = (100, 101, 102, 103)  # seeds that no study of results uses
PER_CLASS, BLOCK = 5, 8
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
CHANGES: tuple[dict[str, Any], ...] = (
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
)
OF_DATA = ("patch", "pca", "normalise")


def name(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items()) or "base"


def folder(runs: Path, changes: dict[str, Any], split: int) -> Path:
    return runs / name(changes).replace(", ", "-").replace(" ", "_") / str(split)


def training_side(split: int, settings: dict[str, Any]) -> Any:
    """The scene without what tests in a split; its "test" pixels are those to validate on."""
    from collegium import data

    whole = data.load("indian_pines", split_seed=split, per_class=20, patch=9, block=BLOCK)
    truth = whole.ground_truth + 1
    truth.view(-1)[whole.test.positions] = 0
    options: dict[str, Any] = {key: settings[key] for key in ("pca", "normalise") if key in settings}
    left = data.from_scene(
        whole.cube.numpy(),
        truth.numpy(),
        name="indian_pines_training_side",
        class_names=whole.class_names,
        patch=9,
        per_class=PER_CLASS,
        block=BLOCK,
        split_seed=split,
        **options,
    )
    return replace(left, patch=settings["patch"])  # the same pixels for every patch


def jobs(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for changes in CHANGES:
        settings = BASE | changes
        training = {key: value for key, value in settings.items() if key not in OF_DATA}
        for split in SPLITS:
            keywords = {
                **training,
                "method": "independent",
                "data": training_side(split, settings),
                "schedule": "cosine",
                "seed": split,
                "evaluate_every": settings["epochs"],
                "checkpoint_every": settings["epochs"],
            }
            yield folder(runs, changes, split), keywords


def write_results(runs: Path) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    rows, lines = [], []
    for changes in CHANGES:
        found = [json.loads((folder(runs, changes, split) / "result.json").read_text()) for split in SPLITS]
        last = [result["predictors"]["peer0"]["last"] for result in found]
        overall = [100 * (1 - scores["top1_error"]) for scores in last]
        average = [100 * scores["average_accuracy"] for scores in last]
        for split, *values in zip(SPLITS, overall, average, strict=True):
            rows.append([name(changes), split, *(f"{value:.2f}" for value in values)])
        lines.append((fmean(overall), f"| {name(changes)} | {spread(overall)} | {spread(average)} |"))
    with (TARGET / "tuning.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["changed", "split", "overall_accuracy", "average_accuracy"])
        writer.writerows(rows)
    base = ", ".join(f"`{key}` {value}" for key, value in BASE.items())
    text = [
        "# How the recipe for Indian Pines was found",
        "",
        f"One network alone (`independent`), {PER_CLASS} training pixels a class, blocks of {BLOCK} x {BLOCK} pixels. "
        "Of each split, the test pixels were taken out of the scene; the scores are on validation pixels, which lie in "
        "other blocks than the training pixels among what was left, and are the same for every patch side. Percent "
        f"after the last epoch, mean ± sample standard deviation over the splits {SPLITS[0]} to {SPLITS[-1]}, which no "
        "study here uses.",
        "",
        f"Base: {base}, SGD, cosine schedule. Each line changes what it names. Every run: [`tuning.csv`](tuning.csv). "
        "Repeat it: `python benchmarks/indian_pines_tuning.py run` and then `table`.",
        "",
        "| changed | overall accuracy | average accuracy |",
        "|---|---|---|",
        *(line for _, line in sorted(lines, reverse=True)),
        "",
    ]
    conclusion = TARGET / "conclusion.md"
    if conclusion.exists():
        text += [conclusion.read_text().strip(), ""]
    (TARGET / "tuning.md").write_text("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--runs", type=Path, default=Path("runs/indian_pines_tuning"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.command == "run":
        train_all(jobs(options.runs), options.workers)
    else:
        write_results(options.runs)


if __name__ == "__main__":
    main()
