import numpy as np
import pytest
import torch

from collegium.data.hyperspectral.spectral import parse_bands, principal_components, statistics
from collegium.errors import UsageError


def test_bands_are_read_as_ranges_and_lists():
    assert parse_bands(None, 3) == (0, 1, 2)
    assert parse_bands("0-2, 5 ,4", 6) == (0, 1, 2, 5, 4)
    assert parse_bands([2, 0], 3) == (2, 0)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ("0-6", "there is no band 6: with 6 bands they run from 0 to 5"),
        ("a", "cannot read the bands 'a'"),
        ("", "cannot read"),
        ("-1", "cannot read"),
        ([], "at least one band"),
        ("1,0-2", "none twice"),
    ],
)
def test_bands_that_cannot_be_are_refused(bands, message):
    with pytest.raises(UsageError, match=message):
        parse_bands(bands, 6)


def test_components_are_those_of_the_covariance():
    spectra = torch.randn(40, 5, dtype=torch.double) * torch.tensor([5.0, 1, 3, 2, 0.5]) + 7
    found = principal_components(spectra, 3)
    values, vectors = np.linalg.eigh(np.cov(spectra.numpy().T))
    for k in range(3):
        np.testing.assert_allclose(abs(vectors[:, -1 - k] @ found.directions[k].numpy()), 1, rtol=1e-9)
    projected = found.project(spectra)
    assert projected.dtype == torch.float32
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(projected.var(0), values[::-1][:3], rtol=1e-4)
    assert (found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("count", [0, 5])
def test_more_components_than_training_pixels_allow_are_refused(count):
    with pytest.raises(UsageError, match=f"{count} principal components .* 5 training pixels .* from 1 to 4"):
        principal_components(torch.randn(5, 9), count)


def test_statistics_by_hand():
    spectra = torch.tensor([[0.0, 10], [2, 10], [4, 40], [2, 20]])
    mean, std = statistics(spectra, "band")
    assert mean == (2, 20) and std == pytest.approx((2**0.5, 150**0.5))
    mean, std = statistics(spectra, "scene")
    assert mean == (2, 20) and std == pytest.approx((76**0.5, 76**0.5))


def test_a_channel_without_spread_is_refused():
    with pytest.raises(UsageError, match="channel 1 is the same in all 2 training pixels"):
        statistics(torch.tensor([[0.0, 1], [1, 1]]), "band")
    assert statistics(torch.tensor([[0.0, 1], [1, 1]]), "scene")[1] == pytest.approx((8**-0.5, 8**-0.5))
    with pytest.raises(UsageError, match="same in all"):
        statistics(torch.ones(3, 2), "scene")
