"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from collegium.cohort import is_peer

Result = Mapping[str, Any]
"""The content of a run's result.json."""


UNEVEN = 1.5  # times as many test images of one class as of another


def uneven(images_per_class: Sequence[int]) -> bool:
    """Whether some classes have so many more test images that the average over classes tells something of its own."""
    return max(images_per_class) > UNEVEN * min(images_per_class)


def predictor_table(
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    cost: Mapping[str, Mapping[str, int]],
    images_per_class: Sequence[int],
) -> Table:
    """One run: predictor -> metric -> value, and predictor -> parameters and FLOPs, as rows.

    Where test classes are uneven, accuracies over all and by class and kappa take the place of the top-5 error.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("predictor", min_width=max(len(name) for name in scores))
    by_class = uneven(images_per_class)
    shares = (
        ("overall\nacc. %", "average\nacc. %", "kappa\nx 100") if by_class else ("top-1\nerror %", "top-5\nerror %")
    )
    for heading in (*shares, "NLL", "ECE\n%", "parameters", "MFLOPs"):
        table.add_column(heading, justify="right")
    for name, values in scores.items():
        known = cost.get(name)
        if by_class:
            cells = [1 - values["top1_error"], values["average_accuracy"], values["kappa"]]
        else:
            cells = [values["top1_error"], values["top5_error"]]
        table.add_row(
            name,
            *(f"{100 * value:.2f}" for value in cells),
            f"{values['nll']:.3f}",
            f"{100 * values['ece']:.1f}",
            f"{known['parameters']:,}" if known else "",
            f"{known['flops'] / 1e6:.1f}" if known else "",
        )
    return table


def result_table(result: Result) -> Table:
    """One complete run: the last epoch's scores of every predictor."""
    scores = {name: values["last"] for name, values in all_predictors(result).items()}
    title = f"{result['method']} on {result['data']}, {', '.join(result['peers'])}, last of {result['epochs']} epochs"
    return predictor_table(title, scores, result["cost"], result["test_images_per_class"])


def all_predictors(result: Result) -> dict[str, Any]:
    """The predictors of a run, with ``mean_peer`` after the peers."""
    peers = {name: values for name, values in result["predictors"].items() if is_peer(name)}
    return peers | {"mean_peer": result["mean_peer"]} | dict(result["predictors"])


def spread(results: Sequence[Result], metric: str = "top1_error") -> dict[str, tuple[float, float]]:
    """Runs that differ in the seed alone: predictor -> (mean, sample standard deviation) in the last epoch.

    The standard deviation of a single run is not a number.
    """
    summary = {}
    for name in all_predictors(results[0]):
        values = [all_predictors(result)[name]["last"][metric] for result in results]
        summary[name] = (fmean(values), stdev(values) if len(values) > 1 else float("nan"))
    return summary


def comparison_table(title: str, rows: Mapping[str, Sequence[Result]]) -> Table:
    """Rows of runs over seeds: top-1 error of the predictors, mean ± standard deviation, in percent.

    Where the peers of every row are alike, each of them is as good a sample as the others, and only their mean
    is shown.
    """
    columns = list(dict.fromkeys(name for results in rows.values() for name in all_predictors(results[0])))
    if all(len(set(results[0]["peers"])) == 1 for results in rows.values()):
        columns = [name for name in columns if not is_peer(name)]
    table = Table(title=title, title_justify="left")
    table.add_column("", min_width=max(len(row) for row in rows))
    for name in columns:
        table.add_column(name, justify="right")
    for row, results in rows.items():
        summary = spread(results)
        table.add_row(row, *(percent(*summary[name]) if name in summary else "" for name in columns))
    return table


def percent(mean: float, deviation: float) -> str:
    """A share with its standard deviation as percent: ``"5.44 ± 0.31"``."""
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}"
