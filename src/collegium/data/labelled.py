"""A map-style data set, and what it tells of its labels and files without being read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import CollegiumError, DataError, UsageError

from .decoding.image_files import named_keys
from .decoding.verify import NOT_PLAIN, looked_up
from .plain_files import shown
from .splits import mix


@dataclass(frozen=True)
class Labelled:
    """A map-style data set, and where an item has its image and its label.

    Attributes:
        dataset: has a length, and gives an item for each index below it.
        image: the key of the image in an item.
        label: the key of the label, an integer, in an item.
        class_names: one name a class, where they are known.
        labels: (N,) the label of each item, where they are known without reading the items.
        keys: (N,) int64 of the names of files that may become more, see :class:`collegium.data.splits.Keyed`.
        stamps: (N,) uint64, numbers that differ where the files of items do, where items are files.
    """

    dataset: Any
    image: int | str = 0
    label: int | str = 1
    class_names: tuple[str, ...] | None = None
    labels: Tensor | None = None
    keys: Tensor | None = None
    stamps: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def item(self, index: int) -> tuple[Any, int]:
        """Image and label."""
        try:
            item = self.dataset[index]
        except CollegiumError:
            raise
        except Exception as error:
            raise DataError(f"item {index} of the data set cannot be read ({type(error).__name__}: {error})") from error
        try:
            image, label = item[self.image], item[self.label]
        except (TypeError, LookupError):
            raise UsageError(
                f"item {index} of the data set is a {type(item).__name__}: expected (image, label)"
            ) from None
        return image, _integer(label, index)


def _integer(label: Any, index: int) -> int:
    if isinstance(label, Tensor | np.ndarray) and math.prod(label.shape) == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not -(2**63) <= int(label) < 2**63:
        said = repr(label) if len(repr(label)) <= 80 else f"{repr(label)[:77]}..."
        raise UsageError(f"item {index} of the data set has the label {said}: expected an integer from 0")
    return int(label)


def file_stamps(files: Sequence[str], *, times: bool) -> NDArray[np.uint64]:
    """(N,) numbers that differ where files differ in name, size or, if asked for, time of change.

    Raises:
        DataError: one is a pipe, a socket or a device, which would be waited for without end.
    """
    found = looked_up(Path(), files)
    if (found["size"] == NOT_PLAIN).any():
        index = int((found["size"] == NOT_PLAIN).argmax())
        raise DataError(f"{shown(files[index])} is no plain file: remove it")
    if not times:
        found["time"] = 0
    return stamps(named_keys(files).numpy(), found["size"], found["time"])


def stamps(*numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(N,) numbers made of several."""
    made = np.zeros(len(numbers[0]), np.uint64)
    for part in numbers:
        made = mix(made ^ part.astype(np.uint64))
    return made
