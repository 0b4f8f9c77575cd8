import math

import numpy as np
import pytest
import torch
from torch import nn

from collegium.errors import UsageError
from collegium.heads import FusionModule, MatchSize, SumFusion, regressor


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def maps(*shapes: tuple[int, ...], batch: int = 2) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(batch, *shape, generator=g) for shape in shapes]


def with_random_statistics(module: nn.Module) -> nn.Module:
    """In evaluation mode, where norms use statistics that are not the trivial ones."""
    g = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=g) / 3)
            for tensor in (norm.running_var, norm.weight.data):
                tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.5)
    return module.eval()


def norm_relu(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    mean, var, scale, shift = (
        t.detach().double().numpy()[:, None, None]
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + shift, 0)


@pytest.mark.parametrize("shapes", [((3, 4, 5), (3, 4, 5)), ((2, 4, 4), (3, 4, 4), (4, 4, 4))])
def test_fusion_is_concatenation_depthwise_norm_pointwise_norm_pool_linear(shapes):
    module = with_random_statistics(FusionModule(shapes, num_classes=3))
    features = maps(*shapes)
    x = np.concatenate([f.double().numpy() for f in features], axis=1)
    (batch, total, height, width) = x.shape
    deep, point = (layer.weight.detach().double().numpy() for layer in (module.depthwise, module.pointwise))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros_like(x)
    for d in range(total):
        for i in range(height):
            for j in range(width):
                y[:, d, i, j] = (padded[:, d, i : i + 3, j : j + 3] * deep[d, 0]).sum((1, 2))
    y = norm_relu(y, module.norm1)
    fused = norm_relu(np.einsum("od,bdij->boij", point[:, :, 0, 0], y), module.norm2)
    linear = module.classifier.linear
    logits = fused.mean((2, 3)) @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    torch.testing.assert_close(module.fuse(features).detach().double().numpy(), fused, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(features).detach().double().numpy(), logits, rtol=1e-4, atol=1e-5)
    assert fused.shape[1] == max(shape[0] for shape in shapes)


@pytest.mark.parametrize(
    ("widths", "classes", "out_channels", "expected"),
    [
        ((64, 64), 100, None, 16_228),
        ((64, 64), 10, None, 10_378),
        ((64, 64, 64), 100, None, 21_028),
        ((64, 64, 64), 10, None, 15_178),
        ((128, 128), 100, None, 48_740),
        ((128, 128), 10, None, 37_130),
        ((64, 128), 100, None, 39_844),
        ((64, 128), 100, 128, 39_844),
        ((64, 128), 100, 64, 21_028),
    ],
)
def test_fusion_has_as_many_parameters_as_published(widths, classes, out_channels, expected):
    assert parameters(FusionModule([(w, 8, 8) for w in widths], classes, out_channels)) == expected


def test_fusion_convolutions_start_as_the_authors_do():
    torch.manual_seed(0)
    module = FusionModule([(512, 8, 8)] * 2, 10)
    # N(0, 2 / (k k out_channels)), where the depth-wise layer counts all of its 1024 channels.
    for layer, outputs in ((module.depthwise, 9 * 1024), (module.pointwise, 512)):
        weight = layer.weight.detach()
        std = math.sqrt(2 / outputs)
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())


def test_maps_of_one_size_pass_unchanged_without_parameters():
    features = maps((3, 4, 6), (5, 4, 6))
    match = MatchSize([(3, 4, 6), (5, 4, 6)])
    assert parameters(match) == 0
    assert all(a is b for a, b in zip(match(features), features, strict=True))


