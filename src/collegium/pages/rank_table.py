"""What works best on a data set with a network: every finished run beneath a folder, and every published value."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType

from collegium.errors import UsageError, nearest
from collegium.formatting import MISSING
from collegium.pages.html import Html, element
from collegium.pages.sheet import Cell, Column, Sheet, shown
from collegium.results.published import CERTAINTY
from collegium.results.ranking import TRIAL, Standing, ranked
from collegium.results.scores import written
from collegium.results.statistics import Spread


class Ranking:
    """All values, group by group. Printing it shows those of one data set and network in the terminal.

    Args:
        standings: in any order, without ranks.
        left_out: folder -> why it is not in the ranking.
        data: the data set to be shown in the terminal, None for all.
        network: the network to be shown there, None for all.

    Raises:
        UsageError: there is no value of this data set or network.
    """

    def __init__(
        self,
        standings: Iterable[Standing],
        left_out: Mapping[str, str] | None = None,
        *,
        data: str | None = None,
        network: str | None = None,
    ) -> None:
        self.groups = ranked(standings)
        self.left_out = dict(left_out or {})
        self.data, self.network = data, network
        for what, value, known in (
            ("data", data, {group[0] for group in self.groups}),
            ("peers", network, {group[1] for group in self.groups if data in (None, group[0])}),
        ):
            if value is not None and value not in known:
                raise UsageError(f"--{what} {value}: no value is known of it{nearest(value, sorted(known))}")

    @property
    def shown(self) -> list[list[Standing]]:
        """The groups for the terminal: those asked for, or those with results of ours."""
        asked = self.data is not None or self.network is not None
        return [
            group
            for (data, network, *_), group in self.groups.items()
            if self.data in (None, data)
            and self.network in (None, network)
            and (asked or any(s.origin == "ours" for s in group))
        ]

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [_sheet(group).terminal(heading(group[0])) for group in self.shown]
        if not parts:
            parts.append(shown(_NOTHING))
        else:
            parts.append(shown(self._caption, "dim"))
        parts += [shown(f"left out: {folder}: {why}", "yellow") for folder, why in self.left_out.items()]
        return Group(*parts)

    def _repr_html_(self) -> Html:
        """The same for a notebook."""
        tables = [_sheet(group).html(caption=heading(group[0])) for group in self.shown]
        notes = [self._caption if tables else _NOTHING]
        notes += [f"left out: {folder}: {why}" for folder, why in self.left_out.items()]
        return element("div", tables, [element("p", note) for note in notes])

    @property
    def _caption(self) -> str:
        told = "Whose: ours, or published: " + "; ".join(f"{tag}, {text}" for tag, text in CERTAINTY.items()) + "."
        return " ".join([*CAPTION, told])


_NOTHING = "No finished run was found; --data and --peers show the published values."

CAPTION = (
    "Values are listed among those of the same data set, number of training images, network and metric; one network "
    "and several networks together are listed apart.",
    "Ranks are those of our rows of two seeds or more: rows that the paired t-test over the seeds of both, corrected "
    "for all pairs of the list, cannot tell apart have equal ranks (2=).",
    "A single run and a published value have no rank: they stand where their value is, but cannot be ordered.",
    "Recipes differ: compare the epochs too.",
    "Our values are those of the last epoch; papers often print the best one.",
    "A trial at a reduced scale, the best of several runs, and what is not known well enough come last.",
)


COLUMNS = (
    Column("rank"),
    *(Column(key, left=True, wrap=True) for key in ("method", "peers", "predictor")),
    *map(Column, ("%", "n", "epochs")),
    Column("whose", left=True),
)


def _sheet(group: Sequence[Standing]) -> Sheet:
    rows = []
    for s in group:
        method = f"{s.method} (trial)" if s.remark == TRIAL else s.method
        texts = [rank_text(s), method, s.peers, s.predictor.replace("_", " "), value_text(s), *numbers(s)]
        texts.append("ours" if s.origin == "ours" else s.certainty)
        rows.append([Cell(text, strong=s.origin == "ours") for text in texts])
    return Sheet(COLUMNS, rows)


def heading(s: Standing) -> str:
    """What a group is: data set, training images, network, what is deployed."""
    images = f", {s.images:,} training images" if s.images else ""
    return f"{s.data}{images} · {s.network} · {s.metric} of {s.deployed}"


def rank_text(s: Standing) -> str:
    """``"2="`` where others have the same rank."""
    return MISSING if s.rank is None else f"{s.rank}{'=' * s.tied}"


def value_text(s: Standing) -> str:
    return written(Spread(s.n or 1, s.value, s.std))


def numbers(s: Standing) -> list[str]:
    """How many runs and epochs, as far as that is known."""
    return [MISSING if s.n is None else str(s.n), MISSING if s.epochs is None else str(s.epochs)]
