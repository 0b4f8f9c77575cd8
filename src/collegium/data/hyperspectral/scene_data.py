"""A hyperspectral scene with a class for some of its pixels, as data to train on and to map."""

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import DataError, UsageError

from ..interface import describe
from .patches import PatchData, Pixels, TileBatches
from .scene_splits import SplitKind, describe_split, split_pixels
from .spectral import Normalise, parse_bands, principal_components, statistics

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SceneData(PatchData):
    """A scene, of which the pixels in `train`, `validation` and `test` are used.

    Attributes:
        ground_truth: (H, W) int64, the class of each pixel, -1 where it has none.
        missing: (H, W) bool, the pixels without data; None where there are none.

    Raises:
        UsageError: as PatchData; or `ground_truth` is not as large as the scene.
    """

    ground_truth: Tensor
    missing: Tensor | None = None

    def __post_init__(self) -> None:
        if self.ground_truth.shape != self.cube.shape[:2]:
            raise UsageError(
                f"the ground truth of {self.name} is {describe(self.ground_truth)}: its scene has {self.size}"
            )
        super().__post_init__()

    def scene_tiles(self, *, batch_size: int, device: torch.device, channels_last: bool = True) -> TileBatches:
        """The patches around all pixels, row by row, with targets of -1 where a pixel has no class."""
        every = Pixels(torch.arange(self.ground_truth.numel()), self.ground_truth.flatten())
        return self.tiles(every, batch_size=batch_size, device=device, channels_last=channels_last)

    def false_colour(self) -> Tensor:
        """The whole scene for people to look at: (3, H, W) uint8."""
        return self.colours.permute(2, 0, 1)


class SceneOptions(TypedDict, total=False):
    """The options of :func:`from_scene`, where they are described, that every scene has."""

    patch: int
    turn: bool
    bands: str | list[int] | None
    pca: int | None
    normalise: Normalise
    split: SplitKind
    per_class: int | None
    train_share: float
    validation: float
    block: int | None
    split_seed: int
    min_pixels: int
    no_data: float | None


