"""The published numbers of a paper's table, and ours beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from collegium.results.papers import PaperTable, Target
from collegium.results.published import Published
from collegium.results.scores import METRICS, last
from collegium.results.statistics import Spread, spread
from collegium.study.study import Outcome


@dataclass(frozen=True)
class Counterpart:
    """A published number and ours beside it.

    Args:
        target: the published number and its row.
        ours: in the paper's metric and in percent, of the seeds that are done; None where there is none.
        missing: why there is none.
    """

    target: Target
    ours: Spread | None
    missing: str

    @property
    def number(self) -> Published:
        return self.target.number

    @property
    def difference(self) -> float | None:
        """Ours minus the published value, in points."""
        return None if self.ours is None else self.ours.mean - self.number.value

    @property
    def deviations(self) -> float | None:
        """The difference in standard deviations of a single run: over the root mean square of ours and the published
        one, or over the one that is known; None where none is, or where a best run was published."""
        if self.ours is None or self.number.statistic == "best run":
            return None
        known = [std for std in (self.ours.std, self.number.std) if std is not None and not math.isnan(std)]
        width = math.sqrt(math.fsum(std**2 for std in known) / len(known)) if known else 0.0
        return (self.ours.mean - self.number.value) / width if width > 0 else None


def counterparts(table: PaperTable, scale: float, outcomes: Sequence[Outcome]) -> list[Counterpart]:
    """Every published number of a table that is trained at a scale, with ours of the study's cells, done or not."""
    return [_counterpart(target, outcomes) for target in table.targets(scale)]


def _counterpart(target: Target, outcomes: Sequence[Outcome]) -> Counterpart:
    own = [outcome for outcome in outcomes if outcome.cell.label == target.label]
    if target.missing or not own:
        return Counterpart(target, None, target.missing or "no run of it is here")
    number = target.number
    values = [last(o.result, number.predictor, number.metric) for o in own if o.result is not None]
    if not values:
        error = next((outcome.error for outcome in own if outcome.error), None)
        return Counterpart(target, None, f"no run is done yet ({error})" if error else "no run is done yet")
    found = spread(values)
    if number.statistic == "best run":
        best = min if METRICS[number.metric].better == "lower" else max
        found = Spread(found.n, best(values), None)
    return Counterpart(target, found, "")
