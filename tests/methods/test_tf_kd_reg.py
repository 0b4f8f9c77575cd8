import dataclasses
import math

import numpy as np
import pytest
import torch

from collegium.cohort import PeerOutputs
from collegium.errors import UsageError
from collegium.methods.tf_kd_reg import TfKDReg


def designed(y: np.ndarray, classes: int, correct: float, temperature: float) -> np.ndarray:
    """(B, C)"""
    p = np.full((len(y), classes), (1 - correct) / (classes - 1))
    p[range(len(y)), y] = correct
    u = np.exp(p / temperature)
    return u / u.sum(1, keepdims=True)


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize(
    ("options", "alpha", "temperature", "correct"),
    [
        ({}, 0.1, 20, 0.99),
        ({"alpha": 0.6, "temperature": 2.0, "correct": 0.9}, 0.6, 2, 0.9),
        ({"alpha": 1.0}, 1, 20, 0.99),
    ],
)
def test_every_peer_learns_from_the_labels_and_the_designed_teacher(
    naive, array, at, random_outputs, spec_of, labels, peers, options, alpha, temperature, correct
):
    out = random_outputs(peers)
    terms = TfKDReg(spec_of(out), **options)(out, labels, at(0))["peers"]
    z, y = array(out.logits), array(labels)
    assert list(terms) == ["ce", "regulariser"]
    u = designed(y, 5, correct, temperature)
    kl = sum((u * (np.log(u) - np.log(naive.softmax(one)))).sum(1).mean() for one in z)
    assert terms["ce"].item() == pytest.approx((1 - alpha) * sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    assert terms["regulariser"].item() == pytest.approx(alpha * kl, rel=1e-4)


def test_the_designed_teacher_of_100_classes_is_the_authors():
    u = designed(np.array([3]), 100, 0.99, 20)[0]
    assert u[3] == pytest.approx(0.01050, abs=5e-6) and u[0] == pytest.approx(0.00999, abs=6e-6)


def test_a_peer_that_says_what_the_designed_teacher_says_has_nothing_to_learn(at, random_outputs, spec_of, labels):
    u = torch.tensor(designed(labels.numpy(), 5, 0.99, 20)).float()
    out = PeerOutputs(u.log()[None].requires_grad_(), random_outputs(1).features)
    term = TfKDReg(spec_of(out))(out, labels, at(0))["peers"]["regulariser"]
    term.backward()
    assert term.item() == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(out.logits.grad, torch.zeros(1, 6, 5), rtol=0, atol=1e-7)


def test_a_peer_s_gradient_does_not_depend_on_the_others(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    sum(TfKDReg(spec_of(out), alpha=0.4)(out, labels, at(0))["peers"].values()).backward()
    q, y = naive.softmax(array(out.logits)), array(labels)
    expected = (0.6 * (q - np.eye(5)[y]) + 0.4 * (q - designed(y, 5, 0.99, 20))) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-7)


def test_with_a_uniform_teacher_it_is_label_smoothing_up_to_a_constant(at, random_outputs, spec_of, labels):
    """Yuan et al., section 4: smoothing by epsilon is distillation from a uniform teacher with alpha = epsilon."""
    out = random_outputs(2)
    total = sum(TfKDReg(spec_of(out), correct=0.2)(out, labels, at(0))["peers"].values())
    smooth = 0.9 * torch.eye(5)[labels] + 0.1 / 5
    smoothed = -(smooth * out.logits.log_softmax(-1)).sum(-1).mean(-1).sum()
    assert total.item() == pytest.approx(smoothed.item() - 2 * 0.1 * math.log(5), rel=1e-5)


def test_mixed_labels_mix_the_designed_teachers(at, random_outputs, spec_of, labels):
    out = random_outputs(1)
    method, other = TfKDReg(spec_of(out), temperature=0.5), labels.flip(0)
    mixed = 0.7 * torch.eye(5)[labels] + 0.3 * torch.eye(5)[other]
    p = 0.7 * torch.eye(5)[labels] * (0.99 - 0.0025) + 0.3 * torch.eye(5)[other] * (0.99 - 0.0025) + 0.0025
    u = (p / 0.5).softmax(-1)
    expected = 0.1 * (u * (u.log() - out.logits[0].log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(method(out, mixed, at(0))["peers"]["regulariser"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.1}, "TfKDReg's alpha must be a share from 0 to 1, not 1.1"),
        ({"temperature": 0.0}, "TfKDReg's temperature must be more than 0 and finite, not 0"),
        ({"correct": -1.0}, "TfKDReg's correct must be a share from 0 to 1, not -1"),
    ],
)
def test_what_makes_no_sense_is_refused(random_outputs, spec_of, options, message):
    with pytest.raises(UsageError, match=message):
        TfKDReg(spec_of(random_outputs(1)), **options)


def test_one_class_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="^Tf-KD's designed teacher needs 2 or more classes"):
        TfKDReg(dataclasses.replace(spec_of(random_outputs(1)), num_classes=1))
    assert TfKDReg(dataclasses.replace(spec_of(random_outputs(1)), num_classes=2))