def from_scene(
    cube: Array,
    truth: Array,
    *,
    name: str = "scene",
    class_names: tuple[str, ...] | None = None,
    colour_bands: tuple[int, int, int] | None = None,
    patch: int = 9,
    turn: bool = True,
    bands: str | list[int] | None = None,
    pca: int | None = None,
    normalise: Normalise = "band",
    split: SplitKind = "disjoint",
    per_class: int | None = None,
    train_share: float = 0.1,
    validation: float = 0.0,
    block: int | None = None,
    split_seed: int = 0,
    min_pixels: int = 0,
    no_data: float | None = -9999,
) -> SceneData:
    """Data to train on from a scene in memory.

    Args:
        cube: (H, W, bands), any real type.
        truth: (H, W), whole numbers; 0 where a pixel has no class, other values are classes in rising order.
        name: what tables and reports call it.
        class_names: one name a class; the default is the values in `truth`.
        colour_bands: which bands are shown as red, green and blue; three evenly spaced ones by default.
        patch: side of the patch around each pixel, odd; 1 is its spectrum alone.
        turn: turn training patches by multiples of 90 degrees and mirror them at random.
        bands: the bands to keep, "0-99,110" or a list, counted from 0; all by default.
        pca: keep so many principal components of the bands instead of the bands.
        normalise: each channel by its own deviation ("band"), or all by one ("scene").
        split: how pixels become training and test pixels: "disjoint" or "random".
        per_class: training pixels of each class; by default `train_share` decides.
        train_share: the share of each class's pixels to train on.
        validation: the share of each class's pixels to hold out.
        block: side in pixels of the blocks of a disjoint split.
        split_seed: of blocks and pixels.
        min_pixels: leave out classes with fewer labelled pixels; a note says which, and how many they have.
        no_data: a pixel that holds this value in one of its `bands` has no data, nor has one that is not finite
            there. It is neither trained on nor tested, and a note says how many there are.

    `split` and the options up to `split_seed` are explained at :func:`split_pixels`. Components, mean and deviation
    are those of the training pixels alone; where a patch reaches over pixels without data, it holds that mean.

    Raises:
        UsageError: a number is out of range, or a class has too few pixels for the split.
        DataError: cube and ground truth do not fit together, or hold what they must not.
    """
    labels = check_scene(name, cube, truth)
    if class_names is None:
        class_names = tuple(str(value) for value in labels)
    if len(class_names) != len(labels):
        raise UsageError(f"{name} has {len(labels)} classes and {len(class_names)} class names: give one a class")
    picked = parse_bands(bands, cube.shape[2])
    missing = _without_data(cube[..., list(picked)], no_data)
    if missing.all():
        raise DataError(f"no pixel of {name} has data in all of its bands{_empty_band(cube, picked, no_data)}")
    labels, class_names, left_out = _frequent(name, truth[~missing], labels, class_names, min_pixels)
    lookup = np.full(int(truth.max()) + 1, -1, dtype=np.int64)
    lookup[labels] = np.arange(len(labels))
    ground_truth = torch.from_numpy(np.where(missing, -1, lookup[truth.astype(np.int64)]))
    dealt = split_pixels(
        ground_truth,
        kind=split,
        patch=patch,
        per_class=per_class,
        train_share=train_share,
        validation=validation,
        block=block,
        seed=split_seed,
        names=class_names,
    )
    flat = ground_truth.flatten()
    spectra = torch.from_numpy(np.ascontiguousarray(cube[..., list(picked)], dtype=np.float32)).view(-1, len(picked))
    components = None
    if pca is not None:
        components = principal_components(spectra[dealt.train], pca)
        spectra = components.project(spectra)
    mean, std = statistics(spectra[dealt.train], normalise)
    notes = [describe_split(dealt, ground_truth.shape, patch), *left_out]
    if missing.any():
        notes.append(_describe_missing(missing, truth, no_data))
        spectra[torch.from_numpy(missing.ravel())] = torch.tensor(mean)

    def pixels(positions: Tensor) -> Pixels:
        return Pixels(positions, flat[positions])

    return SceneData(
        name=name,
        train=pixels(dealt.train),
        validation=pixels(dealt.validation) if len(dealt.validation) else None,
        test=pixels(dealt.test),
        class_names=class_names,
        mean=mean,
        std=std,
        notes=tuple(notes),
        cube=spectra.view(*cube.shape[:2], -1),
        colours=false_colours(cube, colour_bands, no_data),
        patch=patch,
        turn=turn,
        bands=picked,
        components=components,
        ground_truth=ground_truth,
        missing=torch.from_numpy(missing) if missing.any() else None,
    )


def _without_data(spectra: Array, no_data: float | None) -> Array:
    """(...) bool: where one of the bands of `spectra` (..., bands) is not finite, or `no_data`."""
    missing = np.zeros(spectra.shape[:-1], dtype=bool)
    if spectra.dtype.kind == "f":
        missing |= ~np.isfinite(spectra).all(-1)
    if no_data is not None:
        missing |= (spectra == no_data).any(-1)
    return missing


def _empty_band(cube: Array, bands: tuple[int, ...], no_data: float | None) -> str:
    """The end of a sentence that names a band without any data, where there is one."""
    for band in bands:
        if _without_data(cube[..., band : band + 1], no_data).all():
            return f": band {band} has none anywhere, leave it out with bands"
    return ""


def _describe_missing(missing: Array, truth: Array, no_data: float | None) -> str:
    value = "" if no_data is None else f" or {no_data:g}"
    return (
        f"{missing.sum():,} of {missing.size:,} pixels have no data (a value that is not finite{value}): "
        f"{(truth[missing] > 0).sum():,} labelled ones among them are left out, and patches hold the "
        "mean in their place."
    )


