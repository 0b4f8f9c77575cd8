import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.methods.ffl import FFL
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [2, 3])


class Says(nn.Module):
    """A fusion module that says the same whatever it is given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, features: object) -> torch.Tensor:
        return self.logits


def test_the_toy_computed_by_hand_comes_out(at, spec_of):
    z = torch.tensor([[[2.0, 0, -1]], [[0.0, 1, -1]]])
    out = PeerOutputs(z, ((torch.zeros(1, 4, 2, 2),),) * 2)
    method = FFL(spec_of(out))
    method.fusion = Says(torch.tensor([[1.0, 1, 0]]))
    terms = method(out, torch.tensor([0]), at(80))["peers"]
    assert terms["ekd"].item() == pytest.approx(0.0759156, abs=2e-6)  # float32 errs by 1e-6
    assert terms["fkd"].item() == pytest.approx(0.4847495 + 0.1192543, abs=2e-6)


@PEERS
@pytest.mark.parametrize("fusion", ["conv", "sum"])
@pytest.mark.parametrize(("epoch", "w"), [(0, math.exp(-5)), (40, math.exp(-1.25)), (80, 1), (299, 1)])
def test_all_terms_are_the_paper_s(naive, array, at, random_outputs, spec_of, labels, peers, fusion, epoch, w):
    out = random_outputs(peers)
    method = FFL(spec_of(out), fusion=fusion)
    terms = method(out, labels, at(epoch))["peers"]
    predicted = method.predict(out)
    z, z_f, y = array(out.logits), array(predicted["fused"]), array(labels)
    assert list(predicted) == ["fused"]
    torch.testing.assert_close(predicted["fused"], method.fusion(out.last_features))
    assert list(terms) == ["ce", "ce_fused", "ekd", "fkd"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    assert terms["ce_fused"].item() == pytest.approx(naive.cross_entropy(z_f, y), rel=1e-5)
    assert terms["ekd"].item() == pytest.approx(w * naive.kd(z_f, z.mean(0), 3), rel=1e-4)
    assert terms["fkd"].item() == pytest.approx(w * sum(naive.kd(one, z_f, 3) for one in z), rel=1e-4)


@PEERS
def test_each_learner_moves_towards_its_teacher_which_stands_still(
    naive, array, at, random_outputs, spec_of, labels, peers
):
    out = random_outputs(peers)
    method = FFL(spec_of(out), temperature=2.0, ramp=0.0)
    method.fusion = Says(random_outputs(5).logits[0].detach())
    terms = method(out, labels, at(0))["peers"]
    learners = [out.logits, method.fusion.logits]
    z, z_f = (array(x) for x in learners)
    q, fused, ensemble = (naive.softmax(x / 2) for x in (z, z_f, z.mean(0)))
    peers_by_ekd, fused_by_ekd = torch.autograd.grad(terms["ekd"], learners, allow_unused=True)
    peers_by_fkd, fused_by_fkd = torch.autograd.grad(terms["fkd"], learners, allow_unused=True)
    assert peers_by_ekd is None and fused_by_fkd is None
    torch.testing.assert_close(array(fused_by_ekd), 2 * (fused - ensemble) / 6, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(array(peers_by_fkd), 2 * (q - fused) / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fusion", ["conv", "sum"])
def test_the_fused_classifier_trains_the_peers_unless_detached(at, random_outputs, spec_of, labels, fusion, detach):
    out = random_outputs(2)
    method = FFL(spec_of(out), fusion=fusion, detach_fusion_inputs=detach)
    terms = method(out, labels, at(300))["peers"]
    owned = list(method.parameters())

    def reached(term: str, inputs: list[torch.Tensor]) -> list[bool]:
        found = torch.autograd.grad(terms[term], inputs, retain_graph=True, allow_unused=True)
        return [g is not None and bool(g.any()) for g in found]

    for term in ("ce_fused", "ekd"):
        assert reached(term, list(out.last_features)) == [not detach] * 2
        assert all(reached(term, owned))
    for term in ("ce", "fkd"):
        assert not any(reached(term, [*owned, *out.last_features]))
        assert reached(term, [out.logits]) == [True]


@pytest.mark.parametrize(
    ("fusion", "ekd", "fkd"), list(itertools.product(["conv", "sum"], [True, False], [True, False]))
)
def test_the_switches_of_the_ablation_remove_terms_and_leave_the_rest(
    at, random_outputs, spec_of, labels, fusion, ekd, fkd
):
    out = random_outputs(2)
    torch.manual_seed(0)
    whole = FFL(spec_of(out), fusion=fusion)(out, labels, at(40))["peers"]
    torch.manual_seed(0)
    terms = FFL(spec_of(out), fusion=fusion, ekd=ekd, fkd=fkd)(out, labels, at(40))["peers"]
    assert list(terms) == ["ce", "ce_fused"] + ["ekd"] * ekd + ["fkd"] * fkd
    assert terms == {name: whole[name] for name in terms}


def test_peers_and_fused_classifier_that_agree_cost_nothing(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    method = FFL(spec_of(out))
    method.fusion = Says(out.logits[0].detach())
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1))
    terms = method(equal, labels, at(300))["peers"]
    assert abs(terms["ekd"].item()) < 1e-5 and abs(terms["fkd"].item()) < 1e-5


def test_the_sum_is_dualnet_s_mean_of_the_maps(array, random_outputs, spec_of):
    out = random_outputs(3)
    fused = FFL(spec_of(out), fusion="sum").maps(out)["fused"]
    torch.testing.assert_close(array(fused), sum(map(array, out.last_features)) / 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("width", "expected"), [(None, 8), (4, 4), (11, 11)])
def test_unlike_peers_are_fused_to_the_widest_or_the_width_that_is_asked(at, spec_of, width, expected):
    maps = ((torch.randn(2, 8, 3, 3),), (torch.randn(2, 5, 6, 6),))
    out = PeerOutputs(torch.randn(2, 2, 5), maps)
    method = FFL(spec_of(out), fused_channels=width)
    assert method.maps(out)["fused"].shape == (2, expected, 3, 3)
    assert all(term.isfinite() for term in method(out, torch.tensor([0, 1]), at(0))["peers"].values())


@pytest.mark.parametrize(("matching", "size"), [("learned", 3), ("pooled", 3), ("enlarged", 6)])
def test_maps_of_unlike_peers_are_matched_as_is_asked(at, spec_of, matching, size):
    maps = ((torch.randn(2, 8, 3, 3),), (torch.randn(2, 5, 6, 6),))
    out = PeerOutputs(torch.randn(2, 2, 5), maps)
    method = FFL(spec_of(out), matching=matching)
    assert method.maps(out)["fused"].shape == (2, 8, size, size)
    assert all(term.isfinite() for term in method(out, torch.tensor([0, 1]), at(0))["peers"].values())


def test_unlike_peers_cannot_be_summed(spec_of):
    maps = ((torch.randn(2, 8, 3, 3),), (torch.randn(2, 5, 3, 3),))
    with pytest.raises(UsageError, match="net 8x3x3, net 5x3x3"):
        FFL(spec_of(PeerOutputs(torch.randn(2, 2, 5), maps)), fusion="sum")


def test_the_fusion_module_alone_has_a_tenth_of_the_weight_decay():
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5), build("resnet14", num_classes=5)])
    method = FFL(describe(cohort, (3, 8, 8), 5))
    players = method.players(cohort)
    peers, fusion = players["peers"]
    assert list(players) == ["peers"]
    assert {id(p) for p in peers["params"]} == {id(p) for p in cohort.parameters()}
    assert {id(p) for p in fusion["params"]} == {id(p) for p in method.parameters()}
    assert fusion["weight_decay"] == 1e-5
    assert "weight_decay" not in peers


@pytest.mark.parametrize(("options", "expected"), [({}, 39_844), ({"fused_channels": 64}, 21_028)])
def test_the_fusion_module_of_a_mixed_pair_is_as_large_as_published(options, expected):
    # ResNet-32 and WRN-16-2 on CIFAR-100.
    spec = CohortSpec(("resnet32", "wrn_16_2"), 100, (((64, 8, 8),), ((128, 8, 8),)))
    assert sum(p.numel() for p in FFL(spec, **options).parameters()) == expected


def test_a_width_of_the_sum_of_maps_is_refused(random_outputs, spec_of):
    with pytest.raises(
        UsageError, match="^FFL's sum of maps .* leave --method.fused_channels out, or fuse by convolution$"
    ):
        FFL(spec_of(random_outputs(2)), fusion="sum", fused_channels=7)


@PEERS
def test_the_mean_of_the_logits_learns_from_the_labels_where_asked(
    naive, array, at, random_outputs, spec_of, labels, peers
):
    out = random_outputs(peers)
    terms = FFL(spec_of(out), ensemble_ce=True)(out, labels, at(40))["peers"]
    assert list(terms) == ["ce", "ce_fused", "ce_ensemble", "ekd", "fkd"]
    z, y = array(out.logits), array(labels)
    assert terms["ce_ensemble"].item() == pytest.approx(naive.cross_entropy(z.mean(0), y), rel=1e-5)
    terms["ce_ensemble"].backward()
    wanted = (naive.softmax(z.mean(0)) - array(torch.eye(5)[labels])) / 6 / peers
    for gradient in array(out.logits.grad):
        torch.testing.assert_close(torch.from_numpy(gradient), torch.from_numpy(wanted), rtol=1e-4, atol=1e-6)


def test_by_default_the_fused_classifier_trains_the_peers(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    FFL(spec_of(out))(out, labels, at(0))["peers"]["ce_fused"].backward()
    assert all(feature.grad.abs().sum() > 0 for feature in out.last_features)
