"""Means, spreads, paired contrasts over seeds, and what they decide."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, TypeVar

LEVEL = 0.05
"""How often a family of contrasts without any gain may be called better or worse: alpha below."""
POWER = 0.8
"""How often a study must show a gain for it to count as one that the study could have shown."""
NO_SPREAD = 1e-12

Seed = TypeVar("Seed", bound=Hashable)
Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Args:
        n: how many.
        mean: their mean.
        std: their sample standard deviation; None where n is 1.
    """

    n: int
    mean: float
    std: float | None

    @property
    def varies(self) -> bool:
        """Whether there is a deviation that a t-test can divide by."""
        return self.std is not None and self.std > NO_SPREAD


@dataclass(frozen=True)
class Gain:
    """How far one row is above another, over the seeds that both have.

    Args:
        by_seed: seed -> difference.
        spread: of the differences.
        wins: on how many seeds the difference is above 0.
        p: two-sided p value of Student's paired t-test; None with fewer than two seeds, or where the differences
            do not differ.
    """

    by_seed: Mapping[Any, float]
    spread: Spread
    wins: int
    p: float | None

    def interval(self, level: float = LEVEL) -> Interval | None:
        """The confidence interval of the gain at 1 - level: ``mean ± t(1 - level / 2; n - 1) · std / sqrt(n)``.

        t(q; n - 1) is the q quantile of Student's t with n - 1 degrees of freedom. None with fewer than two seeds, or
        where the differences do not differ: a deviation of 0 over a few seeds does not say that there is none.
        """
        if self.spread.std is None or not self.spread.varies:
            return None
        half = _critical(self.spread.n, level) * self.spread.std / math.sqrt(self.spread.n)
        return self.spread.mean - half, self.spread.mean + half


@dataclass(frozen=True)
class Decision:
    """What a named contrast shows, see :func:`decide`.

    Args:
        p: corrected for the number of contrasts; None where nothing can be tested.
        interval: confidence interval of the gain that agrees with the verdict; None where there is none.
        smallest: the smallest gain that the contrast could have shown, see :func:`smallest_gain`; None as above.
        verdict: "better", "worse", "no difference of more than 0.62", "undecided", "undecided (one seed)" or
            "undecided (no deviation)".
    """

    p: float | None
    interval: Interval | None
    smallest: float | None
    verdict: str


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of at least one value."""
    return Spread(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def gain(values: Mapping[Seed, float], reference: Mapping[Seed, float]) -> Gain | None:
    """The differences of two rows, seed by seed; None where they have no seed in common."""
    differences = {seed: value - reference[seed] for seed, value in values.items() if seed in reference}
    if not differences:
        return None
    found = spread(list(differences.values()))
    return Gain(differences, found, sum(d > 0 for d in differences.values()), _paired_t_test(found))


def _paired_t_test(differences: Spread) -> float | None:
    from scipy.special import stdtr

    if differences.std is None or not differences.varies:
        return None
    statistic = differences.mean / (differences.std / math.sqrt(differences.n))
    return float(2 * stdtr(differences.n - 1, -abs(statistic)))


def _critical(n: int, level: float) -> float:
    """What |t| of n seeds exceeds with probability ``level`` where there is no gain."""
    from scipy.special import stdtrit

    return float(-stdtrit(n - 1, level / 2))


def smallest_gain(differences: Spread, contrasts: int = 1, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest true gain that a two-sided paired t-test shows with probability ``power``, in the gain's unit.

    It is the delta for which ``P(T > t(1 - a / 2; n - 1)) = power``, where T has the noncentral t distribution with
    n - 1 degrees of freedom and noncentrality ``delta · sqrt(n) / std``, and ``a = level / contrasts``. That is the
    strictest step of Holm's procedure: a contrast that is not the first to be rejected needs less. (T below the
    opposite bound is left out; at a power of 0.8 it adds less than 1e-4.) ``std`` is estimated from the same few
    seeds, and so is the result: with three seeds the true one is, 95 times of 100, 0.5 to 6.3 times as large.

    Args:
        differences: of the seeds.
        contrasts: how many the test is corrected for.
        level: of the whole family.
        power: the probability.

    Returns:
        None with fewer than two seeds, or where the differences do not differ.
    """
    from scipy.special import nctdtrinc

    if differences.std is None or not differences.varies:
        return None
    noncentrality = nctdtrinc(differences.n - 1, 1 - power, _critical(differences.n, level / contrasts))
    return float(noncentrality) * differences.std / math.sqrt(differences.n)


