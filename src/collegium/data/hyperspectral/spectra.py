"""Labelled spectra of which nobody knows where they lie, such as published training samples of a scene."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from collegium.errors import DataError
from collegium.options import options_from

from ..download import data_root
from .mat_files import read_mat
from .patches import PatchData, Pixels
from .scene_data import check_finite, check_labels, false_colours
from .scene_splits import split_pixels
from .spectral import Normalise, parse_bands, principal_components, statistics

_NOTE = (
    "The file does not say where in a scene its spectra were taken, so test spectra may be neighbours of training "
    "spectra, which flatters."
)


class SpectraOptions(TypedDict, total=False):
    """The options of :func:`from_spectra`, where they are described."""

    bands: str | list[int] | None
    pca: int | None
    normalise: Normalise
    per_class: int | None
    train_share: float
    validation: float
    split_seed: int


def from_spectra(
    spectra: NDArray[Any],
    labels: NDArray[Any],
    *,
    name: str,
    bands: str | list[int] | None = None,
    pca: int | None = None,
    normalise: Normalise = "band",
    per_class: int | None = None,
    train_share: float = 0.7,
    validation: float = 0.0,
    split_seed: int = 0,
) -> PatchData:
    """The same from arrays.

    Args:
        spectra: (N, bands), any real type.
        labels: (N,), (1, N) or (N, 1), whole numbers whose rising values are the classes.
        name: what tables and reports call them.
        bands: the bands to keep, "0-99,110" or a list, counted from 0; all by default.
        pca: keep so many principal components of the bands instead of the bands.
        normalise: each channel by its own deviation ("band"), or all by one ("scene").
        per_class: spectra of each class to train on; by default `train_share` decides. All others test.
        train_share: the share of each class's spectra to train on.
        validation: the share of each class's spectra to hold out.
        split_seed: which spectra those are.

    Raises:
        DataError: the arrays do not fit together, or hold what they must not.
        UsageError: a number is out of range, or a class has too few spectra.
    """
    if spectra.ndim != 2 or labels.size != len(spectra):
        raise DataError(
            f"{name} has spectra of shape {spectra.shape} and labels of shape {labels.shape}: "
            "expected (N, bands) and one label each"
        )
    picked = parse_bands(bands, spectra.shape[1])
    check_finite(name, spectra, picked)
    values = check_labels(f"the labels of {name}", labels, unlabelled=False)
    targets = torch.from_numpy(np.searchsorted(values, labels.ravel()).astype(np.int64))
    dealt = split_pixels(
        targets[:, None],
        kind="random",
        patch=1,
        per_class=per_class,
        train_share=train_share,
        validation=validation,
        block=None,
        seed=split_seed,
        names=tuple(map(str, values)),
    )
    channels = torch.from_numpy(spectra[:, list(picked)].astype(np.float32))
    components = None
    if pca is not None:
        components = principal_components(channels[dealt.train], pca)
        channels = components.project(channels)
    mean, std = statistics(channels[dealt.train], normalise)
    held = Pixels(dealt.validation, targets[dealt.validation])
    return PatchData(
        name=name,
        train=Pixels(dealt.train, targets[dealt.train]),
        validation=held if len(held) else None,
        test=Pixels(dealt.test, targets[dealt.test]),
        class_names=tuple(str(value) for value in values),
        mean=mean,
        std=std,
        notes=(_NOTE,),
        cube=channels[:, None],
        colours=false_colours(spectra[:, None], None),
        patch=1,
        turn=False,
        bands=picked,
        components=components,
    )


@options_from(from_spectra, skip=("name",))
def spectra(
    path: str,
    *,
    root: str | None = None,
    spectra_variable: str = "x",
    label_variable: str = "y",
    **options: Unpack[SpectraOptions],
) -> PatchData:
    """Spectra with labels from a MATLAB file, as patches of one pixel with the bands as channels.

    Args:
        path: a .mat file with spectra (N, bands) and one label each, (1, N) or (N, 1); where there is none, it is
            looked for under `root`, in the folder hyperspectral and then in `root` itself.
        root: where data lie; the default is the environment's COLLEGIUM_DATA, else ~/.cache/collegium.
        spectra_variable: what the file calls the spectra.
        label_variable: what the file calls the labels, whole numbers whose rising values are the classes.
        **options: of :func:`from_spectra`.

    Raises:
        DataError: there is no such file, it is damaged, or it holds what it must not.
        UsageError: a number is out of range, or a class has too few spectra.
    """
    file = find(path, root)
    arrays = read_mat(file)
    missing = [name for name in (spectra_variable, label_variable) if name not in arrays]
    if missing:
        raise DataError(
            f"{file} has no variable {missing[0]}: it holds {', '.join(arrays) or 'no arrays'}; "
            "name the right ones with spectra_variable and label_variable"
        )
    return from_spectra(
        arrays[spectra_variable],
        arrays[label_variable],
        name=file.stem,
        **options,
    )


def find(path: str, root: str | None) -> Path:
    """The file or folder at `path`, else under the data root's folder hyperspectral, else under the data root.

    Raises:
        DataError: it is in none of these places.
    """
    base = data_root(root)
    places = [Path(path).expanduser(), base / "hyperspectral" / path, base / path]
    for place in places:
        if place.exists():
            return place
    raise DataError(f"{path} is neither there nor under {base}: give its path, or as root the folder that holds it")
