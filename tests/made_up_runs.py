"""Finished runs without training: what the study's and the ranking's own code reads of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from collegium.networks import parse_peers
from collegium.study.cell import Cell
from collegium.study.study import Study
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder


def result_of(recipe: Recipe, errors: Mapping[str, float]) -> dict[str, Any]:
    """A result.json with these top-1 errors of predictors, as shares; top-5 errors are half of them."""
    scores = {}
    for name, error in errors.items():
        last = {"top1_error": error, "top5_error": error / 2, "nll": 2 * error, "ece": 0.02}
        last |= {"average_accuracy": 1 - error, "kappa": 1 - error}
        scores[name] = {"last": last, "best": last | {"epoch": recipe.epochs}}
    predictors = {name: value for name, value in scores.items() if name != "mean_peer"}
    return {
        "method": recipe.method_name,
        "reconstructed": "",
        "peers": parse_peers(recipe.peers),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "data": recipe.data_name,
        "training_images": 100 * recipe.data.get("per_class", 500),
        "test_images": 10_000,
        "predictors": predictors,
        "mean_peer": scores["mean_peer"],
        "best_chosen_on": "test",
        "class_names": ["a", "b"],
        "test_images_per_class": [5000, 5000],
        "class_accuracy": {name: [1 - errors[name]] * 2 for name in predictors},
        "cost": {name: {"parameters": 1000, "flops": 5000} for name in predictors},
        "seconds": 11.0,
        "training_seconds": 10.0,
        "images_per_second": 100.0,
    }


def write_run(folder: Path, recipe: Recipe, errors: Mapping[str, float]) -> None:
    """A run folder as far as its recipe and its result."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False))
    RunFolder(folder).write_result(result_of(recipe, errors))


def write_study(folder: Path, errors: Sequence[tuple[Cell, Mapping[str, float]]]) -> Study:
    """A study whose cells have these errors; those with none are waiting."""
    study = Study(folder, [cell for cell, _ in errors])
    study.write()
    for cell, found in errors:
        if found:
            write_run(study.run_folder(cell).path, study.recipe(cell), found)
    return study
