import itertools

import numpy as np
import pytest
import torch
from torch import nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.methods.ffl import FFL
from collegium.methods.mfef import MFEF, CascadedConvolution, ChannelAttention, PyramidConvolution, SpatialAttention
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [2, 3])
MULTI_SCALE = pytest.mark.parametrize("multi_scale", ["pyconv", "res2net", "none"])


def some_map(channels: int) -> torch.Tensor:
    return torch.randn(3, channels, 4, 5, generator=torch.Generator().manual_seed(channels))


def convolved(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """A convolution that keeps the size, by loops over outputs and places."""
    weight = layer.weight.detach().double().numpy()
    outputs, depth, kernel, _ = weight.shape
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((len(x), outputs, *x.shape[2:]))
    for o in range(outputs):
        first = o // (outputs // layer.groups) * depth
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                seen = padded[:, first : first + depth, i : i + kernel, j : j + kernel]
                y[:, o, i, j] = (seen * weight[o]).sum((1, 2, 3))
    return y


def norm_relu(x: np.ndarray) -> np.ndarray:
    """A fresh norm over the batch, and ReLU."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return np.maximum((x - mean) / np.sqrt(var + 1e-5), 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("channels", "scales", "groups"), [(32, 4, [1, 4, 8, 8]), (12, 4, [1, 1, 1, 1]), (24, 3, [1, 4, 8]), (5, 1, [1])]
)
def test_the_pyramid_shows_each_group_of_channels_to_a_kernel_of_another_size(array, channels, scales, groups):
    block, x = PyramidConvolution(channels, scales), some_map(channels)
    y = [convolved(part, c) for part, c in zip(np.split(array(x), scales, 1), block.convolutions, strict=True)]
    assert [c.kernel_size for c in block.convolutions] == [(k, k) for k in (3, 5, 7, 9)][:scales]
    assert [c.groups for c in block.convolutions] == groups
    torch.testing.assert_close(array(block(x)), norm_relu(np.concatenate(y, 1)), rtol=1e-3, atol=1e-4)


def test_a_wide_pyramid_has_pyconv_s_numbers_of_groups():
    assert [c.groups for c in PyramidConvolution(64, 4).convolutions] == [1, 4, 8, 16]


@pytest.mark.parametrize(("channels", "scales"), [(8, 4), (6, 2), (3, 1)])
def test_in_the_cascade_each_group_of_channels_sees_what_the_one_before_gave(array, channels, scales):
    block, x = CascadedConvolution(channels, scales), some_map(channels)
    first, *rest = np.split(array(x), scales, 1)
    y = [first]
    for part, step in zip(rest, block.steps, strict=True):
        y.append(norm_relu(convolved(part + y[-1], step[0])))
    expected = norm_relu(convolved(np.concatenate(y, 1), block.mix[0]))
    torch.testing.assert_close(array(block(x)), expected, rtol=1e-3, atol=1e-4)


def test_channels_are_weighed_by_what_their_mean_and_maximum_say(array):
    attention, x = ChannelAttention(32, 16), some_map(32)
    first, _, second = attention.mlp
    weights = [array(t) for t in (first.weight, first.bias, second.weight, second.bias)]

    def mlp(v: np.ndarray) -> np.ndarray:
        return np.maximum(v @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]

    y = array(x)
    scale = sigmoid(mlp(y.mean((2, 3))) + mlp(y.max((2, 3))))
    assert first.out_features == 2
    torch.testing.assert_close(array(attention(x)), y * scale[:, :, None, None], rtol=1e-4, atol=1e-6)


def test_places_are_weighed_by_the_mean_and_the_maximum_over_channels(array):
    attention, x = SpatialAttention(), some_map(4)
    y = array(x)
    scale = sigmoid(convolved(np.stack([y.mean(1), y.max(1)], 1), attention.convolution))
    torch.testing.assert_close(array(attention(x)), y * scale, rtol=1e-4, atol=1e-6)


@MULTI_SCALE
@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
def test_a_peer_s_map_is_extracted_then_weighed_by_channel_then_by_place(
    random_outputs, spec_of, multi_scale, channel, spatial
):
    out = random_outputs(2)
    method = MFEF(spec_of(out), multi_scale=multi_scale, channel_attention=channel, spatial_attention=spatial)
    kinds = {"pyconv": [PyramidConvolution], "res2net": [CascadedConvolution], "none": []}[multi_scale]
    kinds = kinds + [ChannelAttention] * channel + [SpatialAttention] * spatial
    assert [[type(part) for part in enricher] for enricher in method.enrichers] == [kinds] * 2
    first, second = method.enrichers
    assert {id(p) for p in first.parameters()}.isdisjoint(id(p) for p in second.parameters())
    enriched = []
    for enricher, f in zip(method.enrichers, out.last_features, strict=True):
        for part in enricher:
            f = part(f)
        enriched.append(f)
    torch.testing.assert_close(method.maps(out)["fused"], method.fusion.fuse(enriched))
    torch.testing.assert_close(method.predict(out), {"fused": method.fusion(enriched)})


@PEERS
@pytest.mark.parametrize(("epoch", "w"), [(0, np.exp(-5)), (40, np.exp(-1.25)), (80, 1), (299, 1)])
def test_all_terms_are_the_stated_ones(naive, array, at, random_outputs, spec_of, labels, peers, epoch, w):
    out = random_outputs(peers)
    method = MFEF(spec_of(out), peer_kd=True)
    terms = method(out, labels, at(epoch))["peers"]
    z, z_f, y = array(out.logits), array(method.predict(out)["fused"]), array(labels)
    mutual = sum(naive.kd(z[i], z[j], 3) for i in range(peers) for j in range(peers) if i != j) / (peers - 1)
    assert list(terms) == ["ce", "ce_fused", "ekd", "fkd", "peer_kd"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    assert terms["ce_fused"].item() == pytest.approx(naive.cross_entropy(z_f, y), rel=1e-5)
    assert terms["ekd"].item() == pytest.approx(w * naive.kd(z_f, z.mean(0), 3), rel=1e-4)
    assert terms["fkd"].item() == pytest.approx(w * sum(naive.kd(one, z_f, 3) for one in z), rel=1e-4)
    assert terms["peer_kd"].item() == pytest.approx(w * mutual, rel=1e-4)


@pytest.mark.parametrize(("ekd", "fkd", "peer_kd"), list(itertools.product([True, False], repeat=3)))
def test_switches_remove_terms_and_leave_the_rest(at, random_outputs, spec_of, labels, ekd, fkd, peer_kd):
    out = random_outputs(2)
    torch.manual_seed(0)
    whole = MFEF(spec_of(out), peer_kd=True)(out, labels, at(40))["peers"]
    torch.manual_seed(0)
    terms = MFEF(spec_of(out), ekd=ekd, fkd=fkd, peer_kd=peer_kd)(out, labels, at(40))["peers"]
    assert list(terms) == ["ce", "ce_fused"] + ["ekd"] * ekd + ["fkd"] * fkd + ["peer_kd"] * peer_kd
    assert terms == {name: whole[name] for name in terms}


def test_without_extraction_and_attention_it_is_ffl(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    torch.manual_seed(0)
    ffl = FFL(spec_of(out))
    torch.manual_seed(0)
    plain = MFEF(spec_of(out), multi_scale="none", channel_attention=False, spatial_attention=False)
    assert plain(out, labels, at(40)) == ffl(out, labels, at(40))
    torch.testing.assert_close(plain.predict(out), ffl.predict(out))


@MULTI_SCALE
def test_peers_learn_from_the_fused_loss_and_teachers_stand_still(
    naive, array, at, random_outputs, spec_of, labels, multi_scale
):
    out = random_outputs(3)
    method = MFEF(spec_of(out), multi_scale=multi_scale, peer_kd=True, temperature=2.0)
    terms = method(out, labels, at(300))["peers"]
    inputs = [out.logits, *out.last_features, *method.parameters()]

    def gradients(term: str) -> list[torch.Tensor | None]:
        return torch.autograd.grad(terms[term], inputs, retain_graph=True, allow_unused=True)

    for term in ("ce_fused", "ekd"):
        logits, *rest = gradients(term)
        assert logits is None and all(g is not None for g in rest)
        assert all(g.any() for g in rest[:3])
    q, fused = naive.softmax(array(out.logits) / 2), naive.softmax(array(method.predict(out)["fused"]) / 2)
    for term, taught in (("fkd", fused), ("peer_kd", (q.sum(0) - q) / 2)):
        logits, *rest = gradients(term)
        assert all(g is None for g in rest)
        torch.testing.assert_close(array(logits), 2 * (q - taught) / 6, rtol=1e-4, atol=1e-6)


@MULTI_SCALE
def test_the_gradient_of_a_map_agrees_with_finite_differences(random_outputs, spec_of, multi_scale):
    torch.manual_seed(0)
    out = random_outputs(2, batch=2, classes=3)
    method = MFEF(spec_of(out), multi_scale=multi_scale).double()
    maps = [f.detach().double().requires_grad_() for f in out.last_features]
    assert torch.autograd.gradcheck(lambda *f: method.fusion.fuse(method._enriched(f)).square().mean(), maps)


@MULTI_SCALE
@pytest.mark.parametrize(("channels", "groups"), [((8, 6), (4, 3)), ((5, 7), (1, 1)), ((1, 2), (1, 2))])
def test_unlike_peers_are_cut_into_as_many_groups_as_their_channels_allow(at, spec_of, multi_scale, channels, groups):
    maps = ((torch.randn(2, channels[0], 6, 6),), (torch.randn(2, channels[1], 3, 3),))
    out = PeerOutputs(torch.randn(2, 2, 5), maps)
    method = MFEF(spec_of(out), multi_scale=multi_scale)
    assert method.maps(out)["fused"].shape == (2, max(channels), 3, 3)
    assert all(term.isfinite() for term in method(out, torch.tensor([0, 1]), at(0))["peers"].values())
    if multi_scale == "pyconv":
        assert tuple(len(enricher[0].convolutions) for enricher in method.enrichers) == groups


def test_all_that_the_peers_do_without_has_a_tenth_of_the_weight_decay():
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5), build("resnet14", num_classes=5)])
    method = MFEF(describe(cohort, (3, 8, 8), 5))
    peers, fusion = method.players(cohort)["peers"]
    assert {id(p) for p in peers["params"]} == {id(p) for p in cohort.parameters()}
    assert {id(p) for p in fusion["params"]} == {id(p) for p in method.parameters()}
    assert fusion["weight_decay"] == 1e-5 and "weight_decay" not in peers


def test_it_is_marked_as_reconstructed():
    assert "abstract alone" in MFEF.reconstructed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": 0}, "scales and reduction must be 1 or more, not 0 and 16"),
        ({"reduction": 0}, "scales and reduction must be 1 or more, not 4 and 0"),
        ({"temperature": 0.0}, "temperature must be more than 0"),
        ({"ramp": 2.0}, "ramp must be a share from 0 to 1"),
        ({"fused_channels": 0}, "1 or more channels: fused_channels is 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        MFEF(CohortSpec(("net", "net"), 5, (((4, 3, 3),), ((4, 3, 3),))), **options)


def test_the_defaults_are_those_of_the_page(random_outputs, spec_of):
    (enricher, _) = MFEF(spec_of(random_outputs(2, channels=8))).enrichers
    assert [type(layer) for layer in enricher] == [PyramidConvolution, ChannelAttention, SpatialAttention]
    assert MFEF(spec_of(random_outputs(2)), scales=1, reduction=1)


@pytest.mark.parametrize(("channels", "hidden"), [(8, 1), (16, 1), (32, 2)])
def test_the_channel_attention_is_narrow_and_at_least_one_wide(channels, hidden):
    assert ChannelAttention(channels, 16).mlp[0].out_features == hidden