@pytest.mark.parametrize(
    ("large", "small", "kernel"),
    [
        ((8, 8), (4, 4), 3),
        ((9, 6), (3, 2), 3),
        ((16, 16), (4, 4), 1),
        ((12, 8), (4, 4), 1),  # a whole factor per side, but not the same one
        ((7, 7), (4, 4), 1),
        ((7, 4), (5, 4), 1),
    ],
)
def test_larger_maps_are_brought_to_the_smallest_size(large, small, kernel):
    shapes = [(3, *large), (5, *small)]
    match = MatchSize(shapes)
    first, second = match(features := maps(*shapes))
    assert first.shape == (2, 3, *small)
    assert second is features[1]
    assert (first >= 0).all()
    assert parameters(match) == 3 * 3 * kernel**2 + 2 * 3


def test_the_smallest_size_is_taken_by_side():
    match = MatchSize([(2, 8, 4), (2, 4, 8)])
    assert [f.shape for f in match(maps((2, 8, 4), (2, 4, 8)))] == [(2, 2, 4, 4)] * 2


def test_maps_may_be_pooled_to_the_smallest_size():
    shapes = [(3, 8, 6), (5, 4, 3)]
    match = MatchSize(shapes, "pooled")
    first, second = match(features := maps(*shapes))
    means = features[0].double().numpy().reshape(2, 3, 4, 2, 3, 2).mean((3, 5))
    np.testing.assert_allclose(first.numpy(), means, rtol=1e-5, atol=1e-6)
    assert second is features[1]
    assert parameters(match) == 0


def test_maps_may_be_enlarged_to_the_largest_size():
    shapes = [(3, 1, 4), (5, 1, 2)]
    match = MatchSize(shapes, "enlarged")
    first, second = match(features := maps(*shapes))
    a, b = features[1][..., 0], features[1][..., 1]
    expected = torch.stack([a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b], -1)
    torch.testing.assert_close(second, expected)
    assert first is features[0]
    assert parameters(match) == 0


def test_fusion_takes_maps_of_different_sizes():
    shapes = [(3, 8, 8), (5, 4, 4), (2, 5, 6)]
    assert FusionModule(shapes, 7)(maps(*shapes)).shape == (2, 7)
    assert FusionModule(shapes, 7, 1).fuse(maps(*shapes)).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("count", [2, 3])
def test_sum_fusion_classifies_the_mean_of_the_maps(count):
    features = maps(*[(3, 4, 5)] * count)
    module = SumFusion([("net", (3, 4, 5))] * count, num_classes=6)
    mean = sum(f.double().numpy() for f in features) / count
    linear = module.classifier.linear
    logits = mean.mean((2, 3)) @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    torch.testing.assert_close(module.fuse(features).double().numpy(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module(features).detach().double().numpy(), logits, rtol=1e-5, atol=1e-6)
    assert parameters(module) == 3 * 6 + 6


def test_sum_fusion_refuses_unlike_maps_naming_each():
    with pytest.raises(UsageError, match="resnet8 64x8x8, wrn_10_2 128x8x8.*--method ffl"):
        SumFusion([("resnet8", (64, 8, 8)), ("wrn_10_2", (128, 8, 8))], 10)


@pytest.mark.parametrize(
    ("student", "weights", "kind"),
    [
        ((3, 8, 6), 3 * 5, nn.Conv2d),
        ((3, 16, 12), 3 * 5 * 9, nn.Conv2d),
        ((3, 4, 3), 3 * 5 * 16, nn.ConvTranspose2d),
        ((3, 16, 6), 3 * 5, nn.AdaptiveAvgPool2d),
        ((3, 5, 5), 3 * 5, nn.AdaptiveAvgPool2d),
        ((3, 32, 24), 3 * 5, nn.AdaptiveAvgPool2d),
    ],
)
def test_a_regressor_brings_a_map_to_the_teacher_s_shape_and_sees_all_of_it(student, weights, kind):
    module = regressor(student, (5, 8, 6))
    (feature,) = maps(student)
    feature.requires_grad_()
    predicted = module(feature)
    assert predicted.shape == (2, 5, 8, 6) and isinstance(module[0], kind)
    assert parameters(module) == weights + 2 * 5
    (predicted * torch.randn_like(predicted)).sum().backward()
    assert feature.grad.abs().amin() > 0
