"""The content of result.json: scores, costs and times of a complete run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from collegium.data import wrong_labels
from collegium.errors import DataError
from collegium.networks import parse_peers
from collegium.training.cost import Cost, costs
from collegium.training.experiment import Experiment
from collegium.training.recipe import Recipe


def make_result(
    experiment: Experiment,
    *,
    history: Sequence[Mapping[str, float]],
    class_accuracy: Mapping[str, Sequence[float | None]],
    seconds: Mapping[str, float],
    images: int,
    processes: int,
    of_peers: Mapping[str, Cost] | None = None,
) -> dict[str, Any]:
    """The result of a run after its last epoch.

    Args:
        experiment: what was trained.
        history: the rows of metrics.csv.
        class_accuracy: predictor -> accuracy in each class, None for classes without test images.
        seconds: "training" and "evaluation".
        images: number of training images that the networks have seen, in all epochs.
        processes: number of processes that trained.
        of_peers: the cost of each peer, where it is known.
    """
    recipe, data, learner = experiment.recipe, experiment.data, experiment.learner
    return {
        "method": recipe.method_name,
        "reconstructed": learner.method.reconstructed,
        "notes": list(experiment.notes),
        "peers": list(experiment.spec.names),
        "deployed_peer": learner.deployed_peer,
        "share_until": recipe.share_until,
        "data": data.name,
        "training_images": len(data.train),
        "wrong_labels": wrong_labels(data),
        "test_images": len(data.test),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "stopped": early_stop(history, recipe),
        "complete": True,
        **last_and_best(history),
        "class_names": list(data.class_names),
        "test_images_per_class": torch.bincount(data.test.targets, minlength=data.num_classes).tolist(),
        "class_accuracy": class_accuracy,
        "cost": costs(learner, data.image_shape, of_peers),
        "processes": processes,
        "seconds": sum(seconds.values()),
        "training_seconds": seconds["training"],
        "images_per_second": images / seconds["training"],
    }


def early_stop(history: Sequence[Mapping[str, float]], recipe: Recipe) -> dict[str, Any] | None:
    """Where and why a run ends before its last epoch: "epoch" and "reason"; None where it does not.

    A function of the scores alone, so that a run that is repeated decides as it did before.
    """
    column = "validation/mean_peer/top1_error"
    scored = [row for row in history if column in row]
    if recipe.patience is None or not scored or scored[-1]["epoch"] == recipe.epochs:
        return None
    best = min(scored, key=lambda row: row[column])  # the first of several
    waited = sum(row["epoch"] > best["epoch"] for row in scored)
    if waited < recipe.patience:
        return None
    epoch = int(scored[-1]["epoch"])
    return {
        "epoch": epoch,
        "reason": f"Training stopped after epoch {epoch} of {recipe.epochs}: the peers' mean top-1 error on validation "
        f"images had not come below {100 * best[column]:.2f} %, that of epoch {int(best['epoch'])}, in {waited} "
        f"evaluation{'s' * (waited > 1)}.",
    }


def trained_epochs(result: Mapping[str, Any]) -> int:
    """The epochs that a run has trained: all of its recipe, unless it was stopped early."""
    stopped = result.get("stopped")
    return int(stopped["epoch"] if stopped else result["epochs"])


def check_fits(result: Mapping[str, Any], recipe: Recipe, file: Path) -> None:
    """Whether a result can be that of a recipe.

    Args:
        result: the content of result.json, which has its shape.
        recipe: the run's.
        file: where the result is from.

    Raises:
        DataError: it is that of another run.
    """
    expected = {"method": recipe.method_name, "epochs": recipe.epochs, "seed": recipe.seed}
    expected["peers"] = len(parse_peers(recipe.peers))
    found = {**result, "peers": len(result["peers"])}
    for name, value in expected.items():
        if found[name] != value:
            says = f"{name} {str(found[name])[:60]}, where recipe.yaml says {str(value)[:60]}"
            raise DataError(f"{file} is that of another run: {says}")


def last_and_best(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Test scores of every predictor in the last epoch and in its best one; validation scores in the last epoch.

    The best epoch is chosen on validation images. Without any it is chosen on the test images, which biases the score
    upwards; it serves only to compare with papers that do so.
    """
    evaluated = [row for row in history if "test/peer0/top1_error" in row]
    judge = "validation" if "validation/peer0/top1_error" in history[-1] else "test"
    keys = [key.split("/") for key in evaluated[-1] if key.startswith("test/")]
    predictors: dict[str, Any] = {}
    for name in dict.fromkeys(name for _, name, _ in keys):
        metrics = [metric for _, n, metric in keys if n == name]
        best = min(evaluated, key=lambda row: row[f"{judge}/{name}/top1_error"])
        predictors[name] = {
            "last": {metric: evaluated[-1][f"test/{name}/{metric}"] for metric in metrics},
            "best": {metric: best[f"test/{name}/{metric}"] for metric in metrics} | {"epoch": int(best["epoch"])},
        }
        if judge == "validation":
            predictors[name]["validation"] = {m: evaluated[-1][f"validation/{name}/{m}"] for m in metrics}
    mean = predictors.pop("mean_peer")
    return {"predictors": predictors, "mean_peer": mean, "best_chosen_on": judge}
