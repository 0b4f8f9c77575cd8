"""The scores of a run as a table for the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from collegium.formatting import number
from collegium.pages.sheet import Column, Sheet
from collegium.results.scores import METRICS, Result, all_predictors, uneven, wrong_labels


def predictor_table(
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    cost: Mapping[str, Mapping[str, int]],
    images_per_class: Sequence[int],
) -> Table:
    """One run: predictor -> metric -> value, and predictor -> parameters and FLOPs, as rows.

    Where test classes are uneven, accuracies over all and by class and kappa take the place of the top-5 error.
    """
    by_class = "overall_accuracy", "average_accuracy", "kappa"
    keys = (*(by_class if uneven(images_per_class) else ("top1_error", "top5_error")), "nll", "ece")
    metrics = [METRICS[key] for key in keys]
    columns = [Column("predictor", left=True)]
    columns += [Column(key, metric.name, metric.unit, wrap=True) for key, metric in zip(keys, metrics, strict=True)]
    rows = []
    for name, values in scores.items():
        known = cost.get(name)
        costs = [f"{known['parameters']:,}", number(known["flops"] / 1e6, 1)] if known else ["", ""]
        rows.append([name, *(number(metric.value(values), metric.digits) for metric in metrics), *costs])
    return Sheet([*columns, Column("parameters"), Column("MFLOPs")], rows).terminal(title)


def result_table(result: Result) -> Table:
    """One complete run: the last epoch's scores of every predictor."""
    scores = {name: values["last"] for name, values in all_predictors(result).items()}
    title = f"{result['method']} on {result['data']}, {', '.join(result['peers'])}, last of {result['epochs']} epochs"
    title += wrong_labels(result)
    return predictor_table(title, scores, result["cost"], result["test_images_per_class"])
