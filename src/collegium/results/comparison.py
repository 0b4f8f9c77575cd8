"""What the finished runs of a study say, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collegium.cohort import is_peer
from collegium.errors import UsageError
from collegium.results.scores import all_predictors
from collegium.results.statistics import Gain, Spread, gain, holm, spread
from collegium.study.cell import Cell
from collegium.study.study import Outcome, Study
from collegium.yaml_text import read_yaml

ONE_NETWORK = "mean_peer"
HIGHER = {"top1_error": "accuracy", "top5_error": "top5_accuracy"}
"""Errors, which tables of studies show as the accuracies that they leave."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in the seed alone.

    Args:
        label: its name in the study.
        method: its name without the cohort: "ffl:ekd=false".
        cells: its runs, finished or not.
        results: seed -> result of the finished ones.
        device: what computed them, where that is the same for all.
    """

    label: str
    method: str
    cells: tuple[Cell, ...]
    results: Mapping[int, Mapping[str, Any]]
    device: str | None

    @property
    def cohort(self) -> str:
        """The peers, as they are written."""
        return self.cells[0].recipe.peers

    @property
    def rivals(self) -> tuple[str, str]:
        """Peers and data: equal for rows of which one can be the best."""
        return self.cohort, repr(self.cells[0].recipe.to_dict()["data"])

    @property
    def result(self) -> Mapping[str, Any]:
        """That of the first finished run."""
        return next(iter(self.results.values()))

    @property
    def predictors(self) -> list[str]:
        """Those of its runs, the peers first; peers of one kind are told by their mean alone."""
        if not self.results:
            return []
        names = list(all_predictors(self.result))
        alike = len(set(self.result["peers"])) == 1
        return [name for name in names if not (alike and is_peer(name))]

    @property
    def own(self) -> list[str]:
        """The method's own predictors."""
        return [name for name in self.predictors if not is_peer(name) and name not in (ONE_NETWORK, "ensemble")]

    def scores(self, predictor: str, metric: str = "accuracy") -> dict[int, float]:
        """Seed -> a metric in the last epoch; shares in percent, errors as the accuracies that they leave."""
        error = next((name for name, better in HIGHER.items() if better == metric), None)
        found = {}
        for seed, result in self.results.items():
            value = all_predictors(result)[predictor]["last"][error or metric]
            found[seed] = value if metric == "nll" else 100 * (1 - value if error else value)
        return found

    def spread(self, predictor: str, metric: str = "accuracy") -> Spread | None:
        values = self.scores(predictor, metric)
        return spread(list(values.values())) if values else None

    def cost(self, predictor: str) -> dict[str, float]:
        """Parameters and FLOPs for one image; of one network their mean over the peers."""
        cost = self.result["cost"]
        if predictor != ONE_NETWORK:
            return dict(cost[predictor])
        peers = [value for name, value in cost.items() if is_peer(name)]
        return {key: sum(peer[key] for peer in peers) / len(peers) for key in ("parameters", "flops")}

    def name_of(self, predictor: str) -> str:
        """A predictor as readers know it: a peer by its network."""
        if is_peer(predictor):
            return str(self.result["peers"][int(predictor.removeprefix("peer"))])
        return "one network" if predictor == ONE_NETWORK else predictor

    @property
    def training_seconds(self) -> dict[int, float]:
        return {seed: float(result["training_seconds"]) for seed, result in self.results.items()}


@dataclass(frozen=True)
class Comparison:
    """A predictor of a row beside its counterpart in the row that it is compared with.

    Args:
        row: the row.
        predictor: of it.
        against: of the other row: the same one, and the ensemble for a method's own.
        gain: in points of accuracy.
        p: of the paired test, corrected by Holm over the rows of the study for this kind of predictor.
    """

    row: Row
    predictor: str
    against: str
    gain: Gain
    p: float | None


@dataclass(frozen=True)
class Findings:
    """A study as it stands.

    Args:
        study: the study.
        outcomes: of every cell.
        rows: in the study's order.
        comparisons: (row, predictor) -> how far it is above its counterpart.
    """

    study: Study
    outcomes: tuple[Outcome, ...]
    rows: tuple[Row, ...]
    comparisons: Mapping[tuple[str, str], Comparison]

    @property
    def unfinished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state != "done"]

    def cohorts(self) -> dict[str, list[Row]]:
        """Rows by their peers."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.cohort, []).append(row)
        return found

    def reference(self, row: Row) -> Row | None:
        """The row that another is compared with."""
        label = self.study.reference.get(row.label)
        return next((other for other in self.rows if other.label == label), None)

    def relative_cost(self, row: Row) -> float | None:
        """Training seconds over those of the row it is compared with; None where devices differ or are unknown."""
        other = self.reference(row)
        if other is None or row.device is None or row.device != other.device:
            return None
        seeds = row.training_seconds.keys() & other.training_seconds.keys()
        if not seeds:
            return None
        own, others = (sum(r.training_seconds[seed] for seed in seeds) for r in (row, other))
        return own / others


def findings(study: Study) -> Findings:
    """What the finished runs of a study say; it may be incomplete.

    Raises:
        UsageError: a run's folder holds another recipe's run.
        TrainingError: a result cannot be read.
    """
    outcomes = study.outcomes()
    rows = []
    for label in study.labels:
        own = [outcome for outcome in outcomes if outcome.cell.label == label]
        results = {o.cell.seed: o.result for o in own if o.result is not None}
        devices = {_device(study, o.cell) for o in own if o.result is not None}
        cohort = own[0].cell.recipe.peers
        rows.append(
            Row(
                label,
                label.removesuffix(f" · {cohort}"),
                tuple(outcome.cell for outcome in own),
                results,
                devices.pop() if len(devices) == 1 else None,
            )
        )
    return Findings(study, tuple(outcomes), tuple(rows), _compare(study, rows))


def _compare(study: Study, rows: list[Row]) -> dict[tuple[str, str], Comparison]:
    by_label = {row.label: row for row in rows}
    found: list[Comparison] = []
    for row in rows:
        other = by_label.get(study.reference.get(row.label, ""))
        if other is None or not other.results:
            continue
        for predictor in row.predictors:
            against = "ensemble" if predictor in row.own else predictor
            difference = gain(row.scores(predictor), other.scores(against)) if against in other.predictors else None
            if difference is not None:
                found.append(Comparison(row, predictor, against, difference, None))
    corrected: dict[tuple[str, str], Comparison] = {}
    for kind in (ONE_NETWORK, "ensemble", "own", "peer"):
        family = [c for c in found if _kind(c.row, c.predictor) == kind]
        for comparison, p in zip(family, holm([c.gain.p for c in family]), strict=True):
            key = comparison.row.label, comparison.predictor
            corrected[key] = Comparison(comparison.row, comparison.predictor, comparison.against, comparison.gain, p)
    return corrected


def _kind(row: Row, predictor: str) -> str:
    return "own" if predictor in row.own else "peer" if is_peer(predictor) else predictor


def _device(study: Study, cell: Cell) -> str | None:
    """What computed a run, and with how many threads."""
    try:
        told = read_yaml(study.run_folder(cell).recipe_file)["provenance"]
        return f"{told['device']}, {told['threads']} threads"
    except (KeyError, TypeError, UsageError):
        return None
