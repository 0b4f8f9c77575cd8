"""Data sets for image classification, held in memory."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import get_type_hints

from collegium.errors import UsageError, nearest
from collegium.options import check_kind

from . import splits
from .batches import Batches
from .cifar import cifar10, cifar100
from .digits import digits
from .images import Augmentation, ImageData, PaddingMode, Split, from_arrays

__all__ = ["Augmentation", "Batches", "ImageData", "Split", "from_arrays", "load", "loader", "names", "options"]

Loader = Callable[..., ImageData]

# A new data set is added here; its function's keywords are its options.
_LOADERS: dict[str, Loader] = {function.__name__: function for function in (cifar10, cifar100, digits)}


def names() -> list[str]:
    """The names of the data sets, sorted."""
    return sorted(_LOADERS)


def loader(name: str) -> Loader:
    """The function that loads the data set `name`; its keywords are the data set's own options.

    Raises:
        UsageError: there is no such data set.
    """
    if name not in _LOADERS:
        raise UsageError(f"there is no data set {name!r}{nearest(name, names())}")
    return _LOADERS[name]


def options(name: str) -> dict[str, object]:
    """Every option that `load` takes for a data set, with its default."""
    general, own = (inspect.signature(function).parameters.values() for function in (load, loader(name)))
    return {p.name: p.default for p in (*general, *own) if p.kind is p.KEYWORD_ONLY}


def load(
    name: str,
    *,
    validation: float = 0.0,
    per_class: int | None = None,
    split_seed: int = 0,
    padding: int | None = None,
    padding_mode: PaddingMode | None = None,
    flip: bool | None = None,
    **options: object,
) -> ImageData:
    """Loads a data set by its name.

    Args:
        name: one of `names()`.
        validation: the share of each class's training images to hold out for validation, 0 for none.
        per_class: train on so many images of each class, taken after validation images are held out; all
            by default. The test images are never reduced.
        split_seed: which images are held out and taken.
        padding: pixels of padding before the random crop, 0 for no crop; the data set's own by default.
        padding_mode: pad with black ("zeros") or mirrored ("reflect") pixels; the data set's own by default.
        flip: mirror training images at random; the data set's own by default.
        **options: the data set's own options, such as `root` and `download`.

    Raises:
        UsageError: an unknown name or option, or a value that the data set does not allow.
        DataError: the files cannot be had or are damaged.
    """
    function = loader(name)
    given: dict[str, object] = {"validation": validation, "per_class": per_class, "split_seed": split_seed}
    given |= {"padding": padding, "padding_mode": padding_mode, "flip": flip}
    for option, value in given.items():
        check_kind(f"the data option {option}", value, get_type_hints(load)[option])
    known = list(inspect.signature(function).parameters)  # of this data set alone
    for option in options:
        if option not in known:
            hint = f"its options are: {', '.join(known)}" if known else "it has none of its own"
            raise UsageError(f"data set {name} has no option {option!r}; {hint}")
    data = function(**options)

    if validation:
        if data.validation is not None:
            raise UsageError(f"data set {name} has validation images of its own: leave out validation={validation}")
        train, held = splits.hold_out(data.train, validation, split_seed)
        data = replace(data, train=train, validation=held)
    if per_class is not None:
        data = replace(data, train=splits.per_class(data.train, per_class, split_seed))
    own = data.augmentation
    augmentation = Augmentation(
        padding=own.padding if padding is None else padding,
        padding_mode=own.padding_mode if padding_mode is None else padding_mode,
        flip=own.flip if flip is None else flip,
    )
    return replace(data, augmentation=augmentation)
