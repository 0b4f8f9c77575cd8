import dataclasses

import numpy as np
import pytest
import torch

from collegium.errors import UsageError
from collegium.methods.dml import DML

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])


@PEERS
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_peer_imitates_each_of_the_others(
    naive, array, at, random_outputs, spec_of, labels, peers, temperature, reduction
):
    out = random_outputs(peers)
    terms = DML(spec_of(out), temperature=temperature, reduction=reduction)(out, labels, at(0))["peers"]
    z = array(out.logits)
    mutual = sum(naive.kd(z[i], z[j], temperature) for i in range(peers) for j in range(peers) if i != j)
    assert list(terms) == ["ce", "mutual"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, array(labels)) for one in z), rel=1e-5)
    assert terms["mutual"].item() == pytest.approx(mutual / (peers - 1 if reduction == "mean" else 1), rel=1e-5)


@PEERS
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_with_the_ensemble_as_target_every_peer_imitates_the_mean_probability_of_the_others(
    naive, array, at, random_outputs, spec_of, labels, peers, temperature
):
    out = random_outputs(peers)
    terms = DML(spec_of(out), temperature=temperature, target="ensemble")(out, labels, at(0))["peers"]
    q = naive.softmax(array(out.logits) / temperature)
    expected = 0.0
    for i in range(peers):
        p = sum(q[j] for j in range(peers) if j != i) / (peers - 1)
        expected += temperature**2 * (p * (np.log(p) - np.log(q[i]))).sum(-1).mean()
    assert terms["mutual"].item() == pytest.approx(expected, rel=1e-5)


@PEERS
def test_the_defaults_are_the_paper_s(at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    stated = DML(spec_of(out), temperature=1.0, target="pairwise", reduction="mean", divergence="kl")
    assert DML(spec_of(out))(out, labels, at(0)) == stated(out, labels, at(0))


@PEERS
@pytest.mark.parametrize("target", ["pairwise", "ensemble"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_peer_moves_towards_the_mean_of_the_others_which_stand_still(
    naive, array, at, random_outputs, spec_of, labels, peers, target, temperature
):
    out = random_outputs(peers)
    DML(spec_of(out), target=target, temperature=temperature)(out, labels, at(0))["peers"]["mutual"].backward()
    p = naive.softmax(array(out.logits) / temperature)
    # Both targets have one gradient: T (p_i - mean of the others' p) / B.
    rest = (p.sum(0) - p) / (peers - 1)
    torch.testing.assert_close(array(out.logits.grad), temperature * (p - rest) / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", ["pairwise", "ensemble"])
def test_equal_peers_cost_nothing(at, random_outputs, spec_of, labels, target):
    out = random_outputs(3)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1))
    assert abs(DML(spec_of(out), target=target)(equal, labels, at(0))["peers"]["mutual"].item()) < 1e-6


@pytest.mark.parametrize(
    "target",
    ["pairwise", "ensemble"],
)
def test_the_most_certain_predictions_cost_a_finite_amount(at, random_outputs, spec_of, labels, target):
    out = random_outputs(2)
    certain = dataclasses.replace(out, logits=torch.eye(5)[labels] * torch.tensor([200.0, 150.0])[:, None, None])
    assert DML(spec_of(out), target=target)(certain, labels, at(0))["peers"]["mutual"].item() == pytest.approx(0)


def renyi(p: np.ndarray, q: np.ndarray, alpha: float) -> float:
    """D_alpha(p || q), mean over the batch."""
    total = 0.0
    for b in range(len(p)):
        total += np.log(sum(p[b, c] ** alpha * q[b, c] ** (1 - alpha) for c in range(p.shape[1]))) / (alpha - 1)
    return total / len(p)


@PEERS
@pytest.mark.parametrize(("alpha", "temperature"), [(2.0, 1.0), (0.5, 1.0), (1.5, 3.0)])
@pytest.mark.parametrize("target", ["pairwise", "ensemble"])
def test_the_renyi_divergence_is_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, alpha, temperature, target
):
    out = random_outputs(peers)
    method = DML(spec_of(out), divergence="renyi", alpha=alpha, temperature=temperature, target=target)
    p, expected = naive.softmax(array(out.logits) / temperature), 0.0
    for i in range(peers):
        rest = [p[j] for j in range(peers) if j != i]
        told = rest if target == "pairwise" else [sum(rest) / len(rest)]
        expected += sum(renyi(one, p[i], alpha) for one in told) / len(told)
    mutual = method(out, labels, at(0))["peers"]["mutual"]
    assert mutual.item() == pytest.approx(temperature**2 * expected, rel=1e-4)


def test_a_divergence_of_two_to_one_and_a_half_by_hand(at, random_outputs, spec_of):
    """(3/4, 1/4) from (1/2, 1/2): log(2 (9/16 + 1/16)) = log(5/4); the other way log(1/4 (4/3 + 4)) = log(4/3)."""
    out = random_outputs(2, batch=1, classes=2)
    z = torch.tensor([[[0.0, 0.0]], [[np.log(3), 0.0]]])
    method = DML(spec_of(out), divergence="renyi")
    mutual = method(dataclasses.replace(out, logits=z), torch.tensor([0]), at(0))["peers"]["mutual"]
    assert mutual.item() == pytest.approx(np.log(5 / 4) + np.log(4 / 3), rel=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 1.0005])
def test_a_renyi_divergence_of_order_one_is_kl(at, random_outputs, spec_of, labels, alpha):
    out = random_outputs(3)
    near, kl = (DML(spec_of(out), **o)(out, labels, at(0)) for o in ({"divergence": "renyi", "alpha": alpha}, {}))
    torch.testing.assert_close(near, kl)
    gradients = [torch.autograd.grad(terms["peers"]["mutual"], out.logits) for terms in (near, kl)]
    torch.testing.assert_close(*gradients)


def test_the_order_falls_along_a_cosine_to_nothing(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    annealed = DML(spec_of(out), divergence="renyi", alpha=2.0, anneal=True)
    for epoch, alpha in ((0, 2.0), (75, 1 + np.cos(np.pi / 4)), (150, 1.0), (225, 1 - np.cos(np.pi / 4))):
        fixed = DML(spec_of(out), divergence="renyi", alpha=alpha)
        torch.testing.assert_close(annealed(out, labels, at(epoch)), fixed(out, labels, at(epoch)))
    assert annealed(out, labels, at(300))["peers"]["mutual"].item() == pytest.approx(0, abs=1e-6)


def test_what_is_imitated_by_the_renyi_divergence_stands_still(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    DML(spec_of(out), divergence="renyi")(out, labels, at(0))["peers"]["mutual"].backward()
    p = naive.softmax(array(out.logits))
    expected = []
    for own, told in ((p[0], p[1]), (p[1], p[0])):
        share = told**2 / own
        expected.append((own - share / share.sum(1, keepdims=True)) / 6)  # d D_2 / d own logits, by hand
    torch.testing.assert_close(array(out.logits.grad), np.stack(expected), rtol=1e-4, atol=1e-6)


def test_an_order_below_zero_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="DML's alpha must be more than 0 and finite, not -1"):
        DML(spec_of(random_outputs(2)), divergence="renyi", alpha=-1.0)
