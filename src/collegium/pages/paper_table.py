"""A paper's table as it stands: the published values, ours beside them, and how it is written."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType

from collegium.formatting import MISSING, number
from collegium.pages.html import Html, element
from collegium.pages.sheet import Column, Sheet, csv_text, markdown, shown
from collegium.results.papers import PaperTable, mark, peers
from collegium.results.published import CERTAINTY, Published
from collegium.results.reproduction import Counterpart, counterparts
from collegium.results.scores import METRICS, written
from collegium.results.statistics import Spread
from collegium.study.study import Outcome

NUMBERS = ("ours", "n", "published", "source", "difference", "in s.d.")


class Reproduction:
    """A paper's table as it stands: printing it shows it in the terminal.

    Args:
        table: the table.
        scale: the share of epochs and of training images that ours have.
        outcomes: of the study's cells, finished or not.
    """

    def __init__(self, table: PaperTable, scale: float, outcomes: Sequence[Outcome]) -> None:
        self.table = table
        self.scale = scale
        self.outcomes = outcomes
        self.lines = counterparts(table, scale, outcomes)
        self.footnotes = list(dict.fromkeys(line.missing for line in self.lines if line.missing))

    @property
    def possible(self) -> bool:
        """Whether anything of the table can be trained."""
        return any(not line.target.missing for line in self.lines)

    @property
    def lost(self) -> int:
        """How many runs were begun and did not finish."""
        return sum(outcome.state in ("failed", "broken") for outcome in self.outcomes)

    @property
    def stem(self) -> str:
        """The name of its files."""
        trial = "" if self.scale == 1 else f"-trial-{self.scale:g}"
        return self.table.name.replace("/", "-") + trial

    @property
    def warning(self) -> str:
        """What must be said of a trial wherever it is shown, "" of a whole study."""
        if self.scale == 1:
            return ""
        return (
            f"Scaled to {100 * self.scale:g} % of the epochs and the training images: not comparable with the "
            "published values."
        )

    @property
    def title(self) -> str:
        parts = [f"{self.table.name}: {self.table.title}", *mark(self.scale)]
        return " · ".join(parts)

    @property
    def metric(self) -> str:
        """What the numbers are, where all are the same."""
        kinds = {METRICS[line.number.metric].name for line in self.lines}
        return kinds.pop() if len(kinds) == 1 else ""

    def _cells(self, line: Counterpart) -> dict[str, str]:
        """Column -> what a line has there."""
        published, ours = line.number, MISSING
        if line.ours is not None:
            ours = ("best " if published.statistic == "best run" else "") + written(line.ours)
        elif line.missing:
            ours = f"{MISSING} ({self.footnotes.index(line.missing) + 1})"
        difference, deviations = (
            MISSING if value is None else number(value, digits, sign=True)
            for value, digits in ((line.difference, 2), (line.deviations, 1))
        )
        return {
            "row": line.target.row.label,
            "peers": peers_of(line),
            "data": published.data,
            "predictor": published.predictor.replace("_", " "),
            "metric": METRICS[published.metric].name,
            "ours": ours,
            "n": str(line.ours.n) if line.ours else MISSING,
            "published": ("best " if published.statistic == "best run" else "") + value_text(published),
            "source": published.certainty,
            "difference": difference,
            "in s.d.": deviations,
        }

    @property
    def caption(self) -> list[str]:
        """How the numbers came about, in sentences."""
        what = (self.metric or "errors and accuracies").capitalize()
        tags = sorted({line.number.certainty for line in self.lines})
        text = [self.warning] if self.warning else []
        text += [
            f"{what} on the test images in percent; ours after the last epoch, mean ± sample standard deviation over n "
            "seeds.",
            "Difference: ours minus published, in points; in s.d.: the same over the root mean square of the standard "
            "deviations of ours and the published runs, or over the one that is known.",
            "Source: " + "; ".join(f"{tag}, {CERTAINTY[tag]}" for tag in tags) + ".",
        ]
        precisions = {outcome.cell.recipe.precision for outcome in self.outcomes} - {"fp32"}
        text += [f"Ours were trained in {' and '.join(sorted(precisions))}."] if precisions else []
        told = {o.result["method"]: o.result["reconstructed"] for o in self.outcomes if o.result is not None}
        text += [f"Our {method} is reconstructed: {what}." for method, what in told.items() if what]
        return text

    @property
    def problems(self) -> list[str]:
        """Why numbers of ours are missing, and what became of runs that did not finish."""
        notes = [f"({k}) {note}" for k, note in enumerate(self.footnotes, start=1)]
        bad = [o for o in self.outcomes if o.state in ("failed", "broken")]
        return notes + [f"{o.state}: {o.cell.name}: {o.error}" for o in bad]

    @property
    def cohort(self) -> str:
        """The peers, where all rows have the same."""
        cohorts = {peers_of(line) for line in self.lines}
        return cohorts.pop() if len(cohorts) == 1 else ""

    @property
    def sheet(self) -> Sheet:
        """Its rows as groups, of a line for each predictor."""
        differing = [*([] if self.cohort else ["peers"]), *(["data"] if self._several_data else [])]
        scored = ["predictor", *([] if self.metric else ["metric"])]
        groups: dict[str, list[list[str]]] = {}
        for line in self.lines:
            cells = self._cells(line)
            title = " · ".join(cells[key] for key in ("row", *differing))
            name = ", ".join(cells[key] for key in scored)
            groups.setdefault(title, []).append([name, *(cells[key] for key in NUMBERS)])
        return Sheet([Column("row", "", left=True, wrap=True), *map(Column, NUMBERS)], groups=list(groups.items()))

    @property
    def _several_data(self) -> bool:
        return len({line.number.data for line in self.lines}) > 1

    def __rich__(self) -> RenderableType:
        first = [shown(self.warning, "bold yellow")] if self.warning else []
        return Group(
            shown(" · ".join(filter(None, [self.title, self.cohort])), "bold"),
            *first,
            self.sheet.terminal(),
            shown(" ".join(self.caption), "dim"),
            *(shown(problem, "yellow") for problem in self.problems),
        )

    def _repr_html_(self) -> Html:
        """The same for a notebook."""
        title = " · ".join(filter(None, [self.title, self.cohort]))
        text = [" ".join(self.caption), *self.problems]
        return element("div", self.sheet.html(caption=title), [element("p", entry) for entry in text])

    def markdown(self) -> str:
        """The table with its caption, in GitHub's Markdown."""
        data, metric = ["data"] if self._several_data else [], [] if self.metric else ["metric"]
        text = ("row", "peers", *data, "predictor", *metric)
        columns = [*(Column(key, left=True) for key in text), *map(Column, NUMBERS)]
        rows = [[cells[column.key] for column in columns] for cells in map(self._cells, self.lines)]
        parts = [f"**{markdown(self.title)}**", Sheet(columns, rows).markdown(), markdown(" ".join(self.caption))]
        parts += ["\n".join(f"- {markdown(problem)}" for problem in self.problems)]
        return "\n\n".join(filter(None, parts)) + "\n"

    def as_csv(self) -> str:
        """One line a published number; of a trial every line says so."""
        names = "table scale row peers data predictor metric statistic ours ours_std n missing published published_std"
        names += " certainty difference deviations source"
        records = []
        for line in self.lines:
            number, ours = line.number, line.ours
            record: dict[str, object] = {"table": number.table, "scale": self.scale, "row": line.target.row.label}
            record |= {"peers": peers_of(line)}
            record |= {"data": number.data, "predictor": number.predictor, "metric": number.metric}
            record |= {"statistic": number.statistic, "missing": line.missing}
            record |= {"ours": ours and ours.mean, "ours_std": ours and ours.std, "n": ours and ours.n}
            record |= {"published": number.value, "published_std": "" if math.isnan(number.std) else number.std}
            record |= {"certainty": number.certainty, "source": number.source}
            record |= {"difference": line.difference, "deviations": line.deviations}
            records.append(record)
        return csv_text(names.split(), records, digits=6)


def value_text(number: Published) -> str:
    """``"25.56 ± 0.32"``, without the deviation where none is printed."""
    return written(Spread(1, number.value, None if math.isnan(number.std) else number.std))


def peers_of(line: Counterpart) -> str:
    """The peers of our runs; those of the published number, as far as they are known, where it stands alone."""
    number = line.number
    if not line.target.missing:
        return peers(line.target.row, number)
    if len(number.networks) > 1:
        return ",".join(number.networks)
    count = number.peers.replace(" or ", "/")
    return number.networks[0] if count in ("", "1") else f"{count}x{number.networks[0]}"
