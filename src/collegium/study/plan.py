"""What a study is to find out, fixed before its first run."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from collegium.errors import UsageError, nearest
from collegium.networks.names import parse_peers
from collegium.study.cell import Cell

MEAN_PEER, ENSEMBLE = "mean_peer", "ensemble"
MARGIN = 1.0
"""In points: the largest difference that may be called no difference, where a study does not say."""


@dataclass(frozen=True)
class Contrast:
    """Two rows of a study of which one is to be shown better.

    Args:
        row: the label of the one.
        against: the label of the other.
    """

    row: str
    against: str

    @property
    def name(self) -> str:
        """ "ffl · 2xresnet20 vs independent · 2xresnet20" """
        return f"{self.row} vs {self.against}"


@dataclass(frozen=True)
class Plan:
    """What a study is to find out. It does not change; cells that it does not hold were added later.

    Args:
        hypothesis: in the author's words; "" where there is none.
        contrasts: what decides: the corrected tests are of these alone, over the planned seeds.
        deployed: the predictor that they compare: "mean_peer", "ensemble" or a peer, "peer0".
        margin: in points, the largest difference that may be called no difference.
        rows: the labels of the planned rows.
        seeds: the planned seeds.
        written: when, in UTC: "2026-01-31T12:00:00Z".
        commit: of the code that wrote it, "" outside a checkout.
    """

    hypothesis: str
    contrasts: tuple[Contrast, ...]
    deployed: str
    margin: float
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    written: str
    commit: str

    def holds(self, cell: Cell) -> bool:
        """Whether a run was planned."""
        return cell.label in self.rows and cell.seed in self.seeds

    def to_dict(self) -> dict[str, Any]:
        """As study.yaml says it."""
        plain = asdict(self) | {"contrasts": [asdict(contrast) for contrast in self.contrasts]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Plan":
        """From what study.yaml says. A KeyError or TypeError means that it is not a plan."""
        contrasts = tuple(Contrast(**contrast) for contrast in plain["contrasts"])
        given = {**plain, "contrasts": contrasts, "rows": tuple(plain["rows"]), "seeds": tuple(plain["seeds"])}
        return cls(**given)


@dataclass(frozen=True)
class PlanOptions:
    """What a call says of the plan; None where it says nothing.

    Args:
        hypothesis: see :class:`Plan`.
        contrasts: as for :func:`parse_contrasts`; by default every row against its references.
        deployed: see :class:`Plan`; by default "mean_peer".
        margin: see :class:`Plan`; by default 1 point.

    Raises:
        UsageError: the margin is not above 0.
    """

    hypothesis: str | None = None
    contrasts: str | None = None
    deployed: str | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise UsageError(f"--margin is a number of points above 0, not {self.margin:g}")

    @property
    def given(self) -> dict[str, Any]:
        """Entry -> value, of those that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_plan(
    options: PlanOptions, cells: Sequence[Cell], usual: Sequence[Contrast], *, commit: str, now: datetime | None = None
) -> Plan:
    """The plan of a study that has these cells.

    Args:
        options: what the call says.
        cells: the study's.
        usual: the contrasts where the call names none.
        commit: of the code.
        now: by default the present.

    Raises:
        UsageError: a row or a predictor does not exist, or there is nothing to compare.
    """
    contrasts = tuple(usual) if options.contrasts is None else parse_contrasts(options.contrasts, cells)
    if not contrasts:
        raise UsageError("the plan compares nothing: name two rows, as in --contrasts 'ffl vs dml', or add independent")
    deployed = options.deployed or MEAN_PEER
    compared = {label for contrast in contrasts for label in (contrast.row, contrast.against)}
    for cell in cells:
        if cell.label in compared:
            _check_deployed(deployed, cell)
    return Plan(
        hypothesis=" ".join((options.hypothesis or "").split()),
        contrasts=contrasts,
        deployed=deployed,
        margin=MARGIN if options.margin is None else options.margin,
        rows=tuple(dict.fromkeys(cell.label for cell in cells)),
        seeds=tuple(dict.fromkeys(cell.seed for cell in cells)),
        written=(now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=commit,
    )


def _check_deployed(deployed: str, cell: Cell) -> None:
    peers = len(parse_peers(cell.recipe.peers))
    known = [MEAN_PEER, ENSEMBLE, *(f"peer{k}" for k in range(peers))]
    if deployed not in known:
        raise UsageError(f"--deployed: {cell.label} has no predictor {deployed!r}; it has {', '.join(known)}")


def check_unchanged(plan: Plan, options: PlanOptions, cells: Sequence[Cell], folder: object) -> None:
    """Whether a later call says the same as the plan.

    Raises:
        UsageError: it says something else.
    """
    for name, value in options.given.items():
        same = value == getattr(plan, name)
        if name == "hypothesis":
            same = " ".join(value.split()) == plan.hypothesis
        if name == "contrasts":
            try:
                same = set(parse_contrasts(value, [cell for cell in cells if plan.holds(cell)])) == set(plan.contrasts)
            except UsageError:
                same = False
        if not same:
            raise UsageError(
                f"{folder} has a plan of {plan.written} that says another --{name}, and a plan does not change; leave "
                f"--{name} out, or choose another folder with --study"
            )


def parse_contrasts(text: str, cells: Sequence[Cell]) -> tuple[Contrast, ...]:
    """``"ffl vs independent, dml vs independent"`` -> contrasts of rows; a ";" separates in place of ",".

    A side is a method as the grid writes it ("ffl:share_until=stage2"), which means its row of every cohort that both
    sides have, or a row's whole label ("ffl · 2xresnet20"). "METHOD:METHOD" says the same as "METHOD vs METHOD" where
    one colon alone has a row on both of its sides: "ffl:share_until=stage2:independent".

    Raises:
        UsageError: a row does not exist, a text can be read in two ways or not at all, or a pair is named twice.
    """
    cohort = {cell.label: cell.recipe.peers for cell in cells}
    rows: dict[str, list[str]] = {}
    for label, peers in cohort.items():
        for name in (label, label.removesuffix(f" · {peers}")):
            rows.setdefault(name, []).append(label)
    found: list[Contrast] = []
    for entry in filter(None, map(str.strip, text.split(";" if ";" in text else ","))):
        one, other = _sides(entry, list(rows))
        whole = one in cohort and other in cohort
        pairs = [(a, b) for a in rows[one] for b in rows[other] if whole or cohort[a] == cohort[b]]
        if not pairs:
            raise UsageError(f"--contrasts: {one} and {other} have no peers in common")
        for a, b in pairs:
            if a == b:
                raise UsageError(f"--contrasts compares {a} with itself")
            if {a, b} in [{contrast.row, contrast.against} for contrast in found]:
                raise UsageError(f"--contrasts names {Contrast(a, b).name} twice")
            found.append(Contrast(a, b))
    if not found:
        raise UsageError("--contrasts names nothing; write it like 'ffl vs independent, dml vs independent'")
    return tuple(found)


def _sides(entry: str, known: Sequence[str]) -> tuple[str, str]:
    separators = list(re.finditer(r"\s+vs\.?\s+", entry)) or list(re.finditer(":", entry))
    splits = [(entry[: s.start()].strip(), entry[s.end() :].strip()) for s in separators]
    readings = [(one, other) for one, other in splits if one in known and other in known]
    if len(readings) == 1:
        return readings[0]
    if readings:
        raise UsageError(f"--contrasts: {entry!r} can be read in {len(readings)} ways; write it as 'METHOD vs METHOD'")
    if len(splits) == 1:
        unknown = next(side for side in splits[0] if side not in known)
        raise UsageError(f"--contrasts: no row is called {unknown!r}{nearest(unknown, list(known))}")
    raise UsageError(f"--contrasts: cannot read {entry!r}: write two methods of this study as 'METHOD vs METHOD'")
