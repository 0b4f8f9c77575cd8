"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from collegium.cohort import is_peer

Result = Mapping[str, Any]
"""The content of a run's result.json."""


def predictor_table(
    title: str, scores: Mapping[str, Mapping[str, float]], cost: Mapping[str, Mapping[str, int]]
) -> Table:
    """One run: predictor -> metric -> value, and predictor -> parameters and FLOPs, as rows."""
    table = Table(title=title, title_justify="left")
    table.add_column("predictor", min_width=max(len(name) for name in scores))
    for heading in ("top-1\nerror %", "top-5\nerror %", "NLL", "ECE\n%", "parameters", "MFLOPs"):
        table.add_column(heading, justify="right")
    for name, values in scores.items():
        known = cost.get(name)
        table.add_row(
            name,
            f"{100 * values['top1_error']:.2f}",
            f"{100 * values['top5_error']:.2f}",
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
    return predictor_table(title, scores, result["cost"])


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
