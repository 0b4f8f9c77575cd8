"""What the finished runs of a study say, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from collegium.cohort import AVERAGED, is_peer
from collegium.errors import UsageError
from collegium.results.runs import FinishedRuns
from collegium.results.scores import METRICS, all_predictors, last
from collegium.results.statistics import Decision, Gain, Interval, Spread, decide, gain, spread
from collegium.study.cell import Cell
from collegium.study.plan import MARGIN, Contrast
from collegium.study.study import Outcome, Study
from collegium.yaml_text import read_yaml

ONE_NETWORK = "mean_peer"


@dataclass(frozen=True)
class Row:
    """Runs that differ in the seed alone.

    Args:
        label: its name in the study.
        method: its name without the cohort: "ffl:ekd=false".
        cells: its runs, finished or not.
        results: seed -> result of the finished ones.
        device: what computed them, where that is the same for all.
        later: the seeds of those that the study's plan does not hold.
    """

    label: str
    method: str
    cells: tuple[Cell, ...]
    results: Mapping[int, Mapping[str, Any]]
    device: str | None
    later: tuple[int, ...] = ()

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
    def kinds(self) -> set[str]:
        """Of networks among its peers."""
        return set(self.result["peers"])

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
        named = (ONE_NETWORK, "ensemble")
        return [n for n in self.predictors if not (is_peer(n) or n in named or n.endswith(AVERAGED))]

    def scores(self, predictor: str, metric: str = "top1_accuracy") -> dict[int, float]:
        """Seed -> a metric in the last epoch, in its unit."""
        return {seed: last(result, predictor, metric) for seed, result in self.results.items()}

    def spread(self, predictor: str, metric: str = "top1_accuracy") -> Spread | None:
        values = self.scores(predictor, metric)
        return spread(list(values.values())) if values else None

    def validation(self) -> Spread | None:
        """Accuracy of one network on validation images after the last epoch, in percent; None where there are none."""
        scores = [result[ONE_NETWORK].get("validation") for result in self.results.values()]
        return spread([METRICS["top1_accuracy"].value(s) for s in scores if s]) if any(scores) else None

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
    """A predictor of a row beside its counterpart in a row that it is compared with.

    Args:
        row: the row.
        predictor: of it.
        other: the row that it is compared with.
        against: of the other row: the same predictor, and the ensemble for a method's own.
        gain: in points of accuracy; of a contrast that a plan names over the planned seeds alone.
        decision: what it shows; None where it only describes.
    """

    row: Row
    predictor: str
    other: Row
    against: str
    gain: Gain
    decision: Decision | None = None

    @property
    def interval(self) -> Interval | None:
        """The confidence interval that goes with the decision; of 95 % where there is none."""
        return self.gain.interval() if self.decision is None else self.decision.interval

    @property
    def p(self) -> float | None:
        """Corrected by Holm; None where nothing was tested."""
        return None if self.decision is None else self.decision.p

    @property
    def smallest(self) -> float | None:
        """The smallest gain that could have been shown, where this decides."""
        return None if self.decision is None else self.decision.smallest

    @property
    def verdict(self) -> str:
        """In words."""
        return "descriptive" if self.decision is None else self.decision.verdict

    @property
    def over(self) -> str:
        """The row that it is compared with, without the peers where they are the same."""
        return self.other.method if self.other.cohort == self.row.cohort else self.other.label


@dataclass(frozen=True)
class Findings:
    """A study as it stands.

    Args:
        study: the study, or runs that were trained one by one.
        outcomes: of every cell.
        rows: in the study's order.
        comparisons: of every row with those that it is compared with, in the order of rows, for every predictor. Where
            the study has a plan, its contrasts come first and are the ones that decide, for the deployed predictor;
            elsewhere all do, and are corrected within one kind of predictor.
        timed: whether the times of training can be compared: not where a machine had other work besides.
    """

    study: Study | FinishedRuns
    outcomes: tuple[Outcome, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    timed: bool = True

    @property
    def unfinished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state != "done"]

    @property
    def deployed(self) -> str:
        """The predictor that the study is about."""
        return ONE_NETWORK if self.study.plan is None else self.study.plan.deployed

    @property
    def margin(self) -> float:
        """In points: the largest difference that may be called no difference."""
        return MARGIN if self.study.plan is None else self.study.plan.margin

    @property
    def headline(self) -> list[Comparison]:
        """The comparisons of the deployed predictor."""
        return [c for c in self.comparisons if c.predictor == self.deployed]

    @property
    def contrasts(self) -> int:
        """How many the tests of the deployed predictor are corrected for."""
        plan = self.study.plan
        return len(plan.contrasts) if plan is not None else sum(c.gain.p is not None for c in self.headline)

    def compared(self, row: Row, predictor: str) -> list[Comparison]:
        """A predictor beside its counterparts in all rows that its row is compared with."""
        return [c for c in self.comparisons if (c.row, c.predictor) == (row, predictor)]

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

    def relative_cost(self, row: Row, other: Row | None = None) -> float | None:
        """Training seconds over another row's, by default the one it is compared with, by the seeds that both have.

        None where devices differ or are unknown, or the runs were not timed.
        """
        other = self.reference(row) if other is None else other
        if not self.timed or other is None or row.device is None or row.device != other.device:
            return None
        seeds = row.training_seconds.keys() & other.training_seconds.keys()
        if not seeds:
            return None
        own, others = (sum(r.training_seconds[seed] for seed in seeds) for r in (row, other))
        return own / others


def findings(study: Study | FinishedRuns) -> Findings:
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
        later = tuple(o.cell.seed for o in own if study.added_later(o.cell))
        rows.append(
            Row(
                label,
                label.removesuffix(f" · {cohort}"),
                tuple(outcome.cell for outcome in own),
                results,
                devices.pop() if len(devices) == 1 else None,
                later,
            )
        )
    return Findings(study, tuple(outcomes), tuple(rows), _compare(study, rows))


def _compare(study: Study | FinishedRuns, rows: list[Row]) -> tuple[Comparison, ...]:
    plan, by_label = study.plan, {row.label: row for row in rows}
    named = () if plan is None else plan.contrasts
    pairs = [(by_label[pair.row], by_label[pair.against]) for pair in dict.fromkeys((*named, *study.references))]
    found: list[Comparison] = []
    families: dict[str, list[int]] = {}
    for row, other in sorted(pairs, key=lambda pair: rows.index(pair[0])):
        if not row.results or not other.results:
            continue
        for predictor in dict.fromkeys([*row.predictors, *([plan.deployed] if plan else [])]):
            if predictor != ONE_NETWORK and len(row.result["peers"]) != len(other.result["peers"]):
                continue
            against = "ensemble" if predictor in row.own else predictor
            if any(name not in all_predictors(r.result) for r, name in ((row, predictor), (other, against))):
                continue
            scores, family = row.scores(predictor), _kind(row, predictor)
            if plan is not None:
                decides = predictor == plan.deployed and Contrast(row.label, other.label) in named
                family = "named" if decides else ""
                scores = {seed: s for seed, s in scores.items() if not decides or seed in plan.seeds}
            difference = gain(scores, other.scores(against))
            if difference is not None:
                families.setdefault(family, []).append(len(found))
                found.append(Comparison(row, predictor, other, against, difference))
    families.pop("", None)
    for places in families.values():
        gains = [found[k].gain for k in places]
        decisions = decide(gains, len(named) or None, margin=MARGIN if plan is None else plan.margin)
        for k, decision in zip(places, decisions, strict=True):
            n = found[k].gain.spread.n
            if plan is not None and n < len(plan.seeds):
                verdict = f"{decision.verdict.partition(' (')[0]} ({n} of {len(plan.seeds)} seeds)"
                decision = replace(decision, verdict=verdict)
            found[k] = replace(found[k], decision=decision)
    return tuple(found)


def _kind(row: Row, predictor: str) -> str:
    return "own" if predictor in row.own else "peer" if is_peer(predictor) else predictor


def _device(study: Study | FinishedRuns, cell: Cell) -> str | None:
    """What computed a run, and with how many threads."""
    try:
        told = read_yaml(study.run_folder(cell).recipe_file)["provenance"]
        return f"{told['device']}, {told['threads']} threads"
    except (KeyError, TypeError, UsageError):
        return None
