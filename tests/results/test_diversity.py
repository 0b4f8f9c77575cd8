import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from collegium.results.diversity import (
    agreement,
    confusion,
    double_fault,
    jensen_shannon,
    kappa,
    most_confused,
    reliability,
)

ANSWERS = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
TARGET = torch.tensor([0, 1, 1, 0])


def test_agreement_by_hand():
    torch.testing.assert_close(agreement(ANSWERS), torch.tensor([[1, 0.75], [0.75, 1]], dtype=torch.float64))


def test_kappa_by_hand():
    """p_o = 3/4, p_e = 1/2 * 1/4 + 1/2 * 3/4 = 1/2, so kappa = (3/4 - 1/2) / (1/2)."""
    assert kappa(ANSWERS, 2)[0, 1] == pytest.approx(0.5)


def test_kappa_is_scikit_learns():
    random = torch.Generator().manual_seed(0)
    answers = torch.randint(7, (3, 200), generator=random)
    answers[1, :120] = answers[0, :120]
    found = kappa(answers, 7)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(cohen_kappa_score(answers[i], answers[j]))


def test_kappa_of_two_that_always_say_the_same_is_one():
    assert kappa(torch.zeros(2, 5, dtype=torch.long), 3)[0, 1] == 1


def test_double_fault_by_hand():
    """The first is wrong on images 1 and 3, the second on image 3."""
    expected = torch.tensor([[0.5, 0.25], [0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(double_fault(ANSWERS, TARGET), expected)


def test_jensen_shannon_is_scipys():
    z = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(1)) * 3
    p = z.double().softmax(-1).numpy()
    found = jensen_shannon(z)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(np.mean(jensenshannon(p[i], p[j], axis=1) ** 2), abs=1e-12)


def test_jensen_shannon_runs_from_zero_to_ln_two():
    z = torch.tensor([[[100.0, -100.0]], [[-100.0, 100.0]], [[100.0, -100.0]]])
    found = jensen_shannon(z)
    assert found[0, 1] == pytest.approx(math.log(2))
    assert found[0, 2] == 0


def test_confusion_is_scikit_learns():
    random = torch.Generator().manual_seed(2)
    target, answers = torch.randint(6, (2, 300), generator=random)
    found = confusion(answers, target, 6)
    np.testing.assert_array_equal(found, confusion_matrix(target, answers, labels=range(6)))
    assert found.sum() == 300


def test_most_confused_leaves_out_right_answers_and_empty_cells():
    matrix = torch.tensor([[9, 1, 0], [0, 8, 3], [1, 0, 7]])
    assert most_confused(matrix, 10) == [(1, 2, 3), (0, 1, 1), (2, 0, 1)]


def test_calibration_error_by_hand():
    # Sure of 0.9 three times, right twice; of 0.52 once, wrong; of 1, right: (3 |0.9 - 2/3| + |0.52 - 0| + 0) / 5
    sure = torch.tensor([0.9, 0.9, 0.9, 0.52, 1.0])
    found = reliability(torch.stack([sure, 1 - sure], 1).log(), torch.tensor([0, 1, 0, 1, 0]))
    assert found.ece == pytest.approx((0.7 + 0.52) / 5)
    assert found.count.tolist() == [0] * 7 + [1, 0, 0, 0, 0, 0, 3, 1]
