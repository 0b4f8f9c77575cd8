import dataclasses
import itertools

import numpy as np
import pytest
import torch

from collegium.cohort import Cohort, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.losses import virtual_teacher
from collegium.methods.ffcl import FFCL
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [2, 3])
TERMS = ["ce", "regularisation", "response", "feature", "ce_fused", "fused"]


def staged(out: PeerOutputs, shapes: list[list[tuple[int, ...]]]) -> PeerOutputs:
    """The same with random maps of such shapes, leaves that take gradients."""
    g = torch.Generator().manual_seed(7)
    maps = tuple(tuple(torch.randn(6, *s, generator=g).requires_grad_() for s in stages) for stages in shapes)
    return dataclasses.replace(out, features=maps)


@pytest.fixture
def staged_outputs(random_outputs):
    def make(peers: int) -> PeerOutputs:
        return staged(random_outputs(peers), [[(2, 7, 7), (3, 4, 6), (4, 2, 3), (5, 2, 2)]] * peers)

    return make


def attention(f: np.ndarray) -> np.ndarray:
    a = (f**2).mean(1).reshape(len(f), -1)
    return a / np.sqrt((a**2).sum(1, keepdims=True))


@PEERS
@pytest.mark.parametrize("stages", [1, 3, 4])
@pytest.mark.parametrize(("epoch", "w"), [(0, np.exp(-5)), (40, np.exp(-1.25)), (80, 1), (299, 1)])
def test_all_terms_are_the_stated_ones(naive, array, at, staged_outputs, spec_of, labels, peers, stages, epoch, w):
    out = staged_outputs(peers)
    method = FFCL(spec_of(out), stages=stages)
    terms = method(out, labels, at(epoch))["peers"]
    predicted = method.predict(out)
    z, z_f, y = array(out.logits), array(predicted["fused"]), array(labels)
    pairs = [(i, j) for i in range(peers) for j in range(peers) if i != j]
    virtual = np.full((6, 5), 0.01 / 4)
    virtual[range(6), y] = 0.99
    features = [[attention(array(f)) for f in maps[-stages:]] for maps in out.features]
    at_ = sum(((a - b) ** 2).mean() for i, j in pairs for a, b in zip(features[i], features[j], strict=True))
    expected = {
        "ce": 0.9 * sum(naive.cross_entropy(one, y) for one in z),
        "regularisation": 0.1 * sum(naive.kd(one, virtual / 20, 1) for one in z),
        "response": w * sum(naive.kd(z[i], z[j], 3) for i, j in pairs) / (peers - 1),
        "feature": w * 100 * at_ / (peers - 1),
        "ce_fused": naive.cross_entropy(z_f, y),
        "fused": w * sum(naive.kd(one, z_f, 3) for one in z),
    }
    assert list(terms) == TERMS == list(expected) and list(predicted) == ["fused"]
    torch.testing.assert_close(predicted["fused"], method.fusion(out.last_features))
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize(
    ("response", "feature", "fused", "regularisation"), list(itertools.product([True, False], repeat=4))
)
def test_switches_remove_terms_and_leave_the_rest(
    at, staged_outputs, spec_of, labels, response, feature, fused, regularisation
):
    out = staged_outputs(2)
    options = {"response": response, "feature": feature, "fused": fused, "regularisation": regularisation}
    torch.manual_seed(0)
    whole = FFCL(spec_of(out))(out, labels, at(40))["peers"]
    torch.manual_seed(0)
    method = FFCL(spec_of(out), **options)
    terms = method(out, labels, at(40))["peers"]
    kept = {**options, "ce": True, "ce_fused": fused}
    assert list(terms) == [name for name in TERMS if kept[name]]
    assert {name: terms[name] for name in terms if name != "ce"} == {n: whole[n] for n in terms if n != "ce"}
    assert terms["ce"].item() == pytest.approx(whole["ce"].item() / (1 if regularisation else 0.9))
    assert bool(method.predict(out)) == bool(method.maps(out)) == bool(list(method.parameters())) == fused


def test_the_virtual_teacher_has_the_published_probabilities(array, naive):
    p = naive.softmax(array(virtual_teacher(torch.tensor([3]), 100)))[0]
    assert p[3] == pytest.approx(0.01050, abs=5e-6)
    assert p[0] == pytest.approx(0.00999, abs=6e-6)


def test_the_virtual_teacher_of_a_mixture_of_labels_lies_between(array):
    y = torch.eye(5)[:2].mean(0, keepdim=True)
    torch.testing.assert_close(virtual_teacher(y, 5), virtual_teacher(torch.arange(2), 5).mean(0, keepdim=True))


