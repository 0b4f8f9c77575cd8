import dataclasses
import math

import numpy as np
import pytest
import torch

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.method import Shadow
from collegium.methods.pcl import PCL

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])


@pytest.fixture
def with_means(random_outputs):
    """with_means(peers): outputs beside those of the peers' temporal means."""

    def make(peers: int) -> PeerOutputs:
        means = torch.randn(peers, 6, 5, generator=torch.Generator().manual_seed(9)).requires_grad_()
        return dataclasses.replace(random_outputs(peers), shadow=means)

    return make


def ensemble(method: PCL, features: list[np.ndarray]) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (method.classifier.weight, method.classifier.bias))
    return np.concatenate([f.mean((2, 3)) for f in features], axis=1) @ weight.T + bias


@PEERS
@pytest.mark.parametrize(("epoch", "w"), [(0, math.exp(-5)), (40, math.exp(-1.25)), (80, 1), (299, 1)])
def test_all_terms_are_the_paper_s(naive, array, at, with_means, spec_of, labels, peers, epoch, w):
    out = with_means(peers)
    method = PCL(spec_of(out))
    terms = method(out, labels, at(epoch))["peers"]
    z, means, y = array(out.logits), array(out.shadow), array(labels)
    z_pe = ensemble(method, [array(f) for f in out.last_features])
    assert list(terms) == ["ce", "ce_pe", "pe", "pm"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    assert terms["ce_pe"].item() == pytest.approx(naive.cross_entropy(z_pe, y), rel=1e-5)
    assert terms["pe"].item() == pytest.approx(w * sum(naive.kd(one, z_pe, 3) for one in z), rel=1e-4)
    pairs = sum(naive.kd(z[i], means[j], 3) for i in range(peers) for j in range(peers) if i != j)
    assert terms["pm"].item() == pytest.approx(w * pairs / (peers - 1), rel=1e-4)


@PEERS
def test_each_peer_moves_towards_its_teachers_which_stand_still(naive, array, at, with_means, spec_of, labels, peers):
    out = with_means(peers)
    method = PCL(spec_of(out), temperature=2.0, ramp=0.0)
    terms = method(out, labels, at(0))["peers"]
    q, p = naive.softmax(array(out.logits) / 2), naive.softmax(array(method.predict(out)["pcl_e"]) / 2)
    means = naive.softmax(array(out.shadow) / 2)
    learned = [out.logits, out.shadow, *out.last_features, *method.parameters()]
    by_pe, *rest = torch.autograd.grad(terms["pe"], learned, allow_unused=True)
    torch.testing.assert_close(array(by_pe), 2 * (q - p) / 6, rtol=1e-4, atol=1e-6)
    assert all(g is None for g in rest)
    by_pm, *rest = torch.autograd.grad(terms["pm"], learned, allow_unused=True)
    others = (means.sum(0) - means) / (peers - 1)
    torch.testing.assert_close(array(by_pm), 2 * (q - others) / 6, rtol=1e-4, atol=1e-6)
    assert all(g is None for g in rest)


def test_the_ensemble_learns_from_the_labels_and_so_do_the_features_under_it(at, with_means, spec_of, labels):
    out = with_means(3)
    method = PCL(spec_of(out))
    method(out, labels, at(0))["peers"]["ce_pe"].backward()
    assert all(x.grad.any() for x in (*out.last_features, *method.parameters()))
    assert out.logits.grad is None


def test_the_predictor_is_the_peer_ensemble(array, with_means, spec_of):
    out = with_means(3)
    method = PCL(spec_of(out))
    predicted = method.predict(out)
    assert list(predicted) == ["pcl_e"]
    expected = ensemble(method, [array(f) for f in out.last_features])
    torch.testing.assert_close(array(predicted["pcl_e"]), expected, rtol=1e-4, atol=1e-5)


def test_peers_that_agree_with_their_teachers_cost_nothing(at, with_means, spec_of, labels):
    out = with_means(3)
    method = PCL(spec_of(out))
    z_pe = method.predict(out)["pcl_e"].detach().expand(3, -1, -1)
    terms = method(dataclasses.replace(out, logits=z_pe, shadow=z_pe), labels, at(300))["peers"]
    assert abs(terms["pe"].item()) < 1e-5 and abs(terms["pm"].item()) < 1e-5


@pytest.mark.parametrize(("pe", "pm"), [(True, False), (False, True), (False, False)])
def test_the_switches_of_the_ablation_remove_terms_and_leave_the_rest(at, with_means, spec_of, labels, pe, pm):
    out = with_means(2)
    torch.manual_seed(0)
    whole = PCL(spec_of(out))(out, labels, at(40))["peers"]
    torch.manual_seed(0)
    method = PCL(spec_of(out), pe=pe, pm=pm)
    terms = method(out, labels, at(40))["peers"]
    assert list(terms) == ["ce", "ce_pe"] + ["pe"] * pe + ["pm"] * pm
    assert terms == {name: whole[name] for name in terms}
    assert (method.shadow is not None) == pm  # no copy is kept that nobody learns from


def test_the_means_follow_by_the_paper_s_rule_and_every_peer_has_its_own_view(with_means, spec_of):
    spec = spec_of(with_means(2))
    assert PCL(spec).shadow == Shadow(decay=0.999, every=1)
    assert PCL(spec, decay=0.9).shadow == Shadow(decay=0.9, every=1)
    assert PCL(spec).own_views and not PCL(spec, own_views=False).own_views


def test_a_mean_is_asked_about_the_view_of_its_peer(at):
    torch.manual_seed(0)
    learner = Distiller(PCL, "2xresnet8", image_shape=(3, 8, 8), num_classes=5, share_until="stage2", ramp=0.0)
    views, target = torch.randn(2, 4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    terms, logits = learner(views, target, at(0))
    # The means start as the peers, so before the first step they say of each view what its own peer says.
    same = learner.method(dataclasses.replace(learner.cohort(views), shadow=logits), target, at(0))
    torch.testing.assert_close(terms["peers"]["pm"], same["peers"]["pm"])


@pytest.mark.parametrize(("peers", "expected"), [(2, 12_900), (3, 19_300)])
def test_the_ensemble_costs_one_linear_layer(peers, expected):
    spec = CohortSpec(("resnet32",) * peers, 100, (((64, 8, 8),),) * peers)
    assert sum(p.numel() for p in PCL(spec).parameters()) == expected


def test_unlike_peers_are_concatenated_as_they_are(at, spec_of, labels):
    z, means = torch.randn(2, 2, 6, 5)
    out = PeerOutputs(z, ((torch.randn(6, 8, 3, 3),), (torch.randn(6, 5, 6, 6),)), shadow=means)
    method = PCL(spec_of(out))
    assert method.classifier.in_features == 13
    assert all(term.isfinite() for term in method(out, labels, at(0))["peers"].values())


def test_a_decay_that_is_no_share_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="PCL's decay must be a share from 0 to 1, not 1.1"):
        PCL(spec_of(random_outputs(2)), decay=1.1)