def decide(
    gains: Sequence[Gain | None], contrasts: int | None = None, *, margin: float, level: float = LEVEL
) -> list[Decision]:
    """Decides a family of k contrasts.

    - *better*, *worse*: Holm's corrected p is below ``level``; the sign is that of the mean.
    - *no difference of more than x*: otherwise, where the interval lies within ±x and x is at most ``margin``. It is
      the test of equivalence by a confidence interval, at ``level / k``.
    - *undecided*: everything else, a single seed and differences without deviation among it.

    The interval is that of Bonferroni, ``mean ± t(1 - level / 2k; n - 1) · std / sqrt(n)``, cut at 0 where Holm's
    procedure, which is stricter with none and less strict with some, rejects what Bonferroni does not: then 0 is its
    end. So it never contradicts the verdict: with *better* no value below 0 is in it, with *undecided* and *no
    difference* 0 is inside, for a contrast that Holm does not reject has p of at least level / k.

    What holds, if differences are normal and whatever the dependence between contrasts:

    - each interval covers its own true gain with probability 1 - level or more, for it holds Student's interval at
      1 - level;
    - with probability 1 - level no contrast without a gain is called better or worse (Holm);
    - with probability 1 - level no "no difference of more than x" is wrong (Bonferroni). The narrower intervals of
      Holm's later steps would not do: each contrast could be wrong at ``level`` where all others are rejected.

    Sources: Holm, Scandinavian Journal of Statistics, 1979; intervals that agree with it: Strassburger and Bretz,
    Statistics in Medicine, 2008.

    Args:
        gains: of the contrasts; None where there is no pair of runs yet.
        contrasts: k; by default as many as can be tested. Where contrasts were named beforehand, their number:
            one whose runs are missing does not make the others less strict.
        margin: the largest x, in the gain's unit.
        level: the bound of each kind of error for the whole family.
    """
    k = max(1, contrasts or sum(g is not None and g.p is not None for g in gains))
    corrected = holm([None if g is None else g.p for g in gains], k)
    return [_decision(g, p, k, level, margin) for g, p in zip(gains, corrected, strict=True)]


def _decision(found: Gain | None, p: float | None, k: int, level: float, margin: float) -> Decision:
    bounds = None if found is None else found.interval(level / k)
    if found is None or p is None or bounds is None:
        why = "" if found is None else " (one seed)" if found.spread.n == 1 else " (no deviation)"
        return Decision(None, None, None, f"undecided{why}")
    low, high = bounds
    smallest = smallest_gain(found.spread, k, level)
    if p < level:
        better = found.spread.mean > 0
        cut = (max(low, 0.0), high) if better else (low, min(high, 0.0))
        return Decision(p, cut, smallest, "better" if better else "worse")
    x = max(-low, high)
    verdict = f"no difference of more than {_rounded_up(x)}" if x <= margin else "undecided"
    return Decision(p, bounds, smallest, verdict)


def _rounded_up(x: float) -> str:
    """Two digits of which the statement is still true."""
    return f"{math.ceil(100 * x - 1e-9) / 100:.2f}"


def holm(p: Sequence[float | None], tests: int | None = None) -> list[float | None]:
    """p values corrected for being so many, by Holm's step-down procedure; what was not tested stays None.

    The smallest is multiplied by k, the next by k - 1 and so on, and none falls below the one before.

    Args:
        p: the p values.
        tests: k; by default as many as are not None.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.
    """
    tested = sorted((value, k) for k, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, k) in enumerate(tested):
        highest = max(highest, min(1.0, ((tests or len(tested)) - rank) * value))
        corrected[k] = highest
    return corrected


def ranks(scores: Sequence[Mapping[Seed, float]], level: float = LEVEL) -> list[int]:
    """The rank of every row, 1 for the highest scores; rows that cannot be told apart have equal ranks.

    Two rows are told apart by the paired t-test over the seeds that both have, corrected by Holm for all pairs of
    rows. Rows are sorted by their means and cut into groups wherever every row above is told apart from every row
    below; a rank is 1 + the number of rows in the groups above. So no row is ever placed above another that it cannot
    be told apart from, and with probability 1 - level no two rows that are alike are placed apart. Two rows with fewer
    than two common seeds, or with the same difference on all, cannot be told apart.

    Args:
        scores: of each row: seed -> score, higher is better, at least one.
        level: how often any two rows that are alike may be placed apart.
    """
    order = sorted(range(len(scores)), key=lambda row: -fmean(scores[row].values()))
    pairs = list(combinations(order, 2))
    found = [gain(scores[above], scores[below]) for above, below in pairs]
    apart = {
        pair
        for pair, g, p in zip(pairs, found, holm([g.p if g else None for g in found]), strict=True)
        if g is not None and p is not None and p < level and g.spread.mean > 0
    }
    result = [1] * len(scores)
    for place in range(1, len(order)):
        above, below = order[:place], order[place:]
        cut = all((a, b) in apart for a in above for b in below)
        result[order[place]] = place + 1 if cut else result[order[place - 1]]
    return result
