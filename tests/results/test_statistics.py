import numpy as np
import pytest
from scipy import stats

from collegium.results.statistics import gain, holm, spread


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
