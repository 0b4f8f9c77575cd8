import pytest
import torch
from torch import nn

from collegium.errors import UsageError
from collegium.networks import build
from collegium.networks.ssrn import ResidualBlock


def test_parameters_are_those_that_the_papers_layers_have():
    """Section III: Indian Pines, 200 bands of 7 x 7 pixels, 16 classes."""

    def layer(inputs: int, outputs: int, kernel: int) -> int:
        return outputs * (inputs * kernel + 1)

    def norm(channels: int) -> int:
        return 2 * channels

    spectral = layer(1, 24, 7) + norm(24) + 4 * (layer(24, 24, 7) + norm(24)) + layer(24, 128, 97) + norm(128)
    spatial = layer(128, 24, 9) + norm(24) + 4 * (layer(24, 24, 9) + norm(24))
    network = build("ssrn_24", num_classes=16, in_channels=200, image_size=(7, 7))
    total = sum(p.numel() for p in network.parameters())
    assert total == spectral + spatial + layer(24, 16, 1) == 364_168


def test_maps_are_those_of_the_papers_figure():
    network = build("ssrn_24", num_classes=16, in_channels=200, image_size=(7, 7)).eval()
    x, shapes = torch.rand(1, 200, 7, 7), []
    for stage in network.stages.values():
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(24, 97, 7, 7), (24, 97, 7, 7), (128, 1, 7, 7), (24, 5, 5)]


def test_a_block_normalises_first_and_adds_last():
    for activated in (True, False):
        block, x = ResidualBlock(3, (7, 1), activated=activated), torch.randn(2, 3, 9, 2, 2)
        first, second = (m for m in block.residue if isinstance(m, nn.Conv3d))

        def act(x: torch.Tensor) -> torch.Tensor:
            mean, var = x.mean((0, 2, 3, 4), keepdim=True), x.var((0, 2, 3, 4), correction=0, keepdim=True)
            return ((x - mean) / (var + 1e-5).sqrt()).relu()

        expected = x + second(act(first(x if activated else act(x))))
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("bands", "side"), [(1, 1), (6, 2), (7, 3), (8, 9), (103, 5)])
def test_any_number_of_bands_and_any_patch_will_do(bands, side):
    network = build("ssrn_6", num_classes=4, in_channels=bands, image_size=(side, side)).eval()
    images = torch.rand(2, bands, side, side)
    assert network(images).shape == (2, 4)
    assert network.forward_features(images)[-1].shape[2:] == ((side, side) if side < 3 else (side - 2, side - 2))


def test_the_name_says_the_width():
    network = build("ssrn_12", num_classes=4)
    assert network.name == "ssrn_12" and network.stages["stage2"][0].out_channels == 64
    with pytest.raises(UsageError, match="1 kernel or more, not 0"):
        build("ssrn_0", num_classes=10)