def _frequent(
    name: str, labels_there: Array, labels: list[int], class_names: tuple[str, ...], min_pixels: int
) -> tuple[list[int], tuple[str, ...], list[str]]:
    """The classes with enough of `labels_there`, their names, and a sentence about all others where there are any."""
    if min_pixels < 0:
        raise UsageError(f"min_pixels is {min_pixels}: give 0 or more")
    counts = [int((labels_there == label).sum()) for label in labels]
    kept = [k for k, count in enumerate(counts) if count >= max(min_pixels, 1)]
    if len(kept) < 2:
        raise UsageError(
            f"{len(kept)} classes of {name} have {max(min_pixels, 1):,} labelled pixels, and 2 are needed: give a "
            f"smaller min_pixels, at most {sorted(counts)[-2]:,}"
        )
    notes = []
    if others := [f"{class_names[k]} ({counts[k]:,})" for k in range(len(labels)) if k not in kept]:
        notes.append(
            f"{len(others)} of {len(labels)} classes are left out, as they have fewer than {max(min_pixels, 1):,} "
            f"labelled pixels (min_pixels): {', '.join(others)}."
        )
    return [labels[k] for k in kept], tuple(class_names[k] for k in kept), notes


def check_scene(name: str, cube: Array, truth: Array) -> list[int]:
    """The values of `truth` that are classes, in rising order.

    Raises:
        DataError: cube and ground truth do not fit together, or hold what they must not.
    """
    if cube.ndim != 3 or truth.ndim != 2:
        raise DataError(
            f"the scene {name} is {describe(cube)} and its ground truth {describe(truth)}: "
            "expected (H, W, bands) and (H, W)"
        )
    if cube.shape[:2] != truth.shape:
        hint = "; one of them is transposed" if cube.shape[:2] == truth.shape[::-1] else ""
        raise DataError(
            f"the scene {name} has {cube.shape[0]} x {cube.shape[1]} pixels, its ground truth "
            f"{truth.shape[0]} x {truth.shape[1]}: give two that belong together{hint}"
        )
    return check_labels(f"the ground truth of {name}", truth, unlabelled=True)


def check_finite(name: str, spectra: Array, bands: tuple[int, ...]) -> None:
    """Raises DataError where one of the bands of `spectra` (N, B) is not a number."""
    wrong = np.argwhere(~np.isfinite(spectra[:, list(bands)]))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise DataError(
            f"{name} has a value that is not finite in spectrum {row}, band {bands[column]}: leave that band out with "
            "bands, or mend the file"
        )


def check_labels(what: str, labels: Array, *, unlabelled: bool) -> list[int]:
    """The values that are classes, in rising order; 0 is none where `unlabelled`.

    Raises:
        DataError: values are not whole, are negative, or are fewer than two.
    """
    if not np.isfinite(labels).all() or (labels != np.floor(labels)).any() or labels.min() < 0:
        raise DataError(f"{what} holds values that are not whole numbers from 0 on: it must name a class a pixel")
    values = [int(value) for value in np.unique(labels) if value != 0 or not unlabelled]
    if len(values) < 2:
        raise DataError(f"{what} has {len(values)} classes: there is nothing to learn below 2")
    return values


def false_colours(cube: Array, bands: tuple[int, int, int] | None, no_data: float | None = None) -> Tensor:
    """(H, W, 3) uint8: three bands, each stretched between its 2nd and 98th percentile; black without data."""
    last = cube.shape[2] - 1
    shown = cube[..., list(bands or (3 * last // 4, last // 2, last // 4))].astype(np.float32)
    missing = _without_data(shown, no_data)
    if missing.all():
        return torch.zeros(shown.shape, dtype=torch.uint8)
    low, high = np.percentile(shown[~missing], (2, 98), axis=0)
    scaled = (np.where(missing[..., None], low, shown) - low) / np.maximum(high - low, 1e-12)
    return torch.from_numpy(np.ascontiguousarray((scaled.clip(0, 1) * 255).round(), dtype=np.uint8))
