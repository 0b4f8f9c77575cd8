from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from scipy import stats

from collegium.results.statistics import Decision, Gain, Spread, gain, holm, ranks, smallest_gain, spread
from collegium.results.statistics import decide as decisions

decide = partial(decisions, margin=1.0)


def gain_of(differences: Sequence[float]) -> Gain:
    found = gain(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    assert found is not None
    return found


def test_spread_is_the_sample_s() -> None:
    found = spread([1.0, 2.0, 4.0])
    assert (found.n, found.mean) == (3, pytest.approx(7 / 3))
    assert found.std == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert spread([5.0]).std is None


def test_the_paired_test_is_scipy_s_over_the_seeds_that_both_have() -> None:
    a, b = {0: 3.0, 1: 5.0, 2: 4.5, 7: 99.0}, {0: 2.5, 1: 4.0, 2: 4.6, 8: 0.0}
    found = gain(a, b)
    assert found is not None
    assert dict(found.by_seed) == pytest.approx({0: 0.5, 1: 1.0, 2: -0.1})
    assert (found.spread.n, found.wins) == (3, 2)
    assert found.p == pytest.approx(stats.ttest_rel([3.0, 5.0, 4.5], [2.5, 4.0, 4.6]).pvalue)


def test_nothing_is_tested_that_cannot_be() -> None:
    one = gain({0: 2.0}, {0: 1.0})
    assert one is not None and one.p is None and one.spread.std is None
    alike = gain({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert alike is not None and alike.p is None, "differences that do not differ have no t"
    assert gain({0: 1.0}, {1: 1.0}) is None


def test_holm_steps_down() -> None:
    # Worked by hand: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.5 x 1; a p value never falls below the one before.
    assert holm([0.03, None, 0.01, 0.5, 0.02]) == [
        pytest.approx(0.06), None, pytest.approx(0.04), 0.5, pytest.approx(0.06),
    ]  # fmt: skip
    assert holm([0.4, 0.9]) == [pytest.approx(0.8), pytest.approx(0.9)]
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([0.01, 0.02], tests=5) == [pytest.approx(0.05), pytest.approx(0.08)], "three were not tested yet"


def test_the_interval_is_student_s() -> None:
    differences = [0.5, 1.0, -0.1, 0.8]
    for level in (0.05, 0.01):
        expected = stats.ttest_1samp(differences, 0).confidence_interval(1 - level)
        assert gain_of(differences).interval(level) == pytest.approx((expected.low, expected.high))
    assert gain_of([1.0]).interval() is None and gain_of([1.0, 1.0, 1.0]).interval() is None


def test_the_smallest_gain_has_the_power_that_it_says() -> None:
    for n, contrasts in ((4, 1), (5, 3), (10, 1), (30, 3)):
        found = smallest_gain(Spread(n, 0.0, 2.0), contrasts)
        assert found is not None
        bound = stats.t.isf(0.025 / contrasts, n - 1)
        assert stats.nct.sf(bound, n - 1, found * n**0.5 / 2.0) == pytest.approx(0.8, abs=1e-5)
    # Three seeds and 26 tests: by integration over the chi-square of the deviation, no noncentral t in it.
    chi = np.sqrt(stats.chi2.ppf((np.arange(100_000) + 0.5) / 100_000, 2) / 2)
    found = smallest_gain(Spread(3, 0.0, 1.0), 26)
    assert found is not None and found == pytest.approx(16.7, abs=0.01)
    assert np.mean(stats.norm.sf(stats.t.isf(0.025 / 26, 2) * chi - found * 3**0.5)) == pytest.approx(0.8, abs=1e-3)
    assert smallest_gain(Spread(1, 2.0, None)) is None and smallest_gain(Spread(3, 2.0, 0.0)) is None


def test_a_verdict_in_words() -> None:
    def said(*differences: float) -> str:
        (found,) = decide([gain_of(differences)])
        return found.verdict

    assert said(2.0, 2.1, 1.9) == "better" and said(-2.0, -2.1, -1.9) == "worse"
    # t(0.975; 2) · 0.1 / sqrt(3) = 0.2484: within 0.2484 + 0.05 of 0, rounded up so that it stays true.
    assert said(0.15, 0.05, -0.05) == "no difference of more than 0.30"
    assert said(3.0, -3.0, 0.5) == "undecided"
    assert said(1.0) == "undecided (one seed)" and said(1.0, 1.0) == "undecided (no deviation)"
    (found,) = decide([gain_of([0.15, 0.05, -0.05])], margin=0.29)
    assert found.verdict == "undecided"
    assert decide([None], 3) == [Decision(None, None, None, "undecided")]


def test_contrasts_named_beforehand_count_though_their_runs_are_missing() -> None:
    differences = [1.0, 1.3, 0.9, 1.2]
    alone, counted = decide([gain_of(differences)])[0], decide([gain_of(differences), None], 5)[0]
    assert alone.p is not None and alone.smallest is not None
    assert counted.p == pytest.approx(5 * alone.p) and counted.interval == gain_of(differences).interval(0.01)
    assert counted.smallest == smallest_gain(spread(differences), 5)
    assert counted.smallest is not None and counted.smallest > alone.smallest


def test_where_holm_rejects_and_bonferroni_does_not_the_interval_ends_at_0() -> None:
    sure, likely = gain_of([2.0, 2.1, 1.9, 2.0]), gain_of([0.3, 1.0, 0.6, 0.4])
    first, second = decide([sure, likely])
    assert second.p == likely.p and likely.p is not None and 0.025 < likely.p < 0.05
    bonferroni = likely.interval(0.025)
    assert bonferroni is not None and bonferroni[0] < 0 < bonferroni[1]
    assert second.verdict == "better" and second.interval == (0.0, bonferroni[1])
    assert first.interval == sure.interval(0.025)


def test_rows_that_cannot_be_told_apart_have_equal_ranks() -> None:
    noise = dict(enumerate([0.1, -0.2, 0.0, 0.15, -0.05]))

    def row(mean: float, scale: float = 1.0, only: int = 5) -> dict[int, float]:
        return {seed: mean + scale * value for seed, value in list(noise.items())[:only]}

    assert ranks([row(80.0, -1), row(90.0), row(80.05, 0.5)]) == [2, 1, 2]
    # The one in the middle cannot be told from either, so neither are they placed apart.
    assert ranks([row(80.6), row(80.3, -3), row(80.0, 0.5)]) == [1, 1, 1]
    assert ranks([row(80.0, -1), row(80.6)]) == [2, 1]
    assert ranks([row(90.0, only=1), row(80.0, -1)]) == [1, 1], "a single common seed tells nothing"
    assert ranks([row(80.0), row(90.0)]) == [1, 1], "nor does the same difference on all"
    assert ranks([row(80.0)]) == [1] and ranks([]) == []


# Simulated studies with known gains. Rows are compared with one reference, so the contrasts depend on each other.

N, STUDIES = 5, 2000


def simulated(
    gains: Sequence[float], *, seeds: int = N, studies: int = STUDIES, std: float = 0.5
) -> Iterator[list[Gain]]:
    """So many studies of rows with these true gains over a reference; each run has this deviation."""
    draws = np.random.default_rng(7).normal(0, std, (studies, len(gains) + 1, seeds))
    for study in draws:
        yield [gain_of(list(row - study[0] + true)) for row, true in zip(study[1:], gains, strict=True)]


def bound(share: float, studies: int = STUDIES) -> float:
    """Four standard errors of a share that is counted in so many studies."""
    return float(4 * np.sqrt(share * (1 - share) / studies))


def test_95_of_100_intervals_hold_the_true_gain() -> None:
    for seeds in (3, 10):
        held = [low < 0.7 < high for (g,) in simulated([0.7], seeds=seeds) for low, high in [g.interval() or (9, 9)]]
        assert np.mean(held) == pytest.approx(0.95, abs=bound(0.95))


def test_intervals_of_a_family_hold_their_gains_and_agree_with_the_verdicts() -> None:
    true = [0.0, 0.0, 1.0, 2.5]
    held = np.zeros(len(true))
    for gains in simulated(true):
        for k, found in enumerate(decide(gains)):
            assert found.interval is not None
            low, high = found.interval
            held[k] += low <= true[k] <= high
            agrees = {"better": 0 <= low, "worse": high <= 0}.get(found.verdict, low <= 0 <= high)
            assert agrees, found
    assert (held / STUDIES >= 0.95 - bound(0.95)).all(), held / STUDIES


@pytest.mark.parametrize("true", [[0.0] * 6, [0.0, 0.0, 0.0, 5.0, 5.0, 5.0], [0.0, 1.0, 1.0, 1.0]])
def test_false_alarms_of_a_whole_family_are_rare(true: list[float]) -> None:
    alarms = [
        any(d.verdict in ("better", "worse") for d, gain in zip(decide(gains), true, strict=True) if gain == 0)
        for gains in simulated(true)
    ]
    assert np.mean(alarms) <= 0.05 + bound(0.05)


def test_without_the_correction_false_alarms_are_not_rare() -> None:
    """The test above would notice."""
    alarms = [any(decide([g])[0].verdict in ("better", "worse") for g in gains) for gains in simulated([0.0] * 6)]
    assert np.mean(alarms) > 0.12


@pytest.mark.parametrize("contrasts", [1, 4])
def test_the_smallest_gain_is_shown_by_four_of_five_studies(contrasts: int) -> None:
    std = 0.5 * 2**0.5  # of the difference of two runs
    true = smallest_gain(Spread(N, 0.0, std), contrasts)
    assert true is not None
    shown = [decide(gains)[0].verdict == "better" for gains in simulated([true] + [0.0] * (contrasts - 1))]
    assert np.mean(shown) == pytest.approx(0.8, abs=bound(0.8) + 0.01)  # Holm's later steps add a little


@pytest.mark.parametrize("true", [[0.8], [1.2] * 4, [1.2, -1.2, 5.0, 5.0], [0.1] * 4])
def test_no_difference_is_said_wrongly_at_most_5_times_of_100(true: list[float]) -> None:
    """With any x allowed, which is the hardest case: gains that the study shows often, and otherwise bounds."""
    wrong = said = 0
    for gains in simulated(true):
        found = decide(gains, margin=100.0)
        bounds = [float(d.verdict.split()[-1]) if d.verdict.startswith("no ") else np.inf for d in found]
        said += any(np.isfinite(bounds))
        wrong += any(abs(gain) > x for gain, x in zip(true, bounds, strict=True))
    assert said > STUDIES / 10 and wrong / STUDIES <= 0.05 + bound(0.05)


def test_no_difference_needs_the_interval_for_all_contrasts() -> None:
    """Ten gains that are nearly always shown: bounds at the level of Holm's last steps would be wrong in 12 of 100."""
    true, studies = 3.8 / 30**0.5, 1000
    wrong = 0
    for study in np.random.default_rng(5).normal(true, 1, (studies, 10, 30)):
        said = [d.verdict for d in decide([gain_of(list(row)) for row in study], margin=100.0)]
        wrong += any(float(verdict.split()[-1]) < true for verdict in said if verdict.startswith("no "))
    assert 0 < wrong / studies <= 0.05 + bound(0.05, studies)


def test_ranks_of_equal_rows_are_equal_and_of_different_rows_are_not() -> None:
    draws = np.random.default_rng(3).normal(0, 0.5, (1000, 4, N))
    alike = [ranks([dict(enumerate(row)) for row in study]) == [1] * 4 for study in draws]
    assert np.mean(alike) >= 0.95 - bound(0.05, 1000)
    means = np.array([90.0, 90.0, 80.0, 70.0])[:, None]
    ordered = [ranks([dict(enumerate(row)) for row in study]) for study in draws + means]
    assert np.mean([found[2:] == [3, 4] and found[:2] == [1, 1] for found in ordered]) >= 0.95 - bound(0.05, 1000)
