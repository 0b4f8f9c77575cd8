import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.cohort import Cohort, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.methods.ffsd import (
    FFSD,
    Decoder,
    DecoderStep,
    TransFusion,
    diversity_loss,
    feature_loss,
    shifted_attention,
    shifted_feature,
)
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [3, 4])
TERMS = ["ce", "kd", "diversity", "ce_fused", "kd_fused", "kd_leader", "fusion", "trans_fusion", "self_distillation"]
STAGES = [(3, 12, 12), (2, 12, 12), (4, 6, 6), (8, 3, 3)]


@pytest.fixture
def staged_outputs(random_outputs):
    def make(peers: int) -> PeerOutputs:
        g = torch.Generator().manual_seed(7)
        maps = tuple(tuple(torch.randn(6, *s, generator=g).requires_grad_() for s in STAGES) for _ in range(peers))
        return dataclasses.replace(random_outputs(peers), features=maps)

    return make


def attention(f: np.ndarray) -> np.ndarray:
    return (f**2).mean(1).reshape(len(f), -1)


def unit(x: np.ndarray) -> np.ndarray:
    x = x.reshape(len(x), -1)
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def shifted(f: np.ndarray) -> np.ndarray:
    """The unit attention with all but its lowest third reflected, place by place."""
    a = attention(f)
    u = unit(a)
    y = u.copy()
    for b in range(len(u)):
        lowest = np.sort(u[b])[: max(1, u.shape[1] // 3)]
        for i in range(u.shape[1]):
            if u[b, i] not in lowest:
                y[b, i] = np.sqrt((a[b] ** 2).sum()) - u[b, i]
    return y


def d(x: np.ndarray, y: np.ndarray) -> float:
    return float(((unit(x) - unit(y)) ** 2).mean())


@PEERS
@pytest.mark.parametrize(("epoch", "w"), [(0, np.exp(-5)), (2, np.exp(-1.8)), (5, 1), (299, 1)])
def test_all_terms_are_the_source_s(naive, array, at, staged_outputs, spec_of, labels, peers, epoch, w):
    torch.manual_seed(0)
    out = staged_outputs(peers)
    method = FFSD(spec_of(out))
    told = {
        k: decoder(method.maps(out)["fused"] if k == str(peers - 1) else shifted_feature(out.features[int(k) - 1][-1]),
                   learning=False)
        for k, decoder in method.decoders.items()
    }  # fmt: skip
    unfolded = array(method.trans_fusion(out.last_features[-1]))
    fused, z_f = array(method.maps(out)["fused"]), array(method.predict(out)["fused"])
    found = method(out, labels, at(epoch))
    terms = found["peers"]
    z, y = array(out.logits[:-1]), array(labels)
    leader = array(out.logits[-1])
    maps = [[array(f) for f in stages] for stages in out.features]
    pairs = [(i, j) for i in range(peers - 1) for j in range(peers - 1) if i != j]
    diversity = sum(
        ((unit(attention(maps[k][-1])) - shifted(maps[k - 1][-1])) ** 2).mean() for k in range(1, peers - 1)
    )
    self_distillation = sum(
        (10 if int(k) == peers - 1 else 1e-5)
        * sum(d(attention(maps[int(k)][s]), attention(array(f))) for s, f in zip((2, 1), decoded, strict=True))
        for k, decoded in told.items()
    )
    expected = {
        "ce": sum(naive.cross_entropy(one, y) for one in (*z, leader)),
        "kd": sum(naive.kd(z[i], z[j], 2) for i, j in pairs) / (peers - 2),
        "diversity": w * 1e-5 * diversity,
        "ce_fused": naive.cross_entropy(z_f, y),
        "kd_fused": naive.kd(z_f, z.mean(0), 2),
        "kd_leader": naive.kd(leader, z_f, 2),
        "fusion": w * 10 * d(attention(maps[-1][-1]), attention(fused)),
        "trans_fusion": w
        * 10
        * d(attention(unfolded), attention(np.concatenate([stages[-1] for stages in maps[:-1]], 1))),
        "self_distillation": w * self_distillation,
    }
    assert list(found) == ["peers", "decoders"] and list(terms) == TERMS == list(expected)
    assert sorted(told) == [str(k) for k in range(1, peers)]
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=2e-4), name


def test_decoders_learn_to_rebuild_the_stages_below_the_last(array, at, staged_outputs, spec_of, labels):
    torch.manual_seed(0)
    out = staged_outputs(3)
    method = FFSD(spec_of(out))
    feature = attention_ = 0.0
    for name, decoder in method.decoders.items():
        stages = out.features[int(name)]
        x = stages[-1]
        for step, below in zip(decoder.steps, (stages[2], stages[1]), strict=True):
            x = step.grow(x)
            x = F.relu(
                (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5) ** 0.5
            )
            assert x.shape == below.shape
            feature += d(array(x), array(below))
            attention_ += d(attention(array(x)), attention(array(below)))
    terms = method(out, labels, at(5))["decoders"]
    assert list(terms) == ["feature", "attention"]
    assert terms["feature"].item() == pytest.approx(1000 * feature, rel=1e-3)
    assert terms["attention"].item() == pytest.approx(1000 * attention_, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_whole_maps_moves_the_student_as_that_of_written_out_unit_vectors(dtype):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 16, 8, 8, generator=g).to(dtype)
    x.requires_grad_()
    written_out = (F.normalize(x.double().flatten(1)) - F.normalize(y.double().flatten(1))).square().mean()
    found = feature_loss(x, y)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(written_out.item(), rel=1e-4)
    ours, theirs = (torch.autograd.grad(loss, x)[0].float() for loss in (found, written_out))
    torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-8)
    assert feature_loss(x, 3 * x).item() == pytest.approx(0, abs=1e-6)


