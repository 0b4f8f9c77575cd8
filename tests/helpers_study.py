"""Cells small enough to be trained many times, and results that need no training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collegium.study.cell import Cell
from collegium.study.plan import PlanOptions
from collegium.study.study import Study
from collegium.training.experiment import resolve
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder


def cell(method: str = "independent", seed: int = 0, *, teacher: str | None = None, **changes: Any) -> Cell:
    """Two steps an epoch on 40 digits."""
    values: dict[str, Any] = dict(
        method=method,
        peers="2xresnet8",
        data={"name": "digits", "per_class": 4},
        epochs=1,
        batch_size=20,
        device="cpu",
        seed=seed,
    )
    recipe = Recipe.from_dict(values | changes)
    return Cell(f"{method} · {recipe.peers}", recipe, teacher)


def finish(study: Study, cell: Cell, accuracy: float, *, seconds: float = 10.0, own: Mapping[str, float] = {}) -> None:
    """Writes the folder of a run that is done, with a made-up result."""
    folder = RunFolder(study.run_folder(cell).path)
    recipe = resolve(study.recipe(cell))
    peers = recipe.peers.replace("2x", "").split(",") * (2 if "2x" in recipe.peers else 1)
    folder.path.mkdir(parents=True)
    folder.open(recipe, {"device": "a processor", "threads": 1})

    def scores(share: float) -> dict[str, Any]:
        last = {"top1_error": 1 - share, "top5_error": 0.0, "nll": 0.5, "ece": 0.02}
        last |= {"average_accuracy": share, "kappa": share}
        return {"last": last, "best": last | {"epoch": 1}}

    names = [*(f"peer{k}" for k in range(len(peers))), "ensemble", *own]
    result = {
        "method": recipe.method_name,
        "reconstructed": "",
        "peers": peers,
        "data": "digits",
        "seed": recipe.seed,
        "training_images": 40,
        "test_images": 360,
        "epochs": recipe.epochs,
        "complete": True,
        "predictors": {name: scores(own.get(name, accuracy + (0.01 if name == "ensemble" else 0))) for name in names},
        "mean_peer": scores(accuracy),
        "best_chosen_on": "test",
        "class_names": list("0123456789"),
        "class_accuracy": {name: [accuracy] * 10 for name in names},
        "test_images_per_class": [36] * 10,
        "cost": {name: {"parameters": 1000 * (k + 1), "flops": 5000} for k, name in enumerate(names)},
        "seconds": seconds + 1,
        "training_seconds": seconds,
        "images_per_second": 40 / seconds,
    }
    row = {"test/mean_peer/top1_error": 1 - accuracy, "seconds": seconds}
    folder.write_metrics([{"epoch": 1.0} | row, {"epoch": 2.0} | row])
    folder.result_file.write_text(json.dumps(result))


def made_up(
    folder: Path, accuracies: Mapping[str, list[float]], plan: PlanOptions | None = None, **changes: Any
) -> Study:
    """A study whose runs are all done: method -> accuracy by seed; all are compared with independent."""
    cells = [cell(method, seed, **changes) for method, found in accuracies.items() for seed in range(len(found))]
    labels = {c.label: c.recipe.method_name for c in cells}
    base = next((label for label, method in labels.items() if method == "independent"), None)
    reference = {} if base is None else {label: base for label in labels if label != base}
    study = Study(folder, cells, reference=reference)
    study.set_plan(plan or PlanOptions())
    study.write()
    for c in cells:
        own = {"fused": accuracies[c.recipe.method_name][c.seed] + 0.02} if c.recipe.method_name == "ffl" else {}
        seconds = 20.0 if c.recipe.method_name == "ffl" else 10.0
        finish(study, c, accuracies[c.recipe.method_name][c.seed], seconds=seconds, own=own)
    return study
