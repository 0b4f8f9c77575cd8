"""Labels as they are given: made integers of one kind, and numbered from 0 without large gaps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collegium.errors import UsageError

from .interface import describe


def as_labels(where: str, given: Any) -> Tensor:
    """An array or tensor of any integer type as (N,) int64.

    Raises:
        UsageError: it is of another type or shape, or a label needs more than 63 bits.
    """
    array = given.detach().cpu() if isinstance(given, Tensor) else given
    if isinstance(array, Tensor) and not (array.is_floating_point() or array.is_complex()):
        array = array.numpy()
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.ndim != 1:
        raise UsageError(
            f"{where} are {describe(given)}: expected an array of integers (N,); one-hot labels become so by argmax(1)"
        )
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise UsageError(f"{where} reach {array.max()}: number the classes from 0")
    labels = torch.from_numpy(array.astype(np.int64))
    return labels.to(given.device) if isinstance(given, Tensor) else labels


def kept(targets: Tensor, ignore_label: int | None) -> Tensor | None:
    """The places (K,) of the labels that are not to be ignored; None where those are all of them."""
    if ignore_label is None:
        return None
    keep = targets != ignore_label
    return None if keep.all() else keep.nonzero()[:, 0]


def ignored_note(ignore_label: int | None, before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """What must be said of images that were left out, by the sizes of the splits before and after."""
    out = {split: before[split] - after[split] for split in before if before[split] != after[split]}
    said = ", ".join(f"{count} of {before[split]} for {split}" for split, count in out.items())
    return (f"Left out, with the label {ignore_label} that is to be ignored: {said}.",) if out else ()


def numbered_classes(name: str, targets: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The classes "0", "1", ... of the labels of each split, where nobody has named them.

    At least half of the classes must have images, and the first must: so large or odd labels are found to be a mistake
    before memory is asked for by their size.

    Raises:
        UsageError: a label is negative, none is 0, or too many below the largest do not occur.
    """
    found = np.unique(np.concatenate([part.cpu().numpy() for part in targets.values()]))
    least, most = int(found[0]), int(found[-1])
    if least < 0:
        raise UsageError(
            f"{_where(name, targets, least)}: number the classes from 0, or, if it means no class, leave its images "
            f"out with ignore_label={least}"
        )
    if least > 0:
        raise UsageError(
            f"the labels of {name} begin at {least}: number the classes from 0 (labels - {least}), or give class_names "
            "with a name for each class below too"
        )
    if most >= 2 * len(found):
        raise UsageError(
            f"{_where(name, targets, most)}, but only {len(found)} different ones occur: number the classes from 0 "
            f"without gaps, give class_names, or, if it means no class, leave its images out with ignore_label={most}"
        )
    return tuple(str(label) for label in range(most + 1))


def _where(name: str, targets: Mapping[str, Tensor], label: int) -> str:
    split = next(split for split, part in targets.items() if (part == label).any())
    return f"the {split} split of {name} has label {label} at index {int((targets[split] == label).nonzero()[0])}"
