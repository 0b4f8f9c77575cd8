import dataclasses

import numpy as np
import pytest
import torch

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
    stated = DML(spec_of(out), temperature=1.0, target="pairwise", reduction="mean")
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
