import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.mobilenet_v2 import InvertedResidual, mobilenet_v2


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "count"), [("mobilenet_v2_x0_5", 812_836), ("mobilenet_v2_x1_0", 2_353_060)])
def test_parameter_counts_are_those_of_the_crd_paper_s_code(name, count):
    # counted in github.com/HobbitLong/RepDistiller at b84f547, models/mobilenetv2.py, T = 6
    assert parameters(build(name, num_classes=100)) == count


def test_the_paper_s_count_at_full_width_lacks_the_first_expansion():
    first = 32 * 32 + 2 * 32  # a 1x1 convolution and its norm
    # torchvision.models.mobilenet_v2, for 1000 classes, has 3,504,872 parameters.
    assert parameters(build("mobilenet_v2_x1_0", num_classes=1000)) - first == 3_504_872


def test_the_maps_of_an_image_of_32_by_32_at_half_width():
    network = build("mobilenet_v2_x0_5", num_classes=5)
    shapes = [tuple(f.shape[1:]) for f in network.forward_features(torch.rand(2, 3, 32, 32))]
    assert shapes == [(16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2), (1280, 2, 2)]


@pytest.mark.parametrize(("width", "last", "name"), [(1, 1280, "x1_0"), (1.4, 1792, "x1_4"), (0.35, 1280, "x0_35")])
def test_the_last_map_is_widened_only_above_one(width, last, name):
    with torch.device("meta"):
        network = mobilenet_v2(width, 10)
    assert network.classifier.linear.in_features == last
    assert network.name == f"mobilenet_v2_{name}"


def norm(x: torch.Tensor) -> torch.Tensor:
    """A fresh norm in training mode: each channel to mean 0 and variance 1."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize(("out", "stride"), [(4, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize("expansion", [1, 3])
def test_a_block_widens_filters_each_map_and_narrows_without_relu(out, stride, expansion):
    block, x = InvertedResidual(4, out, stride, expansion), torch.randn(3, 4, 6, 6)
    widen, each, narrow = (m.weight for m in block.modules() if isinstance(m, nn.Conv2d))
    for weight in (widen, each, narrow):  # the small He variance of a depth-wise layer would make the norm's eps count
        nn.init.normal_(weight)
    y = F.relu(norm(F.conv2d(x, widen)))
    y = F.relu(norm(F.conv2d(y, each, stride=stride, padding=1, groups=4 * expansion)))
    y = norm(F.conv2d(y, narrow))
    torch.testing.assert_close(block(x), x + y if (out, stride) == (4, 1) else y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", ["0_0", "0_05"])
def test_a_width_that_leaves_no_channels_is_refused(width):
    with pytest.raises(UsageError, match=f"1/16 or more, not {width.replace('_', '.')}$"):
        build(f"mobilenet_v2_x{width}", num_classes=10)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_half", "mobilenet_v2_x1"])
def test_another_form_of_name_is_refused_with_a_legal_one(name):
    with pytest.raises(UsageError, match="did you mean .*'mobilenet_v2_x[01]_[05]'"):
        build(name, num_classes=10)
