"""The columns of a data set of Hugging Face that hold its images and labels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from collegium.errors import UsageError

from .decoding.image_files import named_keys
from .labelled import Labelled, file_stamps, stamps

_ROWS = 1000
_LABELS = ("label", "labels", "fine_label", "target", "class")


def columns(dataset: Any, image: str | None = None, label: str | None = None, name: str = "the data set") -> Labelled:
    """A split with its column of images and its column of labels, found by their kind where they are not given.

    Raises:
        UsageError: there is none, or more than one.
    """
    features = dataset.features
    image = image or _only(name, "image", [key for key, kind in features.items() if type(kind).__name__ == "Image"])
    classes = [key for key, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    named = [key for key in _LABELS if key in features]
    label = label or _only(name, "label", classes or named[:1])
    for what, key in (("image", image), ("label", label)):
        if key not in features:
            raise UsageError(f"{name} has no column {key!r} for {what}_column; its columns are: {', '.join(features)}")
    class_names = getattr(features[label], "names", None)
    dataset = dataset.select_columns([image, label])
    keys, listed = _files(dataset, image)
    return Labelled(
        dataset,
        image=image,
        label=label,
        class_names=None if class_names is None else tuple(class_names),
        labels=_labels(dataset, label),
        keys=keys,
        stamps=listed,
    )


def _labels(dataset: Any, label: str) -> torch.Tensor | None:
    try:
        return torch.tensor(list(dataset.with_format(None)[label]), dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # no integers, or too large ones
        return None


def _files(dataset: Any, image: str) -> tuple[torch.Tensor | None, NDArray[np.uint64] | None]:
    """Keys and stamps of the images, see :class:`Labelled`, from their names and sizes, without reading them.

    Keys are of images that are files of their own, as those of a local folder, which may become more.
    """
    from pyarrow import compute

    names: list[str] = []
    sizes: list[int | None] = []
    arrow = dataset.with_format("arrow")
    for begin in range(0, len(dataset), _ROWS):
        for part in arrow[begin : begin + _ROWS].column(image).chunks:
            if str(part.type) != "struct<bytes: binary, path: string>":
                return None, None
            names += [name or "" for name in part.field("path").to_pylist()]
            sizes += compute.binary_length(part.field("bytes")).to_pylist()
    if all(size is None for size in sizes):
        return named_keys(names), file_stamps(names, times=True)
    lengths = np.array([-1 if size is None else size for size in sizes], np.int64)
    return None, stamps(named_keys([name.rsplit("/", 1)[-1] for name in names]).numpy(), lengths)


def _only(name: str, kind: str, found: list[str]) -> str:
    if len(found) == 1:
        return found[0]
    has = f"several columns for it ({', '.join(found)})" if found else "no column of that kind"
    raise UsageError(f"{name} has {has}: say which to take as {kind}_column")
