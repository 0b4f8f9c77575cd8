"""What a run comes to."""

from collections.abc import Mapping, Sequence
from typing import Any


def last_and_best(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Test scores of every predictor in the last epoch, and in its best one; validation scores in the last epoch.

    The best epoch is chosen on validation images; where there are none it is chosen on the test images, which
    flatters, and is there only to compare with papers that do so.
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