def test_a_step_of_a_decoder_is_the_authors_transposed_convolution():
    step = DecoderStep((8, 3, 3), (4, 6, 6))
    x = torch.randn(2, 8, 3, 3)
    # Every input place adds the kernel around twice its row and column.
    weight, y = step.grow.weight.detach(), torch.zeros(2, 4, 8, 8)
    for i in range(3):
        for j in range(3):
            y[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += torch.einsum("bd,deij->beij", x[:, :, i, j], weight)
    torch.testing.assert_close(step.grow(x).detach(), y[:, :, 1:7, 1:7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("below", [(4, 3, 3), (4, 5, 7), (4, 9, 9), (4, 6, 3)])
def test_a_step_reaches_any_size(below):
    assert DecoderStep((8, 3, 3), below)(torch.randn(2, 8, 3, 3), True).shape == (2, *below)


def test_a_decoder_that_tells_uses_what_it_has_seen_and_learning_updates_it():
    torch.manual_seed(0)
    decoder = Decoder([(2, 12, 12), (4, 6, 6), (8, 3, 3)])
    one, two = torch.randn(2, 4, 8, 3, 3)
    before = [t.clone() for t in decoder.buffers()]
    told = decoder(one, learning=False)
    torch.testing.assert_close(decoder(torch.cat([one, two]), learning=False)[0][:4], told[0])  # each by itself
    assert all(torch.equal(a, b) for a, b in zip(before, decoder.buffers(), strict=True))
    decoder(one, learning=True)
    assert not all(torch.equal(a, b) for a, b in zip(before, decoder.buffers(), strict=True))


def test_the_opposite_of_the_fusion_has_as_many_parameters_as_the_authors():
    # 3x3 depth-wise 64, 1x1 to 128, two norms.
    assert sum(p.numel() for p in TransFusion(64, 128).parameters()) == 64 * 9 + 64 * 128 + 2 * (64 + 128)


def test_the_third_that_is_heeded_least_is_kept_and_the_rest_reflected():
    a = torch.tensor([4.0, 1, 3, 2, 6, 5]).view(1, 1, 2, 3)
    before = a.sqrt()
    length = a.norm()
    target = torch.where(a > 2, length - a / length, a / length).flatten()
    own = torch.ones(1, 1, 2, 3)
    expected = (1 / 6**0.5 - target).square().mean()
    assert diversity_loss(own, before).item() == pytest.approx(expected.item(), rel=1e-5)
    moved = before.flatten() + (target - (a / length).flatten()) * length
    torch.testing.assert_close(shifted_feature(before).flatten(), moved)


def test_a_feature_is_shifted_equally_in_all_channels():
    feature = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    unit, shifted, length = shifted_attention(feature)
    moved = shifted_feature(feature) - feature
    assert moved.std(1).max() < 1e-6
    torch.testing.assert_close(moved.sum(1).flatten(), ((shifted - unit) * length).flatten(), rtol=1e-4, atol=1e-6)


def test_who_learns_from_what(at, staged_outputs, spec_of, labels):
    out = staged_outputs(4)
    method = FFSD(spec_of(out))
    found = method(out, labels, at(5))
    terms = found["peers"] | found["decoders"]
    lasts = list(out.last_features)
    below = [f for stages in out.features for f in stages[1:3]]
    parts = [method.fusion.depthwise.weight, method.trans_fusion.pointwise.weight]
    decoders = [decoder.steps[0].norm.weight for decoder in method.decoders.values()]

    def reached(term: str) -> dict[str, list[bool]]:
        inputs = {"logits": [out.logits], "last": lasts, "below": below, "parts": parts, "decoders": decoders}
        flat = [x for group in inputs.values() for x in group]
        gradients = iter(torch.autograd.grad(terms[term], flat, retain_graph=True, allow_unused=True))
        found = {
            name: [(g := next(gradients)) is not None and bool(g.any()) for _ in xs] for name, xs in inputs.items()
        }
        return {name: hits for name, hits in found.items() if any(hits)}

    assert reached("ce") == reached("kd") == reached("kd_leader") == {"logits": [True]}
    assert reached("diversity") == {"last": [False, True, True, False]}
    assert reached("ce_fused") == reached("kd_fused") == {"parts": [True, False]}
    assert reached("fusion") == {"last": [False] * 3 + [True]}
    assert reached("trans_fusion") == {"last": [False] * 3 + [True], "parts": [False, True]}
    assert reached("self_distillation") == {"below": [False] * 2 + [True] * 6}
    assert reached("feature") == reached("attention") == {"decoders": [True] * 3}


def test_each_learner_of_predictions_moves_towards_its_teacher(naive, array, at, staged_outputs, spec_of, labels):
    out = staged_outputs(4)
    method = FFSD(spec_of(out), temperature=3.0)
    terms = method(out, labels, at(0))["peers"]
    q, fused = naive.softmax(array(out.logits) / 3), naive.softmax(array(method.predict(out)["fused"]) / 3)
    expected = np.zeros_like(q)
    expected[:3] = 3 * (q[:3] - (q[:3].sum(0) - q[:3]) / 2) / 6
    (g,) = torch.autograd.grad(terms["kd"], [out.logits], retain_graph=True)
    torch.testing.assert_close(array(g), expected, rtol=1e-4, atol=1e-6)
    (g,) = torch.autograd.grad(terms["kd_leader"], [out.logits])
    expected[:] = 0
    expected[3] = 3 * (q[3] - fused) / 6
    torch.testing.assert_close(array(g), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("learners", "decoders"), [("all", ["1", "2"]), ("leader", ["2"]), ("none", [])])
def test_players_own_what_the_authors_optimizers_do(learners, decoders):
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(3)])
    method = FFSD(describe(cohort, (3, 16, 16), 5), self_distillation=learners)
    players = method.players(cohort)
    peers, fusion, trans = players["peers"]
    assert list(method.decoders) == decoders
    assert list(players) == ["peers"] + ["decoders"] * bool(decoders)
    assert {id(p) for p in peers["params"]} == {id(p) for p in cohort.parameters()}
    assert {id(p) for p in fusion["params"]} == {id(p) for p in method.fusion.parameters()}
    assert {id(p) for p in trans["params"]} == {id(p) for p in method.trans_fusion.parameters()}
    assert fusion["weight_decay"] == 1e-5 and "weight_decay" not in peers and "weight_decay" not in trans
    if decoders:
        (group,) = players["decoders"]
        assert {id(p) for p in group["params"]} == {id(p) for p in method.decoders.parameters()}
        assert group["lr"] == 1e-3 and method.optimizers == {"decoders": "adam"}
        # As the authors': from stage 3 (64 channels) to stage 2 (32), then to stage 1 (16).
        grown = [step.grow for step in method.decoders["2"].steps]
        assert all(isinstance(layer, nn.ConvTranspose2d) for layer in grown)
        assert [tuple(layer.weight.shape[:2]) for layer in grown] == [(64, 32), (32, 16)]


@PEERS
def test_predictors_are_the_leader_and_the_fused_classifier_of_the_students(array, staged_outputs, spec_of, peers):
    out = staged_outputs(peers)
    method = FFSD(spec_of(out)).eval()
    predicted = method.predict(out)
    assert list(predicted) == ["leader", "fused"]
    assert predicted["leader"] is out.logits[-1] or torch.equal(predicted["leader"], out.logits[-1])
    torch.testing.assert_close(predicted["fused"], method.fusion(out.last_features[:-1]))


def unlike(*names: str) -> Cohort:
    torch.manual_seed(0)
    return Cohort([build(name, num_classes=5) for name in names])


def test_the_leader_may_be_of_another_kind_than_the_students(at):
    cohort = unlike("resnet8", "resnet8", "wrn_10_2")
    method = FFSD(describe(cohort, (3, 16, 16), 5))
    found = method(cohort(torch.randn(4, 3, 16, 16)), torch.arange(4), at(5))
    assert all(term.isfinite() for terms in found.values() for term in terms.values())


def test_students_of_several_kinds_are_refused_with_the_way_out(at):
    cohort = unlike("resnet8", "wrn_10_2", "resnet8")
    spec = describe(cohort, (3, 16, 16), 5)
    message = "peer0 64x4x4 and peer1 128x4x4; take students of one kind, .*--method.self_distillation leader$"
    with pytest.raises(UsageError, match=message):
        FFSD(spec)
    found = FFSD(spec, self_distillation="leader")(cohort(torch.randn(4, 3, 16, 16)), torch.arange(4), at(5))
    assert all(term.isfinite() for terms in found.values() for term in terms.values())


def test_students_with_maps_of_several_sizes_can_be_fused(at, staged_outputs, spec_of, labels):
    out = staged_outputs(3)
    small = (*out.features[1][:-1], torch.randn(6, 8, 1, 2))
    out = dataclasses.replace(out, features=(out.features[0], small, out.features[2]))
    found = FFSD(spec_of(out))(out, labels, at(5))
    assert all(term.isfinite() for terms in found.values() for term in terms.values())


@pytest.mark.parametrize("levels", [0, 4])
def test_more_levels_than_there_are_stages_are_refused(staged_outputs, spec_of, levels):
    spec = spec_of(staged_outputs(3))
    with pytest.raises(UsageError, match=f"rebuild {levels} stages below the last of peer1 .*which has 3; set"):
        FFSD(spec, levels=levels)
    assert FFSD(spec, levels=levels, self_distillation="none")


@pytest.mark.parametrize("levels", [1, 3])
def test_as_many_levels_are_rebuilt_as_are_asked(at, staged_outputs, spec_of, labels, levels):
    out = staged_outputs(3)
    found = FFSD(spec_of(out), levels=levels)(out, labels, at(5))
    found["decoders"]["feature"].backward()
    learned = [f.grad is not None for f in out.features[1][:-1]]
    assert not any(learned), "what is rebuilt is a constant"
    assert len(FFSD(spec_of(out), levels=levels).decoders["1"].steps) == levels


def test_a_network_of_two_stages_has_one_to_rebuild(at, staged_outputs, spec_of, labels):
    out = staged_outputs(3)
    out = dataclasses.replace(out, features=tuple(stages[-2:] for stages in out.features))
    assert set(FFSD(spec_of(out), levels=1)(out, labels, at(5))) == {"peers", "decoders"}
    assert set(FFSD(spec_of(out), self_distillation="none")(out, labels, at(5))) == {"peers"}


def test_a_step_of_the_decoder_uses_its_whole_norm():
    torch.manual_seed(0)
    step, x = DecoderStep((2, 2, 2), (3, 4, 4)), torch.randn(5, 2, 2, 2)
    torch.nn.init.normal_(step.norm.weight)
    torch.nn.init.normal_(step.norm.bias)
    expected = torch.relu(copy.deepcopy(step.norm).eval()(step.grow(x)))
    torch.testing.assert_close(step(x, learning=False), expected)


def test_small_maps_are_compared_by_their_direction_too():
    a, b = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert feature_loss(1e-3 * a, 1e-3 * b).item() == pytest.approx(feature_loss(a, b).item(), rel=1e-4)


def test_of_three_places_the_lowest_keeps_its_attention():
    feature = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    length = 98**0.5
    unit, shifted, found = shifted_attention(feature)
    assert found.item() == pytest.approx(length)
    assert shifted[0].tolist() == pytest.approx([1 / length, length - 4 / length, length - 9 / length])


def test_a_network_of_one_stage_has_nothing_to_rebuild(random_outputs, spec_of):
    spec = spec_of(random_outputs(3))
    with pytest.raises(UsageError, match="peer1 .* has none; set --method.self_distillation none"):
        FFSD(spec)
    assert FFSD(spec, self_distillation="none")


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"ramp": 1.5}])
def test_impossible_settings_are_refused(staged_outputs, spec_of, options):
    with pytest.raises(UsageError, match=f"FFSD's {next(iter(options))} must be"):
        FFSD(spec_of(staged_outputs(3)), **options)


def test_a_map_of_half_the_sides_is_enlarged_by_a_transposed_convolution():
    assert isinstance(DecoderStep((2, 2, 3), (5, 4, 6)).grow, nn.ConvTranspose2d)
    assert isinstance(DecoderStep((2, 2, 3), (5, 4, 5)).grow, nn.Sequential)


def test_the_leader_unfolds_to_the_channels_of_all_students(staged_outputs, spec_of):
    method = FFSD(spec_of(staged_outputs(4)))
    assert method.trans_fusion.pointwise.out_channels == 3 * STAGES[-1][0]
    assert (method.diversity, method.fusion_weight, method.decoding) == (1e-5, 10, 1000)
