"""Networks give the same for overlapping patches, whether they see each of them or a tile."""

import pytest
import torch
from torch import Tensor, nn

from collegium.networks import build
from collegium.networks.network import Network
from collegium.networks.overlap import outputs_of_patches, shared_stages
from collegium.tiles import Tile


def make_tile(channels: int = 5, patch: int = 5, height: int = 9, width: int = 11) -> Tile:
    g = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(height - patch + 1), torch.arange(width - patch + 1)
    corners = torch.cartesian_prod(rows, columns)[torch.randperm(len(rows) * len(columns), generator=g)[:13]].T
    return Tile(torch.randn(1, channels, height, width, generator=g), patch, corners)


def network_of(*stages: nn.Module, classifier: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    named = {f"stage{k}": stage for k, stage in enumerate(stages)}
    network = Network(named, classifier or pooled, in_channels=5, name="net").eval()
    network(torch.randn(2, 5, 5, 5))
    return network


def test_patches_are_cut_where_their_corners_are():
    tile = make_tile()
    expected = [tile.pixels[0, :, r : r + 5, c : c + 5] for r, c in tile.corners.T.tolist()]
    assert torch.equal(tile.patches, torch.stack(expected))
    state = torch.randn(1, 2, 3, 7, 9)  # of convolutions that took two rows and two columns
    expected = [state[0, :, :, r : r + 3, c : c + 3] for r, c in tile.corners.T.tolist()]
    assert torch.equal(tile.cut(state), torch.stack(expected))


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer


class Shifted(nn.Module):
    """Rows that were taken from above alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:]


@pytest.mark.parametrize(
    ("stages", "shared"),
    [
        ([nn.Conv2d(5, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 6, 2, dilation=2)], 3),
        ([nn.Conv2d(5, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)], 1),
        ([nn.Conv2d(5, 4, 3, stride=2)], 0),
        ([nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1)], 1),
        ([nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(2)], 1),
        ([nn.InstanceNorm2d(5)], 0),
        ([nn.Conv2d(5, 5, 1), nn.LayerNorm([5, 5, 5])], 1),  # which takes no other size
        ([nn.Conv2d(5, 5, 1), Shifted()], 1),
        ([zeroed(nn.Conv2d(5, 5, 3, padding=1, bias=False)), nn.Conv2d(5, 5, 3)], 2),  # it says nothing of its border
    ],
)
def test_stages_are_shared_up_to_the_first_that_sees_where_a_patch_ends(stages: list[nn.Module], shared: int):
    network, tile = network_of(*stages), make_tile()
    assert shared_stages(network, tile) == shared
    maps, logits = outputs_of_patches(network, tile)
    apart, expected = network.outputs(tile.patches)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert len(maps) == len(stages)
    for found, own in zip(maps, apart, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)
    assert maps[-1] is maps[-1] and torch.equal(maps[-2:][-1], maps[-1])


@pytest.mark.parametrize(
    ("name", "patch", "shared"),
    [("hybridsn_2", 11, 4), ("hybridsn_2", 7, 0), ("hybridsn_2_bn", 11, 0), ("ssrn_4", 5, 3), ("resnet8", 8, 0)],
)
def test_networks_of_the_field_share_what_their_padding_allows(name: str, patch: int, shared: int):
    torch.manual_seed(0)
    network = build(name, num_classes=4, in_channels=15, image_size=(patch, patch)).eval()
    tile = make_tile(15, patch, patch + 3, patch + 5)
    assert shared_stages(network, tile) == shared
    maps, logits = outputs_of_patches(network, tile)
    apart, expected = network.outputs(network.fit(tile.patches))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    for found, own in zip(maps, apart, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)


def test_in_training_mode_nothing_is_shared_and_nothing_is_tried():
    network = network_of(nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)))
    network.train()
    before = network.stages["stage0"][1].running_mean.clone()
    assert shared_stages(network, make_tile()) == 0
    assert torch.equal(network.stages["stage0"][1].running_mean, before)


def test_a_network_of_one_image_size_sees_patches():
    network = Network({"stage0": nn.Conv2d(5, 4, 3)}, nn.Flatten(), in_channels=5, name="net", image_size=(8, 8))
    assert shared_stages(network.eval(), make_tile()) == 0
