import pytest
import torch

from collegium.errors import UsageError
from collegium.networks import build

NAMES = ["resnet8", "resnet11_bottleneck", "wrn_10_1", "wrn_10_1_pre"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", ["stem", "stage1", "stage2"])
def test_the_two_parts_of_a_cut_network_make_the_whole(name, cut):
    network = build(name, num_classes=5).eval()
    images = torch.randn(2, 3, 8, 8)
    low, high = network.split_after(cut)
    x = images
    for stage in low.values():
        x = stage(x)
    features = high.forward_features(x)
    torch.testing.assert_close(high.classifier(features[-1]), network(images))
    assert (*low, *high.stage_names) == network.stage_names == ("stem", "stage1", "stage2", "stage3")
    assert {id(p) for p in high.parameters()} < {id(p) for p in network.parameters()}


@pytest.mark.parametrize("cut", ["stage3", "stage4", ""])
def test_a_cut_that_leaves_nothing_or_is_unknown_is_refused_naming_the_legal_ones(cut):
    with pytest.raises(UsageError, match=f"resnet8 cannot be cut after '{cut}'.*: stem, stage1, stage2$"):
        build("resnet8", num_classes=5).split_after(cut)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_channels", [1, 103])
def test_images_may_have_any_number_of_channels(name, in_channels):
    network = build(name, num_classes=5, in_channels=in_channels)
    assert network(torch.rand(2, in_channels, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(7, 9), (13, 8), (5, 5)])
def test_images_may_have_odd_and_unequal_sides(name, height, width):
    network = build(name, num_classes=5)
    sizes = [tuple(f.shape[2:]) for f in network.forward_features(torch.rand(2, 3, height, width))]
    half, quarter = ((-(-height // n), -(-width // n)) for n in (2, 4))  # rounded up
    assert sizes == [(height, width), (height, width), half, quarter]
    assert network(torch.rand(2, 3, height, width)).shape == (2, 5)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 8, 8, 3), (2, 3, 8)])
def test_images_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(UsageError, match=r"resnet8 takes images of shape \(batch, 3, height, width\)") as error:
        build("resnet8", num_classes=5)(torch.rand(shape))
    assert str(shape) in str(error.value)


def test_the_classifier_averages_the_whole_map():
    network = build("resnet8", num_classes=5)
    feature = torch.randn(2, 64, 3, 5)
    mean = sum(feature[:, :, i, j] for i in range(3) for j in range(5)) / 15
    linear = network.classifier.linear
    torch.testing.assert_close(network.classifier(feature), mean @ linear.weight.T + linear.bias)
