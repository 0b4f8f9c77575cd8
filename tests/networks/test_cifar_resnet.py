import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.layers import BasicBlock, convolution
from collegium.networks import build
from collegium.networks.cifar_resnet import BottleneckBlock, cifar_resnet


def parameters(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "classes", "single", "trunk", "branch"),
    [
        (32, 100, 472_756, 112_592, 360_164),
        (32, 10, 466_906, 112_592, 354_314),
        (56, 100, 861_620, 205_520, 656_100),
        (56, 10, 855_770, 205_520, 650_250),
        (110, 100, 1_736_564, 414_608, 1_321_956),
        (110, 10, 1_730_714, 414_608, 1_316_106),
    ],
)
def test_parameter_counts_are_the_published_ones(depth, classes, single, trunk, branch):
    network = cifar_resnet(depth, classes)
    low, high = network.split_after("stage2")
    assert parameters([network]) == single
    assert parameters(list(low.values())) == trunk
    assert parameters([high]) == branch


@pytest.mark.parametrize(("depth", "block", "final"), [(110, "basic", 64), (164, "bottleneck", 256)])
def test_depth_counts_the_layers_with_weights_on_the_main_path(depth, block, final):
    network = cifar_resnet(depth, 10, block=block)
    layers = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth
    assert network.classifier.linear.in_features == final


def test_stages_have_16_32_and_64_channels_at_full_half_and_quarter_size():
    for name, widening in (("resnet8", 1), ("resnet11_bottleneck", 4)):
        shapes = [tuple(f.shape[1:]) for f in build(name, num_classes=5).forward_features(torch.rand(1, 3, 16, 16))]
        expected = [(16, 16, 16), (16 * widening, 16, 16), (32 * widening, 8, 8), (64 * widening, 4, 4)]
        assert shapes == expected


@pytest.mark.parametrize(("name", "count"), [("resnet8x4", 1_233_540), ("resnet32x4", 7_433_860)])
def test_x4_has_a_stem_twice_and_stages_four_times_as_wide(name, count):
    # counted in the code of the CRD paper: github.com/HobbitLong/RepDistiller at b84f547, models/resnet.py
    network = build(name, num_classes=100)
    assert parameters([network]) == count
    if name == "resnet8x4":
        shapes = [tuple(f.shape[1:]) for f in network.forward_features(torch.rand(1, 3, 32, 32))]
        assert shapes == [(32, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)]


def norm(x: torch.Tensor) -> torch.Tensor:
    """A fresh norm in training mode: each channel to mean 0 and variance 1."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize(("out", "stride"), [(4, 1), (4, 2), (6, 1), (6, 2)])
def test_a_basic_block_adds_the_shortcut_before_the_last_relu(out, stride):
    block, x = BasicBlock(4, out, stride), torch.randn(3, 4, 6, 6)
    y = F.relu(norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1)))
    y = norm(F.conv2d(y, block.conv2.weight, padding=1))
    same = (out, stride) == (4, 1)
    short = x if same else norm(F.conv2d(x, block.shortcut[0].weight, stride=stride))
    torch.testing.assert_close(block(x), F.relu(y + short), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (8, 2), (4, 1)])
def test_a_bottleneck_block_narrows_strides_and_widens(channels, stride):
    block, x = BottleneckBlock(channels, 2, stride), torch.randn(3, channels, 6, 6)
    y = F.relu(norm(F.conv2d(x, block.conv1.weight)))
    y = F.relu(norm(F.conv2d(y, block.conv2.weight, stride=stride, padding=1)))
    y = norm(F.conv2d(y, block.conv3.weight))
    same = (channels, stride) == (8, 1)
    short = x if same else norm(F.conv2d(x, block.shortcut[0].weight, stride=stride))
    torch.testing.assert_close(block(x), F.relu(y + short), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions_start_with_he_variance_by_fan_out(kernel):
    torch.manual_seed(0)
    weight = convolution(32, 64, kernel).weight.detach()
    std = math.sqrt(2 / (kernel**2 * 64))
    assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))


@pytest.mark.parametrize("depth", [0, 2, 9, 18, 109])
def test_an_illegal_depth_is_refused_with_legal_ones(depth):
    with pytest.raises(UsageError, match=rf"basic blocks has 6n \+ 2 layers \(8, 14, 20, .*not {depth}"):
        build(f"resnet{depth}", num_classes=10)


def test_an_illegal_x4_depth_is_refused_with_legal_ones():
    with pytest.raises(UsageError, match=r"6n \+ 2 layers \(8, 14, 20, .*not 10"):
        build("resnet10x4", num_classes=10)


def test_an_illegal_bottleneck_depth_is_refused_with_legal_ones():
    with pytest.raises(UsageError, match=r"bottleneck blocks has 9n \+ 2 layers \(11, 20, .*164.*not 112"):
        build("resnet112_bottleneck", num_classes=10)
