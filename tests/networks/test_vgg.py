import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # counted in the code of the CRD paper: github.com/HobbitLong/RepDistiller at b84f547, models/vgg.py
        ("vgg8", 3_962_084),
        ("vgg16", 14_765_988),
        ("vgg8_bn", 3_965_028),
        ("vgg11_bn", 9_277_284),
        ("vgg13_bn", 9_462_180),
        ("vgg16_bn", 14_774_436),
        ("vgg19_bn", 20_086_692),
        # counted in the code of the OKDDip paper: github.com/DefangChen/OKDDip-AAAI2020, models/model_cifar/vgg.py
        ("vgg16_bn_fc3", 15_299_748),
        ("vgg19_bn_fc3", 20_612_004),
    ],
)
def test_parameter_counts_are_those_of_the_papers_code(name, count):
    with torch.device("meta"):
        assert parameters(build(name, num_classes=100)) == count


def test_the_parameter_count_by_hand():
    convolutions = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    by_hand = sum(9 * i * o + o + 2 * o for i, o in convolutions) + 512 * 10 + 10
    assert parameters(build("vgg8_bn", num_classes=10)) == by_hand


@pytest.mark.parametrize(("name", "sides"), [("vgg11_bn", (32, 16, 8, 4, 4)), ("vgg16_bn_fc3", (16, 8, 4, 2, 1))])
def test_the_maps_of_an_image_of_32_by_32(name, sides):
    shapes = [tuple(f.shape[1:]) for f in build(name, num_classes=5).forward_features(torch.rand(2, 3, 32, 32))]
    assert shapes == [(width, side, side) for width, side in zip((64, 128, 256, 512, 512), sides, strict=True)]


@pytest.mark.parametrize("depth", [16, 19])
def test_depth_counts_the_layers_with_weights_where_three_are_linear(depth):
    with torch.device("meta"):
        network = build(f"vgg{depth}_bn_fc3", num_classes=10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == depth


def test_a_plain_vgg_pools_before_its_second_third_and_fourth_group():
    network, x = build("vgg8", num_classes=5), torch.randn(2, 3, 16, 16)
    feature = x
    for number, layer in enumerate(m for m in network.modules() if isinstance(m, nn.Conv2d)):
        feature = F.max_pool2d(feature, 2) if number in (1, 2, 3) else feature
        feature = F.relu(F.conv2d(feature, layer.weight, layer.bias, padding=1))
    linear = network.classifier.linear
    torch.testing.assert_close(network(x), feature.mean((2, 3)) @ linear.weight.T + linear.bias)


def test_three_linear_layers_have_relu_between_them():
    classifier, feature = build("vgg16_bn_fc3", num_classes=5).classifier, torch.randn(4, 512, 2, 3)
    first, second, last = (m for m in classifier.modules() if isinstance(m, nn.Linear))
    x = feature.flatten(2).mean(2)
    for layer in (first, second):
        nn.init.normal_(layer.bias)
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(classifier(feature), x @ last.weight.T + last.bias, rtol=1e-4, atol=1e-6)


def test_weights_start_with_he_variance_and_biases_at_zero():
    torch.manual_seed(0)
    network = build("vgg16_bn_fc3", num_classes=100)
    for layer in (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        std = math.sqrt(2 / (9 * layer.out_channels)) if isinstance(layer, nn.Conv2d) else 0.01
        assert layer.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * layer.weight.numel()))
        assert not layer.bias.any()


@pytest.mark.parametrize("name", ["vgg12", "vgg0_bn", "vgg17_bn_fc3"])
def test_an_illegal_depth_is_refused_with_the_legal_ones(name):
    with pytest.raises(UsageError, match="a VGG has 8, 11, 13, 16 or 19 layers, not (12|0|17)$"):
        build(name, num_classes=10)


def test_three_linear_layers_without_batch_norm_are_no_form():
    with pytest.raises(UsageError, match="no network is called 'vgg16_fc3'; did you mean .*'vgg16_bn_fc3'"):
        build("vgg16_fc3", num_classes=10)
