import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import CohortSpec
from collegium.errors import UsageError
from collegium.methods.competitive import Competitive

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])


def learns_from(ce: list[float], teachers: str) -> list[list[int]]:
    """Peer -> whom it learns from."""
    best = int(np.argmin(ce))
    if teachers == "best":
        return [[] if i == best else [best] for i in range(len(ce))]
    return [[j for j in range(len(ce)) if ce[j] < ce[i]] for i in range(len(ce))]


@PEERS
@pytest.mark.parametrize("teachers", ["best", "better"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_terms_and_gradients_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, teachers, temperature
):
    out = random_outputs(peers)
    method = Competitive(spec_of(out), teachers=teachers, temperature=temperature, features=0.3)
    terms = method(out, labels, at(0))["peers"]
    z, y = array(out.logits), array(labels)
    h = [array(f).mean((2, 3)) for f in out.last_features]
    ce = [naive.cross_entropy(one, y) for one in z]
    told = learns_from(ce, teachers)
    kd = sum(naive.kd(z[i], z[j], temperature) / len(told[i]) for i in range(peers) for j in told[i])
    features = sum(((h[i] - h[j]) ** 2).mean() / len(told[i]) for i in range(peers) for j in told[i])
    assert list(terms) == ["ce", "kd", "features"] and kd > 0
    assert terms["ce"].item() == pytest.approx(sum(ce), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-4)
    assert terms["features"].item() == pytest.approx(0.3 * features, rel=1e-4)
    p = naive.softmax(z / temperature)
    wanted = [temperature * sum((p[i] - p[j]) / len(told[i]) for j in told[i]) / 6 for i in range(peers)]
    wanted_maps = [0.3 * sum(2 * (h[i] - h[j]) / len(told[i]) for j in told[i]) / h[i].size / 9 for i in range(peers)]
    (found,) = torch.autograd.grad(terms["kd"], out.logits, retain_graph=True)
    maps = torch.autograd.grad(terms["features"], out.last_features)
    for i in range(peers):
        expected = np.zeros_like(p[i]) + wanted[i]
        np.testing.assert_allclose(array(found[i]), expected, rtol=1e-4, atol=1e-6)
        expected = np.broadcast_to((np.zeros_like(h[i]) + wanted_maps[i])[:, :, None, None], maps[i].shape)
        np.testing.assert_allclose(array(maps[i]), expected, rtol=1e-4, atol=1e-6)


def test_the_best_peer_learns_from_the_labels_alone(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    z = out.logits.detach().clone()
    z[1] += 20 * torch.eye(5)[labels]
    z.requires_grad_()
    terms = Competitive(spec_of(out))(dataclasses.replace(out, logits=z), labels, at(0))["peers"]
    (gradient,) = torch.autograd.grad(terms["kd"], z)
    assert not gradient[1].any() and gradient[0].any() and gradient[2].any()


def test_two_peers_learn_alike_in_both_forms(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    best, better = (Competitive(spec_of(out), teachers=t)(out, labels, at(0)) for t in ("best", "better"))
    assert list(best["peers"]) == ["ce", "kd"]
    torch.testing.assert_close(best, better)


@pytest.mark.parametrize("teachers", ["best", "better"])
def test_peers_that_are_equally_good_learn_from_nobody(at, random_outputs, spec_of, labels, teachers):
    out = random_outputs(2)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1))
    assert Competitive(spec_of(out), teachers=teachers)(equal, labels, at(0))["peers"]["kd"].item() == 0


def test_by_default_the_best_peer_teaches_by_its_logits_alone_at_a_temperature_of_1(
    at, random_outputs, spec_of, labels
):
    out = random_outputs(3)
    plain, chosen = (
        Competitive(spec_of(out), **options)(out, labels, at(0))["peers"]
        for options in ({}, {"temperature": 1.0, "teachers": "best", "features": 0.0})
    )
    assert list(plain) == ["ce", "kd"]
    torch.testing.assert_close(plain, chosen)
    assert Competitive(spec_of(out)).teachers == "best"
    assert Competitive(spec_of(out)).logits_only is True
    assert Competitive(spec_of(out), features=0.1).logits_only is False


def test_features_of_unlike_widths_are_refused():
    spec = CohortSpec(("net", "other"), 5, (((4, 3, 3),), ((7, 2, 5),)))
    Competitive(spec)
    with pytest.raises(
        UsageError, match=r"unlike widths cannot be compared \(net 4, other 7\).* leave --method.features out$"
    ):
        Competitive(spec, features=0.1)


def test_a_temperature_of_zero_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="Competitive's temperature must be more than 0 and finite, not 0"):
        Competitive(spec_of(random_outputs(2)), temperature=0.0)
