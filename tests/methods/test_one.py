import dataclasses

import numpy as np
import pytest
import torch

from collegium.errors import UsageError
from collegium.methods.one import ONE

PEERS = pytest.mark.parametrize("peers", [2, 3])


def gate_weights(method: ONE, trunk: np.ndarray, naive) -> np.ndarray:
    """pool -> linear -> norm over the batch -> ReLU -> softmax, (B, M)"""
    linear = method.gate.linear
    x = trunk.mean((2, 3)) @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    return naive.softmax(np.maximum(x, 0))


@PEERS
@pytest.mark.parametrize(("epoch", "w"), [(0, np.exp(-5)), (40, np.exp(-1.25)), (80, 1), (200, 1)])
def test_all_terms_are_the_paper_s(naive, array, at, random_outputs, spec_of, labels, peers, epoch, w):
    out = random_outputs(peers)
    method = ONE(spec_of(out))
    terms = method(out, labels, at(epoch))["peers"]
    z, y = array(out.logits), array(labels)
    ensemble = np.einsum("bm,mbc->bc", gate_weights(method, array(out.trunk), naive), z)
    assert list(terms) == ["ce", "ce_ensemble", "kd"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, y) for one in z), rel=1e-4)
    assert terms["ce_ensemble"].item() == pytest.approx(naive.cross_entropy(ensemble, y), rel=1e-4)
    assert terms["kd"].item() == pytest.approx(w * sum(naive.kd(one, ensemble, 3) for one in z), rel=1e-4)


def test_the_predictor_is_the_mixture(naive, array, random_outputs, spec_of):
    out = random_outputs(3)
    method = ONE(spec_of(out))
    expected = np.einsum("bm,mbc->bc", gate_weights(method, array(out.trunk), naive), array(out.logits))
    predicted = method.predict(out)
    assert list(predicted) == ["one_e"]
    torch.testing.assert_close(array(predicted["one_e"]), expected, rtol=1e-4, atol=1e-5)


@PEERS
@pytest.mark.parametrize("training", [True, False])
def test_gate_weights_are_positive_and_sum_to_one_for_each_image(random_outputs, spec_of, peers, training):
    torch.manual_seed(0)
    out = random_outputs(peers)
    gate = ONE(spec_of(out)).train(training).gate
    torch.nn.init.ones_(gate.linear.bias)  # opens the ReLU, which may shut every image out of an untrained gate
    weights = gate(out.trunk)
    assert weights.shape == (6, peers)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    assert len(weights.unique(dim=0)) > 1


def test_equal_branches_make_an_equal_mixture_and_cost_nothing(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1))
    method = ONE(spec_of(out))
    torch.testing.assert_close(method.predict(equal)["one_e"], out.logits[0])
    assert abs(method(equal, labels, at(300))["peers"]["kd"].item()) < 1e-5


@pytest.mark.parametrize("trunk", [True, False])
def test_without_a_gate_the_plain_mean_teaches(naive, array, at, random_outputs, spec_of, labels, trunk):
    out = random_outputs(3)
    out = out if trunk else dataclasses.replace(out, trunk=None)
    method = ONE(spec_of(out), gate=False)
    mean = array(out.logits).mean(0)
    terms = method(out, labels, at(300))["peers"]
    assert list(method.parameters()) == []
    torch.testing.assert_close(array(method.predict(out)["one_e"]), mean, rtol=1e-5, atol=1e-6)
    assert terms["ce_ensemble"].item() == pytest.approx(naive.cross_entropy(mean, array(labels)), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(sum(naive.kd(z, mean, 3) for z in array(out.logits)), rel=1e-4)


def test_the_gate_learns_from_the_labels_and_not_from_what_it_teaches(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    method = ONE(spec_of(out))
    terms = method(out, labels, at(300))["peers"]
    wanted = [*method.gate.parameters(), out.trunk]
    assert all(g is None for g in torch.autograd.grad(terms["kd"], wanted, retain_graph=True, allow_unused=True))
    gradients = torch.autograd.grad(terms["ce_ensemble"], [*wanted, out.logits])
    assert all(g.abs().sum() > 0 for g in gradients)


def test_each_branch_moves_towards_the_mixture(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    method = ONE(spec_of(out), temperature=2.0, ramp=0.0)
    method(out, labels, at(0))["peers"]["kd"].backward()
    taught = naive.softmax(array(method.predict(out)["one_e"]) / 2)
    expected = 2 * (naive.softmax(array(out.logits) / 2) - taught) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-6)


def test_a_gate_without_a_trunk_is_refused_with_both_ways_out(random_outputs, spec_of):
    out = dataclasses.replace(random_outputs(3), trunk=None)
    message = r"^ONE's gate reads the output of a shared trunk: share .* with --share-until stage2, or .*gate false$"
    with pytest.raises(UsageError, match=message):
        ONE(spec_of(out))
