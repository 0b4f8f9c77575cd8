import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.densenet import DenseLayer


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("densenet_40_12", 1.0),
        ("densenet_100_12", 7.0),
        ("densenet_100_24", 27.2),
        ("densenet_100_12_bc", 0.8),
        ("densenet_250_24_bc", 15.3),
        ("densenet_190_40_bc", 25.6),
    ],
)
def test_parameter_counts_are_those_of_the_paper_s_table_2(name, millions):
    with torch.device("meta"):
        assert round(parameters(build(name, num_classes=10)) / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "count"), [("densenet_40_12_bc", 188_092), ("densenet_100_12_bc", 800_032)])
def test_parameter_counts_are_those_of_okddip_s_code(name, count):
    # counted in the code of the OKDDip paper: github.com/DefangChen/OKDDip-AAAI2020, models/model_cifar/densenet.py
    with torch.device("meta"):
        assert parameters(build(name, num_classes=100)) == count


@pytest.mark.parametrize("classes", [10, 100])
def test_the_parameter_count_by_hand(classes):
    count, channels = 3 * 16 * 9, 16
    for stage in (1, 2, 3):
        for _ in range(12):
            count += 2 * channels + channels * 12 * 9
            channels += 12
        count += 2 * channels + (channels**2 if stage < 3 else channels * classes + classes)
    assert channels == 448
    assert parameters(build("densenet_40_12", num_classes=classes)) == count


@pytest.mark.parametrize(
    ("name", "channels"), [("densenet_40_12", (16, 160, 304, 448)), ("densenet_40_12_bc", (24, 48, 60, 132))]
)
def test_the_maps_of_an_image_of_32_by_32(name, channels):
    shapes = [tuple(f.shape[1:]) for f in build(name, num_classes=5).forward_features(torch.rand(2, 3, 32, 32))]
    assert shapes == [(width, side, side) for width, side in zip(channels, (32, 16, 8, 8), strict=True)]


@pytest.mark.parametrize("name", ["densenet_40_12", "densenet_40_12_bc", "densenet_100_12_bc"])
def test_depth_counts_the_layers_with_weights(name):
    with torch.device("meta"):
        network = build(name, num_classes=10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == int(name.split("_")[1])


def norm(x: torch.Tensor) -> torch.Tensor:
    """A fresh norm in training mode: each channel to mean 0 and variance 1."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_dense_layer_puts_its_maps_behind_its_input(bottleneck):
    layer, x = DenseLayer(6, 3, bottleneck), torch.randn(3, 6, 5, 5)
    *squeeze, spread = (m.weight for m in layer.modules() if isinstance(m, nn.Conv2d))
    y = x
    for weight in squeeze:
        assert weight.shape == (12, 6, 1, 1)
        y = F.conv2d(F.relu(norm(y)), weight)
    y = F.conv2d(F.relu(norm(y)), spread, padding=1)
    assert len(squeeze) == bottleneck and y.shape == (3, 3, 5, 5)
    torch.testing.assert_close(layer(x), torch.cat((x, y), 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "out"), [("densenet_7_4", 20), ("densenet_10_4_bc", 6)])
def test_a_transition_convolves_and_halves_and_the_end_is_activated(name, out):
    network = build(name, num_classes=5)
    stem, first, second, last = network.forward_features(torch.randn(3, 3, 8, 8))
    dense, *_, convolution, _ = network.stages["stage1"]
    y = F.conv2d(F.relu(norm(dense(stem))), convolution.weight)
    assert y.shape == (3, out, 8, 8)
    torch.testing.assert_close(first, y.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, F.relu(norm(network.stages["stage3"][0](second))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 4, 39, 42])
def test_an_illegal_depth_is_refused_with_legal_ones(depth):
    with pytest.raises(UsageError, match=rf"a DenseNet has 3n \+ 4 layers \(7, 10, 22, 40, .*not {depth}$"):
        build(f"densenet_{depth}_12", num_classes=10)


@pytest.mark.parametrize("depth", [4, 37])
def test_an_illegal_depth_with_bottlenecks_is_refused_with_legal_ones(depth):
    with pytest.raises(UsageError, match=rf"a DenseNet-BC has 6n \+ 4 layers \(10, 16, 40, .*100.*not {depth}$"):
        build(f"densenet_{depth}_12_bc", num_classes=10)


def test_a_growth_of_nothing_is_refused():
    with pytest.raises(UsageError, match="grows by 1 or more maps in each layer, not 0"):
        build("densenet_40_0", num_classes=10)
