import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.hybridsn import hybridsn


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_those_of_the_papers_table():
    """Table I: Indian Pines, 30 components of 25 x 25 pixels, 16 classes."""
    network = build("hybridsn_8", num_classes=16, in_channels=30, image_size=(25, 25))
    assert parameters(network) == 5_122_176
    assert [parameters(stage) for stage in network.stages.values()] == [512, 5_776, 13_856, 331_840]
    dense = [parameters(layer) for layer in network.classifier.layers if isinstance(layer, nn.Linear)]
    assert dense == [4_735_232, 32_896, 2_064]


def test_maps_are_those_of_the_papers_table():
    network = build("hybridsn_8", num_classes=16, in_channels=30, image_size=(25, 25)).eval()
    x, shapes = torch.rand(1, 30, 25, 25), []
    for stage in network.stages.values():
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 24, 23, 23), (16, 20, 21, 21), (32, 18, 19, 19), (64, 17, 17)]
    assert [tuple(m.shape[1:]) for m in network.forward_features(torch.rand(1, 30, 25, 25))][2] == (576, 19, 19)


def test_the_stem_convolves_over_bands_and_space():
    network = hybridsn(2, 3, in_channels=15, image_size=(9, 9))
    images = torch.rand(2, 15, 9, 9)
    weight, bias = network.stages["stem"][1].weight, network.stages["stem"][1].bias
    expected = F.relu(F.conv3d(images[:, None], weight, bias)).flatten(1, 2)
    torch.testing.assert_close(network.forward_features(images)[0], expected)


@pytest.mark.parametrize(
    ("bands", "side", "shapes"),
    [
        (13, 9, [(8 * 7, 7, 7), (16 * 3, 5, 5), (32, 3, 3), (64, 1, 1)]),
        (12, 9, [(8 * 12, 7, 7), (16 * 12, 5, 5), (32 * 12, 3, 3), (64, 1, 1)]),
        (13, 7, [(8 * 7, 7, 7), (16 * 3, 7, 7), (32, 7, 7), (64, 7, 7)]),
        (1, 1, [(8, 1, 1), (16, 1, 1), (32, 1, 1), (64, 1, 1)]),
    ],
)
def test_an_axis_that_is_too_short_is_padded(bands, side, shapes):
    network = build("hybridsn_8", num_classes=4, in_channels=bands, image_size=(side, side)).eval()
    images = torch.rand(2, bands, side, side)
    assert [tuple(m.shape[1:]) for m in network.forward_features(images)] == shapes
    assert network(images).shape == (2, 4)


def test_the_form_for_small_patches_has_weights_for_any_patch():
    small = build("hybridsn_4_bn", num_classes=4, in_channels=15, image_size=(5, 5)).eval()
    large = build("hybridsn_4_bn", num_classes=4, in_channels=15, image_size=(25, 25)).eval()
    large.load_state_dict(small.state_dict())
    images = torch.rand(2, 15, 5, 5)
    assert torch.equal(small(images), large(images))
    assert [tuple(m.shape[1:]) for m in small.forward_features(images)] == [
        (4 * 9, 5, 5),
        (8 * 5, 5, 5),
        (16 * 3, 5, 5),
        (32, 5, 5),
    ]
    assert (small.name, build("hybridsn_4", num_classes=4).name) == ("hybridsn_4_bn", "hybridsn_4")


def test_a_width_of_nothing_is_refused():
    with pytest.raises(UsageError, match="1 channel or more, not 0"):
        build("hybridsn_0", num_classes=10)


@pytest.mark.parametrize("name", ["hybridsn_2", "hybridsn_2_bn"])
def test_many_bands_are_said_to_be_slow(name):
    def note(channels: int) -> str:
        return build(name, num_classes=3, in_channels=channels, image_size=(3, 3)).note

    assert note(60) == note(15) == ""
    assert f"{name} convolves over 200 bands" in note(200) and "--data.pca 15" in note(200)
