"""Means, spreads and paired tests over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


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

    by_seed: Mapping[int, float]
    spread: Spread
    wins: int
    p: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of at least one value."""
    return Spread(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def gain(values: Mapping[int, float], reference: Mapping[int, float]) -> Gain | None:
    """The differences of two rows, seed by seed; None where they have no seed in common."""
    differences = {seed: values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())}
    if not differences:
        return None
    found = spread(list(differences.values()))
    return Gain(differences, found, sum(d > 0 for d in differences.values()), _paired_t_test(found))


def _paired_t_test(differences: Spread) -> float | None:
    from scipy.stats import t

    if differences.std is None or differences.std < 1e-12:
        return None
    statistic = differences.mean / (differences.std / math.sqrt(differences.n))
    return float(2 * t.sf(abs(statistic), differences.n - 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values corrected for being so many, by Holm's step-down procedure; what was not tested stays None.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.
    """
    tested = sorted((value, k) for k, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, k) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * value))
        corrected[k] = highest
    return corrected
