"""What is done to spectra before a network sees them, fitted to the training pixels alone."""

import re
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from collegium.errors import UsageError

from .patches import Components

Normalise: TypeAlias = Literal["band", "scene"]


def parse_bands(bands: str | list[int] | None, count: int) -> tuple[int, ...]:
    """The bands to keep, counted from 0: ``"0-99,110"`` or a list; all `count` of them by default.

    Raises:
        UsageError: it cannot be read, is empty, names a band that there is not, or one twice.
    """
    if bands is None:
        return tuple(range(count))
    picked: list[int] = []
    for part in bands.split(",") if isinstance(bands, str) else map(str, bands):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise UsageError(f"cannot read the bands {bands!r}: write them as '0-99,110', counted from 0")
        picked += range(int(match[1]), int(match[2] or match[1]) + 1)
    wrong = [band for band in picked if band >= count]
    if wrong:
        raise UsageError(f"there is no band {wrong[0]}: with {count} bands they run from 0 to {count - 1}")
    if not picked or len(set(picked)) < len(picked):
        raise UsageError(f"bands is {bands!r}: name at least one band, and none twice")
    return tuple(picked)


def principal_components(spectra: Tensor, count: int) -> Components:
    """The `count` directions of largest variance of training spectra (N, B), by singular value decomposition.

    Raises:
        UsageError: so many cannot be fitted to N spectra of B bands.
    """
    spectra = spectra.double()
    most = min(spectra.shape[1], len(spectra) - 1)
    if not 1 <= count <= most:
        raise UsageError(
            f"{count} principal components cannot be fitted to {len(spectra)} training pixels of {spectra.shape[1]} "
            f"bands: give pca from 1 to {most}"
        )
    centre = spectra.mean(0)
    directions = torch.linalg.svd(spectra - centre, full_matrices=False).Vh[:count]
    # The decomposition leaves the sign open: the largest weight shall be positive.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return Components(centre, directions * largest.sign())


def statistics(spectra: Tensor, normalise: Normalise) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of training spectra (N, C).

    Args:
        spectra: of the training pixels.
        normalise: "band", each channel by its own deviation; "scene", each by its own mean and all by one
            deviation, which keeps their proportions.

    Raises:
        UsageError: a channel is the same in all training pixels, or all are.
    """
    spectra = spectra.double()
    mean, variance = spectra.mean(0), spectra.var(0, correction=0)
    if normalise == "scene":
        variance = variance.mean().expand_as(variance)
    if not (variance > 0).all():
        channel = int((variance > 0).int().argmin())
        raise UsageError(
            f"channel {channel} is the same in all {len(spectra)} training pixels, so it has no spread to divide by: "
            "leave it out with bands, take more training pixels, or normalise by 'scene'"
        )
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())
