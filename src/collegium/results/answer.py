"""Whether a study's method was worth its training, in one sentence."""

from dataclasses import replace

from collegium.cohort import is_peer
from collegium.errors import UsageError
from collegium.formatting import number
from collegium.results.comparison import ONE_NETWORK, Comparison, Findings, Row
from collegium.study.grid import BASELINE
from collegium.training.experiment import resolve

_FLOPS_DIFFER = 0.005  # of the others'; a share below it is nothing


def answer(findings: Findings) -> str:
    """ "Yes: dml makes one network 1.2 points (0.3 to 2.0) more accurate than ..."; "" where nothing is compared.

    *Yes* where a contrast is better, *no* where every one is decided and none is better, else *undecided*. The contrast
    that is named has the largest gain of those that the word rests on. Contrasts with networks that train alone are
    what is asked for; others count where there are none of those.
    """
    decided = [c for c in findings.headline if c.decision is not None]
    if not decided:
        return "Undecided: no planned contrast has a pair of finished runs yet." if findings.headline else ""
    tested = [c for c in decided if _trains_alone(c.other)] or decided
    better = [c for c in tested if _is(c, "better")]
    open_ones = [c for c in tested if _is(c, "undecided")]
    waiting = len(decided) < findings.contrasts
    best = max(better or open_ones or tested, key=lambda c: c.gain.spread.mean)
    word = "Yes" if better else "Undecided" if open_ones or waiting else "No"
    n, planned = best.gain.spread.n, _seeds(findings, best)
    so_far = f", with {n} of {planned} seeds so far" if n < planned else ""
    k = len(tested)
    name = best.row.method if len(findings.cohorts()) == 1 else best.row.label
    which = f"the best of {k} contrasts is {name}, which" if k > 1 else name
    return f"{word}{so_far}: {which} {_what(findings, best)}."


def _is(comparison: Comparison, verdict: str) -> bool:
    return comparison.verdict.startswith(verdict)


def _trains_alone(row: Row) -> bool:
    return row.cells[0].recipe.method_name == BASELINE


def _seeds(findings: Findings, c: Comparison) -> int:
    """How many pairs of runs there will be."""
    plan = findings.study.plan
    if plan is not None:
        return len(plan.seeds)
    own, others = ({cell.seed for cell in row.cells} for row in (c.row, c.other))
    return len(own & others)


def _what(findings: Findings, c: Comparison) -> str:
    deployed = {ONE_NETWORK: "one network", "ensemble": "the ensemble"}.get(c.predictor, c.row.name_of(c.predictor))
    mean = c.gain.spread.mean
    than, cost = _other(c), _cost(findings, c)
    if _is(c, "no difference"):
        most = c.verdict.removeprefix("no difference of more than ").partition(" (")[0]
        return f"changes the accuracy of {deployed} by less than {most} points from that of {than}{cost}"
    word = "less" if mean < 0 else "more"
    if not _is(c, "undecided"):
        return f"makes {deployed} {_points(c)} {word} accurate than {than}{cost}"
    said = f"made {deployed} {_points(c)} {word} accurate than {than}"
    if c.gain.spread.n == 1:
        return f"{said} with one seed, and one seed decides nothing"
    if c.smallest is None:
        return f"{said} with every seed alike, from which nothing can be tested"
    return f"{said}; this study could have shown {number(c.smallest)} points"


def _points(c: Comparison) -> str:
    """ "1.20 points (0.30 to 2.00)": how far apart, with the interval seen from the side that is ahead."""
    mean, bounds = c.gain.spread.mean, c.interval
    if bounds is None:
        return f"{number(abs(mean))} points"
    low, high = bounds if mean >= 0 else (-bounds[1], -bounds[0])
    return f"{number(abs(mean))} points ({number(low + 0.0)} to {number(high + 0.0)})"


def _other(c: Comparison) -> str:
    if c.predictor != ONE_NETWORK and not is_peer(c.predictor):
        return f"{'that' if c.against == c.predictor else f'the {c.against}'} of {c.over}"
    own, other = c.row.cells[0].recipe, c.other.cells[0].recipe
    if _trains_alone(c.row) or c.row.kinds != c.other.kinds:
        return c.over
    alone = replace(own, method={"name": BASELINE}, peers=other.peers, share_until=None, teacher=None, seed=other.seed)
    try:
        return "the same network alone" if not resolve(alone).differences(resolve(other)) else c.over
    except UsageError:  # a data set of another version
        return c.over


def _cost(findings: Findings, c: Comparison) -> str:
    """What the row costs beside the other: training where times can be compared, and one image at inference."""
    recipe, peers = c.row.cells[0].recipe, len(c.other.result["peers"])
    flops = c.row.cost(c.predictor)["flops"] / c.other.cost(c.against)["flops"]
    same = abs(flops - 1) <= _FLOPS_DIFFER
    inference = "no extra cost at inference" if same else f"{number(flops)} times the arithmetic at inference"
    ratio = findings.relative_cost(c.row, c.other)
    if ratio is None:
        return f", at {inference}"
    alone = peers > 1 and _trains_alone(c.other)
    time = f"the training time of {peers} networks alone" if alone else "its training time"
    taught = recipe.teacher is not None or c.row.cells[0].teacher is not None
    return f", at {number(ratio)} times {time}{' (the teacher not counted)' if taught else ''} and {inference}"
