"""The user's own data: arrays, data sets, or a function that makes them."""

from dataclasses import replace
from typing import Any, TypeAlias

from collegium.errors import UsageError
from collegium.user_code import find

from .datasets import from_datasets, is_dataset
from .images import from_arrays
from .interface import ClassificationData

ArrayPair: TypeAlias = tuple[Any, Any]
"""Images and labels, as arrays or tensors; see :func:`from_arrays`."""
OwnData: TypeAlias = ClassificationData[Any] | tuple[ArrayPair, ArrayPair] | tuple[Any, Any]
"""Own data: to train on, to score; as arrays, or as map-style data sets, see :func:`from_datasets`."""


def as_data(data: object) -> ClassificationData[Any]:
    """The user's own data, checked.

    Args:
        data: a ClassificationData; ((train_images, train_labels), (test_images, test_labels)), see
            :func:`from_arrays`; or (train_dataset, test_dataset), see :func:`from_datasets`.

    Raises:
        UsageError: they are something else, or unfit.
    """
    if isinstance(data, ClassificationData):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        if all(isinstance(part, tuple | list) for part in data):
            return from_arrays(*data)
        if all(map(is_dataset, data)):
            return from_datasets(*data)
    raise UsageError(
        "data must be a name, an ImageData, ((train_images, train_labels), (test_images, test_labels)), "
        "or (train_dataset, test_dataset)"
    )


def module(function: str) -> ClassificationData[Any]:
    """Your own data: what a function of yours gives, found from the current folder.

    It is called without arguments, and gives arrays ((train_images, train_labels), (test_images, test_labels)), data
    sets (train_dataset, test_dataset), or a ClassificationData.

    Args:
        function: where it is: package.function.

    Raises:
        UsageError: there is no such function, or what it gives is unfit.
    """
    given = find(function)()
    return given if isinstance(given, ClassificationData) else replace(as_data(given), name=function)
