import pytest
import torch

from collegium.errors import UsageError
from collegium.networks import build


def test_maps_keep_the_bands_as_rows():
    network = build("spectral_resnet14", num_classes=6, in_channels=204).eval()
    shapes = [tuple(m.shape[1:]) for m in network.forward_features(torch.rand(2, 204, 5, 5))]
    assert shapes == [(16, 204, 1), (16, 204, 1), (32, 102, 1), (64, 51, 1)]


def test_weights_fit_any_number_of_bands():
    houston = build("spectral_resnet8", num_classes=6, in_channels=144, image_size=(1, 1))
    salinas = build("spectral_resnet8", num_classes=6, in_channels=204, image_size=(9, 9))
    salinas.load_state_dict(houston.state_dict())
    assert salinas.eval()(torch.rand(2, 204, 9, 9)).shape == (2, 6)


def test_parameters_are_those_of_its_layers():
    stem, first = 16 * 7 + 2 * 16, 2 * (16 * 16 * 3 + 2 * 16)
    second = (16 * 32 + 32 * 32) * 3 + 2 * 2 * 32 + 16 * 32 + 2 * 32
    third = (32 * 64 + 64 * 64) * 3 + 2 * 2 * 64 + 32 * 64 + 2 * 64
    network = build("spectral_resnet8", num_classes=6, in_channels=204)
    assert sum(p.numel() for p in network.parameters()) == stem + first + second + third + 64 * 6 + 6


def test_only_the_spectrum_in_the_centre_counts():
    network = build("spectral_resnet8", num_classes=6, in_channels=20).eval()
    images = torch.rand(2, 20, 5, 5)
    other = torch.rand(2, 20, 5, 5)
    other[:, :, 2, 2] = images[:, :, 2, 2]
    assert torch.equal(network(images), network(other))
    assert torch.equal(network(images), network(images[:, :, 2:3, 2:3]))


@pytest.mark.parametrize("depth", [2, 10, 15])
def test_an_illegal_depth_is_refused(depth):
    with pytest.raises(UsageError, match=rf"6n \+ 2 layers \(8, 14, 20, ...\), not {depth}"):
        build(f"spectral_resnet{depth}", num_classes=10)
