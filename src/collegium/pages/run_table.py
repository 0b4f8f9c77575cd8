"""The scores of a run as a table, for a terminal and for a notebook."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

from collegium.baseline import Baseline
from collegium.formatting import number, percent, plural
from collegium.pages.html import Html, element
from collegium.pages.sheet import Column, Sheet, shown
from collegium.results.scores import METRICS, Result, accuracies, all_predictors, one_answer, uneven, wrong_labels
from collegium.results.wording import networks
from collegium.student import deployed_peer
from collegium.training.result import trained_epochs


@dataclass(frozen=True)
class RunTable:
    """The scores of every predictor of a run.

    Args:
        headline: the score of the deployed network.
        title: of the table.
        sheet: a row for each predictor.
        baseline: what it is compared with, in a sentence.
        warning: why the scores may be worth nothing, in a sentence.
    """

    headline: str
    title: str
    sheet: Sheet
    baseline: str = ""
    warning: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield shown(self.headline, "bold")
        if self.baseline:
            yield shown(self.baseline)
        if self.warning:
            yield shown(self.warning, "yellow")
        yield self._fitted(console, options)

    def _fitted(self, console: Console, options: ConsoleOptions) -> Table:
        """The table without the columns at its end that a narrow terminal has no room for."""
        for count in range(len(self.sheet.columns), 1, -1):
            table = Sheet(self.sheet.columns[:count], [row[:count] for row in self.sheet.rows]).terminal(self.title)
            if console.measure(table, options=options.update(width=1000)).minimum <= options.max_width:
                break
        return table

    def _repr_html_(self) -> Html:
        lines = [element("p", text) for text in (self.baseline, self.warning) if text]
        return element("div", element("p", element("b", self.headline)), lines, self.sheet.html(caption=self.title))


def predictor_table(
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    cost: Mapping[str, Mapping[str, int]],
    images_per_class: Sequence[int],
    *,
    deployed: str,
    network: str,
) -> RunTable:
    """One run: predictor -> metric -> value, and predictor -> parameters and FLOPs, as rows.

    Where test classes are uneven, accuracies over all and by class and kappa take the place of the top-1 and top-5
    accuracy; of five classes or fewer there is no top-5 accuracy.

    Args:
        title: of the table.
        scores: predictor -> metric -> value.
        cost: predictor -> parameters and FLOPs.
        images_per_class: number of images that were scored.
        deployed: the peer that is deployed.
        network: its name.
    """
    by_class = "overall_accuracy", "average_accuracy", "kappa"
    keys = (*(by_class if uneven(images_per_class) else accuracies(len(images_per_class))), "nll", "ece")
    metrics = [METRICS[key] for key in keys]
    columns = [Column("predictor", left=True)]
    columns += [Column(key, metric.name, metric.unit, wrap=True) for key, metric in zip(keys, metrics, strict=True)]
    rows = []
    for name, values in scores.items():
        known = cost.get(name)
        costs = [f"{known['parameters']:,}", number(known["flops"] / 1e6, 1)] if known else ["", ""]
        rows.append([name, *(number(metric.value(values), metric.digits) for metric in metrics), *costs])
    accuracy = percent(1 - scores[deployed]["top1_error"])
    headline = f"The deployed network, {deployed} ({network}): {accuracy} % test accuracy"
    return RunTable(headline, title, Sheet([*columns, Column("parameters"), Column("MFLOPs")], rows))


def result_table(result: Result, baseline: Baseline | None = None) -> RunTable:
    """One complete run: the last epoch's scores of every predictor, and of the deployed network trained alone."""
    scores = {name: values["last"] for name, values in all_predictors(result).items()}
    title = f"{result['method']} on {result['data']}, {networks(result['peers'])}, last of "
    title += plural(trained_epochs(result), "epoch") + (" (stopped early)" if result.get("stopped") else "")
    title += wrong_labels(result)
    deployed = deployed_peer(result)
    table = predictor_table(
        title,
        scores,
        result["cost"],
        result["test_images_per_class"],
        deployed=deployed,
        network=result["peers"][int(deployed.removeprefix("peer"))],
    )
    beside = "" if baseline is None else baseline.compared(scores[deployed]["top1_error"])
    return replace(table, baseline=beside, warning=one_answer(result))
