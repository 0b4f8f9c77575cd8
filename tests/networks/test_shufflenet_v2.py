import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.shufflenet_v2 import DownUnit, Unit, interleave


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("shufflenet_v2_x0_5", 443_716), ("shufflenet_v2_x1_0", 1_355_528), ("shufflenet_v2_x1_5", 2_580_548)],
)
def test_parameter_counts_are_those_of_the_crd_paper_s_code(name, count):
    # counted in github.com/HobbitLong/RepDistiller at b84f547, models/ShuffleNetv2.py
    assert parameters(build(name, num_classes=100)) == count


@pytest.mark.parametrize(
    ("width", "count"), [("0_5", 1_366_792), ("1_0", 2_278_604), ("1_5", 3_503_624), ("2_0", 7_393_996)]
)
def test_the_paper_s_counts_differ_by_the_stem_s_kernel(width, count):
    # torchvision.models.shufflenet_v2_x0_5 and so on, for 1000 classes; their stem is 3x3, ours 1x1
    with torch.device("meta"):
        assert parameters(build(f"shufflenet_v2_x{width}", num_classes=1000)) + 3 * 24 * (9 - 1) == count


def test_the_maps_of_an_image_of_32_by_32():
    network = build("shufflenet_v2_x1_0", num_classes=5)
    shapes = [tuple(f.shape[1:]) for f in network.forward_features(torch.rand(2, 3, 32, 32))]
    assert shapes == [(24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4), (1024, 4, 4)]


def norm(x: torch.Tensor) -> torch.Tensor:
    """A fresh norm in training mode: each channel to mean 0 and variance 1."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


def path(x: torch.Tensor, module: nn.Module, stride: int) -> torch.Tensor:
    """1x1 convolutions end in ReLU; 3x3 ones are of single maps, without ReLU and with the stride."""
    for layer in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        weight = nn.init.normal_(layer.weight)
        if weight.shape[2] == 1:
            x = F.relu(norm(F.conv2d(x, weight)))
        else:
            x = norm(F.conv2d(x, weight, stride=stride, padding=1, groups=len(weight)))
    return x


def test_halves_are_interleaved_by_channel():
    left, right = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([10.0, 11.0, 12.0])
    mixed = interleave(left.view(1, 3, 1, 1), right.view(1, 3, 1, 1))
    assert mixed.flatten().tolist() == [0, 10, 1, 11, 2, 12]


def test_a_unit_passes_its_first_half_on_and_convolves_the_second():
    unit, x = Unit(6), torch.randn(3, 6, 5, 5)
    right = path(x[:, 3:], unit.right, stride=1)
    y = unit(x)
    torch.testing.assert_close(y[:, 0::2], x[:, :3])
    torch.testing.assert_close(y[:, 1::2], right, rtol=1e-4, atol=1e-5)


def test_a_down_unit_convolves_all_channels_on_two_paths():
    unit, x = DownUnit(4, 6), torch.randn(3, 4, 6, 6)
    left, right = path(x, unit.left, stride=2), path(x, unit.right, stride=2)
    y = unit(x)
    assert y.shape == (3, 6, 3, 3)
    torch.testing.assert_close(y[:, 0::2], left, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y[:, 1::2], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_1", "shufflenet_v2_x0_0"])
def test_another_width_is_refused_with_the_legal_ones(name):
    with pytest.raises(UsageError, match=r"one of the widths 0.5, 1.0, 1.5, 2.0, not (1.1|0.0)$"):
        build(name, num_classes=10)


def test_another_form_of_name_is_refused_with_a_legal_one():
    with pytest.raises(UsageError, match="did you mean .*'shufflenet_v2_x"):
        build("shufflenet_v2", num_classes=10)
