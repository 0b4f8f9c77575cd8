import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.wide_resnet import PreActivationBlock, wide_resnet


def parameters(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "classes", "single", "trunk", "branch"),
    [
        (16, 100, 703_284, 164_944, 538_340),
        (16, 10, 691_674, 164_944, 526_730),
        (40, 100, 2_255_156, 535_120, 1_720_036),
        (40, 10, 2_243_546, 535_120, 1_708_426),
    ],
)
@pytest.mark.parametrize("feature_point", ["post", "pre"])
def test_parameter_counts_are_the_published_ones(depth, classes, single, trunk, branch, feature_point):
    network = wide_resnet(depth, 2, classes, feature_point=feature_point)
    low, high = network.split_after("stage2")
    assert parameters([network]) == single
    assert parameters(list(low.values())) == trunk
    assert parameters([high]) == branch


def test_stages_are_16_32_and_64_channels_times_the_widening_factor():
    shapes = [tuple(f.shape[1:]) for f in build("wrn_10_3", num_classes=5).forward_features(torch.rand(1, 3, 16, 16))]
    assert shapes == [(16, 16, 16), (48, 16, 16), (96, 8, 8), (192, 4, 4)]


def norm(x: torch.Tensor) -> torch.Tensor:
    """A fresh norm in training mode: each channel to mean 0 and variance 1."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize(("out", "stride"), [(4, 1), (4, 2), (6, 1), (6, 2)])
def test_a_block_activates_first_and_adds_last(out, stride):
    block, x = PreActivationBlock(4, out, stride), torch.randn(3, 4, 6, 6)
    active = F.relu(norm(x))
    y = F.relu(norm(F.conv2d(active, block.conv1.weight, stride=stride, padding=1)))
    y = F.conv2d(y, block.conv2.weight, padding=1)
    same = (out, stride) == (4, 1)
    short = x if same else F.conv2d(active, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), y + short, rtol=1e-4, atol=1e-5)


def test_the_feature_point_changes_the_last_map_and_nothing_else():
    post, pre = build("wrn_10_1", num_classes=5), build("wrn_10_1_pre", num_classes=5)
    # The same layers in the same order, under other names.
    weights = zip(pre.state_dict(), post.state_dict().values(), strict=True)
    pre.load_state_dict(dict(weights))
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(pre(images), post(images))
    after, before = post.forward_features(images)[-1], pre.forward_features(images)[-1]
    assert (after >= 0).all()
    assert (before < 0).any()
    torch.testing.assert_close(F.relu(norm(before)), after, rtol=1e-4, atol=1e-5)
    assert (post.name, pre.name) == ("wrn_10_1", "wrn_10_1_pre")


@pytest.mark.parametrize("depth", [4, 12, 20, 41])
def test_an_illegal_depth_is_refused_with_legal_ones(depth):
    with pytest.raises(UsageError, match=rf"6n \+ 4 layers \(10, 16, 22, .*not {depth}"):
        build(f"wrn_{depth}_2", num_classes=10)


def test_a_widening_factor_of_nothing_is_refused():
    with pytest.raises(UsageError, match="by 1 or more, not 0"):
        build("wrn_16_0", num_classes=10)
