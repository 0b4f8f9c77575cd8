import dataclasses

import numpy as np
import pytest
import torch

from collegium.errors import UsageError
from collegium.methods.kd import KD


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize(
    ("options", "temperature", "alpha"),
    [({}, 4, 0.9), ({"temperature": 2.0, "alpha": 0.3}, 2, 0.3), ({"alpha": 0.0}, 4, 0), ({"alpha": 1.0}, 4, 1)],
)
def test_every_peer_learns_from_the_labels_and_the_teacher(
    naive, array, at, random_outputs, spec_of, labels, peers, options, temperature, alpha
):
    out = random_outputs(peers, teacher=True)
    terms = KD(spec_of(out), **options)(out, labels, at(0))["peers"]
    z, teacher = array(out.logits), array(out.teacher.logits)
    assert list(terms) == ["ce", "kd"]
    ce = (1 - alpha) * sum(naive.cross_entropy(one, array(labels)) for one in z)
    kd = alpha * sum(naive.kd(one, teacher, temperature) for one in z)
    assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-5)


def test_a_peer_s_gradient_does_not_depend_on_the_others(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(3, teacher=True)
    sum(KD(spec_of(out))(out, labels, at(0))["peers"].values()).backward()
    p, q = naive.softmax(array(out.logits)), naive.softmax(array(out.logits) / 4)
    taught = naive.softmax(array(out.teacher.logits) / 4)
    expected = (0.1 * (p - array(torch.eye(5)[labels])) + 0.9 * 4 * (q - taught)) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-7)


def test_a_peer_that_equals_the_teacher_learns_nothing_from_it(at, random_outputs, spec_of, labels):
    out = random_outputs(2, teacher=True)
    equal = dataclasses.replace(out, logits=out.teacher.logits.expand(2, -1, -1))
    assert KD(spec_of(out))(equal, labels, at(0))["peers"]["kd"].item() == 0


def test_a_missing_teacher_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="KD needs a trained teacher"):
        KD(spec_of(random_outputs(2)))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(random_outputs, spec_of, alpha):
    with pytest.raises(UsageError, match=f"from 0 to 1, not {alpha}"):
        KD(spec_of(random_outputs(2, teacher=True)), alpha=alpha)


def test_standardised_logits_are_imitated_by_a_weight_of_their_own(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(2, teacher=True)
    method = KD(spec_of(out), standardise=True, temperature=2.0, teacher_weight=9.0)
    terms = method(out, labels, at(0))["peers"]

    def standard(z: np.ndarray) -> np.ndarray:
        return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)

    z, teacher = array(out.logits), standard(array(out.teacher.logits))
    assert terms["ce"].item() == pytest.approx(
        0.1 * sum(naive.cross_entropy(one, array(labels)) for one in z), rel=1e-5
    )
    assert terms["kd"].item() == pytest.approx(9 * sum(naive.kd(standard(one), teacher, 2) for one in z), rel=1e-4)


def test_a_standardised_imitation_asks_for_neither_size_nor_level(at, random_outputs, spec_of, labels):
    out = random_outputs(1, teacher=True)
    method = KD(spec_of(out), standardise=True)
    z = 3 * out.teacher.logits[None] - 7
    z.requires_grad_()
    kd = method(dataclasses.replace(out, logits=z), labels, at(0))["peers"]["kd"]
    assert kd.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(method(out, labels, at(0))["peers"]["kd"], out.logits)
    centred = out.logits - out.logits.mean(-1, keepdim=True)
    assert gradient.abs().max() > 1e-3  # and moves the logits neither along a common level nor along themselves
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(1, 6), rtol=0, atol=1e-6)
    torch.testing.assert_close((gradient * centred).sum(-1), torch.zeros(1, 6), rtol=0, atol=1e-5)
