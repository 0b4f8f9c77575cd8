"""Folders of image files, one folder a class."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import DataError

from .pixels import read_image


@dataclass(frozen=True)
class Listing:
    """The images of some class folders.

    Attributes:
        names: paths relative to the root, sorted within each class.
        targets: (N,) int64, the class of each.
        others: paths of files that are no images, and of folders within a class folder; hidden ones are not told.
    """

    names: tuple[str, ...]
    targets: Tensor
    others: tuple[str, ...]


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders within `folder`, sorted, without hidden ones."""
    return tuple(sorted(entry.name for entry in _visible(folder) if entry.is_dir()))


def list_images(root: Path, folder: str, classes: Sequence[str]) -> Listing:
    """The images root/folder/CLASS/*, by the endings that torchvision knows.

    Raises:
        DataError: a folder cannot be read.
    """
    from torchvision.datasets.folder import is_image_file

    names: list[str] = []
    counts: list[int] = []
    others: list[str] = []
    for name in classes:
        place = os.path.join(folder, name)
        entries = sorted(_visible(root / place), key=lambda entry: entry.name)
        images = [entry.name for entry in entries if is_image_file(entry.name) and not entry.is_dir()]
        found = set(images)
        others += [os.path.join(place, entry.name) for entry in entries if entry.name not in found]
        names += [os.path.join(place, image) for image in images]
        counts.append(len(images))
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    return Listing(tuple(names), targets, tuple(others))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read ({error.strerror})") from error


class ImageFiles:
    """Image files, decoded one by one.

    Args:
        root: the folder that the names are relative to.
        names: the files.
        channels: 1 for grey or 3 for colour; files of the other kind are converted.
        digest: a short text that differs where a file at these places (K,) does.
    """

    def __init__(
        self, root: Path, names: Sequence[str], channels: int, digest: Callable[[NDArray[np.int64]], str]
    ) -> None:
        self.root, self.channels, self._digest = root, channels, digest
        # One array: a list of a million texts would be copied into each worker, as its counts of references change.
        self._names = np.array([os.fsencode(name) for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        """Where an image lies."""
        return self.root / os.fsdecode(self._names[index].item())

    def pixels(self, index: int) -> Tensor:
        """(C, H, W) uint8.

        Raises:
            DataError: the file cannot be decoded.
        """
        path = self.path(index)
        try:
            return read_image(path, self.channels)
        except Exception as error:
            raise DataError(f"{path} cannot be decoded ({error}): repair or remove it") from error

    def fingerprint(self, indices: Tensor) -> str:
        """A short text that differs where the images at `indices` (K,) do."""
        return self._digest(indices.numpy())
