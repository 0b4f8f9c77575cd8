"""Folders of image files, one folder a class."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import DataError

from ..plain_files import shown
from ..views import Plan
from .pixels import read_image, read_parts
from .source import Source


@dataclass(frozen=True)
class Listing:
    """The images of some class folders.

    Attributes:
        names: paths relative to the root, sorted within each class.
        targets: (N,) int64, the class of each.
        others: paths of files that are no images, of pipes, devices and links to nothing, and of folders within a
            class folder; hidden ones are not told.
        links: those of `names` that are links.
    """

    names: tuple[str, ...]
    targets: Tensor
    others: tuple[str, ...]
    links: tuple[str, ...]


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders within `folder`, sorted, without hidden ones."""
    return tuple(sorted(entry.name for entry in _visible(folder) if _is(entry.is_dir)))


def list_images(root: Path, folder: str, classes: Sequence[str]) -> Listing:
    """The images root/folder/CLASS/*, by the endings that torchvision knows.

    Raises:
        DataError: a folder cannot be read.
    """
    from torchvision.datasets.folder import is_image_file

    names: list[str] = []
    counts: list[int] = []
    others: list[str] = []
    links: list[str] = []
    for name in classes:
        place = os.path.join(folder, name)
        entries = sorted(_visible(root / place), key=lambda entry: entry.name)
        images = [entry for entry in entries if is_image_file(entry.name) and _is(entry.is_file)]
        found = {entry.name for entry in images}
        others += [os.path.join(place, entry.name) for entry in entries if entry.name not in found]
        names += [os.path.join(place, image.name) for image in images]
        links += [os.path.join(place, image.name) for image in images if image.is_symlink()]
        counts.append(len(images))
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    return Listing(tuple(names), targets, tuple(others), tuple(links))


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry of a folder, or what it links to, is of a kind."""
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be read ({error.strerror})") from error


def named_keys(names: Sequence[str]) -> Tensor:
    """(N,) int64, one number for each file, made of its name and that of its folder.

    Where it lies beyond its class folder does not count, so that a folder may be moved.
    """
    keys = np.empty(len(names), np.int64)
    for k, name in enumerate(names):
        tail = b"/".join(os.fsencode(name).split(os.sep.encode())[-2:])
        keys[k] = int.from_bytes(hashlib.blake2b(tail, digest_size=8).digest(), "little", signed=True)
    return torch.from_numpy(keys)


class ImageFiles(Source):
    """Image files, decoded one by one.

    Args:
        root: the folder that the names are relative to.
        names: the files.
        channels: 1 for grey or 3 for colour; files of the other kind are converted.
        bit_depth: of 16-bit files, see :func:`to_pixels`.
        digest: a short text that differs where a file at these places (K,) does.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        channels: int,
        digest: Callable[[NDArray[np.int64]], str],
        bit_depth: int | None = None,
    ) -> None:
        self.root, self.channels, self.bit_depth, self._digest = root, channels, bit_depth, digest
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
        with self._named_in_errors(index) as path:
            return read_image(path, self.channels, self.bit_depth)

    def parts(self, index: int, plan: Plan) -> list[Tensor]:
        """Parts of an image in their sizes, each (C, H, W) uint8; errors as for :meth:`pixels`."""
        with self._named_in_errors(index) as path:
            return read_parts(path, plan, self.channels, self.bit_depth)

    @contextmanager
    def _named_in_errors(self, index: int) -> Iterator[Path]:
        """The path of an image, which an error then names."""
        path = self.path(index)
        try:
            yield path
        except Exception as error:
            raise DataError(f"{shown(path)} cannot be decoded ({str(error)[:100]}): repair or remove it") from error

    def fingerprint(self, indices: Tensor) -> str:
        """A short text that differs where the images at `indices` (K,) do."""
        return self._digest(indices.numpy()) + (f" {self.bit_depth} bits" if self.bit_depth else "")