@PEERS
def test_in_response_and_fused_terms_the_teacher_stands_still(naive, array, at, staged_outputs, spec_of, labels, peers):
    out = staged_outputs(peers)
    method = FFCL(spec_of(out), temperature=2.0)
    terms = method(out, labels, at(300))["peers"]
    z = array(out.logits)
    q, fused = naive.softmax(z / 2), naive.softmax(array(method.predict(out)["fused"]) / 2)
    inputs = [out.logits, *out.last_features, *method.parameters()]
    for term, taught in (("response", (q.sum(0) - q) / (peers - 1)), ("fused", fused)):
        logits, *rest = torch.autograd.grad(terms[term], inputs, retain_graph=True, allow_unused=True)
        assert all(g is None for g in rest)
        torch.testing.assert_close(array(logits), 2 * (q - taught) / 6, rtol=1e-4, atol=1e-6)
    logits, *rest = torch.autograd.grad(terms["ce_fused"], inputs, retain_graph=True, allow_unused=True)
    assert logits is None and all(g is not None for g in rest) and all(g.any() for g in rest[:peers])
    (logits,) = torch.autograd.grad(terms["regularisation"], [out.logits])
    virtual = naive.softmax(array(virtual_teacher(labels, 5)))
    torch.testing.assert_close(array(logits), 0.1 * (naive.softmax(z) - virtual) / 6, rtol=1e-4, atol=1e-7)


def test_in_the_feature_term_each_peer_moves_as_if_the_other_stood_still(at, staged_outputs, spec_of, labels):
    out = staged_outputs(2)
    term = FFCL(spec_of(out))(out, labels, at(80))["peers"]["feature"]
    flat = [f for maps in out.features for f in maps]
    found = torch.autograd.grad(term, flat, allow_unused=True)
    assert found[0] is None and found[4] is None  # the lowest of four stages is not compared
    eps, own, told = 1e-5, out.features[0][2].detach().double(), out.features[1][2].detach().double()

    def loss(f: torch.Tensor) -> float:
        a, b = (torch.from_numpy(attention(x.numpy())) for x in (f, told))
        return 100 * (a - b).square().mean().item()

    for place in ((0, 0, 0, 0), (3, 1, 1, 2), (5, 3, 0, 1)):
        step = torch.zeros_like(own)
        step[place] = eps
        numeric = (loss(own + step) - loss(own - step)) / (2 * eps)
        assert found[2][place].item() == pytest.approx(numeric, rel=1e-3, abs=1e-5)


def test_peers_that_agree_cost_nothing(at, staged_outputs, spec_of, labels):
    out = staged_outputs(2)
    equal = PeerOutputs(out.logits[:1].expand(2, -1, -1), (out.features[0],) * 2)
    terms = FFCL(spec_of(out))(equal, labels, at(300))["peers"]
    assert terms["feature"].item() == 0 and abs(terms["response"].item()) < 1e-6


def test_stages_are_matched_from_the_last_and_larger_maps_averaged_down(array, at, random_outputs, spec_of, labels):
    out = staged(random_outputs(2), [[(9, 9, 9), (2, 8, 4), (4, 4, 4)], [(3, 4, 4), (7, 4, 2)]])
    term = FFCL(spec_of(out), stages=2)(out, labels, at(80))["peers"]["feature"]
    (_, high, low), (low2, lowest) = [[array(f) for f in maps] for maps in out.features]
    pooled = high.reshape(6, 2, 4, 2, 4).mean(3), low.reshape(6, 4, 4, 2, 2).mean(4)
    expected = sum(((attention(a) - attention(b)) ** 2).mean() for a, b in zip(pooled, (low2, lowest), strict=True))
    assert term.item() == pytest.approx(100 * 2 * expected, rel=1e-4)


def test_more_stages_than_a_peer_has_are_refused_with_both_ways_out(random_outputs, spec_of):
    spec = spec_of(staged(random_outputs(2), [[(2, 4, 4)] * 4, [(2, 4, 4)] * 2]))
    spec = dataclasses.replace(spec, names=("deep", "flat"))
    with pytest.raises(UsageError, match=r"3 stages: peer1 \(flat\) has 2.*stages 2.*--method.feature false"):
        FFCL(spec)
    with pytest.raises(UsageError, match="cannot compare 0 stages"):
        FFCL(spec, stages=0)
    assert FFCL(spec, stages=2) and FFCL(spec, feature=False)


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"temperature": 0.0}, {"ramp": -1.0}])
def test_impossible_settings_are_refused(staged_outputs, spec_of, options):
    with pytest.raises(UsageError, match=f"FFCL's {next(iter(options))} must be"):
        FFCL(spec_of(staged_outputs(2)), **options)


def test_the_fusion_module_alone_has_its_own_weight_decay():
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5), build("wrn_10_1", num_classes=5)])
    method = FFCL(describe(cohort, (3, 16, 16), 5))
    peers, fusion = method.players(cohort)["peers"]
    assert {id(p) for p in peers["params"]} == {id(p) for p in cohort.parameters()}
    assert {id(p) for p in fusion["params"]} == {id(p) for p in method.fusion.parameters()}
    assert fusion["weight_decay"] == 1e-5 and "weight_decay" not in peers


def test_it_is_marked_as_reconstructed():
    assert "abstract alone" in FFCL.reconstructed
