"""Map-style data sets, torch's or of the same kind: in memory where their images are small and equal, else decoded
while training."""

import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collegium.errors import CollegiumError, DataError, UsageError
from collegium.seeds import global_state_kept, seed_globally

from . import labels
from .columns import columns
from .decoding.image_files import named_keys
from .decoding.passes import counted
from .decoding.pixels import peak as largest
from .decoding.pixels import to_pixels
from .decoding.reading import Reading, Shape, Unequal, depth_note, hold_out_test, in_memory, read_all, streamed
from .decoding.source import Source
from .decoding.streamed import StreamedSplit
from .decoding.workers import Crew, default_workers
from .images import ImageData
from .interface import ClassificationData
from .labelled import Labelled, file_stamps

_PROBES = 32  # images of each split that are looked at before it is decided how to read them
_PRINTS = 256  # images of each split that a fingerprint is made of
_CHUNK, _FEW = 64, 512


def from_datasets(
    train: Any,
    test: Any,
    *,
    validation: Any = None,
    name: str = "datasets",
    class_names: tuple[str, ...] | None = None,
    channels: int | None = None,
    reading: Reading | None = None,
    ignore_label: int | None = None,
) -> ClassificationData[Any]:
    """A data set from map-style data sets of (image, label).

    An image is a PIL image, a tensor (C, H, W) or an array (H, W, C), of uint8 or of floating point in [0, 1], and not
    normalised: Collegium normalises. A label is an integer from 0.

    Where the training data set draws its own random changes (two readings of an image differ), both data sets must
    give their images in one final size, and nothing more is done to them. Its draws are repeatable if it makes them
    from the global generators of torch, NumPy or Python. Otherwise equal small images are read into memory, and others
    decoded while training, as for "folder:PATH".

    Args:
        train: to train on; a torch Dataset, a data set of Hugging Face's `datasets`, or anything with a length and
            items.
        test: scores.
        validation: held out of training.
        name: what tables and reports call it.
        class_names: one name a class; the default is the training data set's `classes`, else "0", "1", ...
        channels: 1 or 3, converted where needed; the default is what the images have.
        reading: how images are read; the default is `Reading()`.
        ignore_label: leave out images with this label, such as -1 for unlabelled ones.

    Raises:
        UsageError: an item is no (image, label) as said above, or a setting does not fit.
        DataError: an item cannot be read.
    """
    given = {"train": train, "validation": validation, "test": test}
    parts = {split: labelled(dataset) for split, dataset in given.items() if dataset is not None}
    return read_datasets(
        name, parts, reading or Reading(), channels=channels, class_names=class_names, ignore_label=ignore_label
    )


def is_dataset(given: object) -> bool:
    """Whether something has a length and items, and is neither an array nor a plain sequence."""
    plain = isinstance(given, tuple | list | str | bytes | Mapping | np.ndarray | Tensor)
    return hasattr(given, "__getitem__") and hasattr(given, "__len__") and not plain


def labelled(dataset: Any) -> Labelled:
    """A data set, with its labels and class names where it tells them.

    Raises:
        UsageError: it has no length or no items.
    """
    if isinstance(dataset, Labelled):
        return dataset
    if hasattr(dataset, "features") and hasattr(dataset, "column_names"):
        return columns(dataset)
    if not is_dataset(dataset):
        raise UsageError(f"a {type(dataset).__name__} is no data set with a length and items: give a map-style one")
    files = _told_files(dataset)
    return Labelled(
        dataset,
        class_names=_told_classes(dataset),
        labels=_told_labels(dataset),
        keys=None if files is None or _published(dataset) else named_keys(files),
        stamps=None if files is None else file_stamps(files, times=not _published(dataset)),
    )


def read_datasets(
    name: str,
    parts: Mapping[str, Labelled],
    reading: Reading,
    *,
    channels: int | None = None,
    class_names: tuple[str, ...] | None = None,
    test_share: float = 0.2,
    split_seed: int = 0,
    kept: tuple[Path, str] | None = None,
    ignore_label: int | None = None,
) -> ClassificationData[Any]:
    """The data set made of some splits.

    Args:
        name: what tables and reports call it.
        parts: train, and perhaps test and validation.
        reading: how images are read.
        channels: 1 or 3; None for what the images have.
        class_names: one name a class; None for those that the training split tells.
        test_share: the share of each class to hold out for testing where there is no test split.
        split_seed: which images are held out.
        kept: a folder for pixels read into memory, and a key that differs where the images do.
        ignore_label: leave out images with this label.
    """
    reading.views()  # a wrong option is found before anything is read
    for split, part in parts.items():
        if len(part) == 0:
            raise UsageError(f"the {split} split of {name} is empty: it needs at least one image")
    sources = {split: DatasetImages(part, split, None, reading.bit_depth) for split, part in parts.items()}
    probes = {split: source.probe() for split, source in sources.items()}
    shapes = {split: {shape for shape, _ in probe} for split, probe in probes.items()}
    changing = [split for split, source in sources.items() if source.changes()]
    if set(changing) - {"train"}:
        raise UsageError(
            f"the {changing[-1]} split of {name} gives another image each time it is read: "
            "leave chance out of its transform"
        )
    channels = channels or _channels(name, {shape[0] for split in shapes.values() for shape in split})
    sources = {split: replace(source, channels=channels) for split, source in sources.items()}
    targets = {split: source.targets(reading.workers) for split, source in sources.items()}
    streams = {split: StreamedSplit.of(source, targets[split], parts[split].keys) for split, source in sources.items()}
    notes = depth_note(name, max(peak for probe in probes.values() for _, peak in probe), reading.bit_depth)
    before = {split: len(stream) for split, stream in streams.items()}
    for split, stream in streams.items():
        keep = labels.kept(stream.targets, ignore_label)
        streams[split] = stream if keep is None else stream.subset(keep)
    notes += labels.ignored_note(ignore_label, before, {split: len(stream) for split, stream in streams.items()})
    for split, stream in streams.items():
        if len(stream) == 0:
            raise UsageError(f"the {split} split of {name} has no image with another label than {ignore_label}")
    told = class_names or parts["train"].class_names
    names = told or labels.numbered_classes(name, {split: stream.targets for split, stream in streams.items()})
    if "test" not in streams:
        streams["train"], streams["test"], note = hold_out_test(name, streams["train"], test_share, split_seed)
        notes += (note,)
    sizes = {shape[1:] for split in shapes.values() for shape in split}
    shape = (channels, *sizes.pop()) if len(sizes) == 1 else None

    if changing:
        if shape is None or reading.memory:
            raise UsageError(
                f"the train split of {name} draws its own random changes: they cannot be kept in memory, and its "
                "images and those that score must all have one size"
            )
        return streamed(name, streams, names, channels, reading, notes=notes, ready=shape[1:])
    if reading.into_memory(shape, sum(map(len, parts.values()))):
        try:
            return _in_memory(name, streams, names, reading, shape, notes, kept)
        except Unequal:
            if reading.memory:
                raise
            shape = None
    return streamed(name, streams, names, channels, reading.settled(shape), notes=notes)


@dataclass(frozen=True)
class DatasetImages(Source):
    """The images of a map-style data set.

    Attributes:
        part: the data set.
        split: what it is for.
        channels: of every image, converted where needed; None for what each has.
        bit_depth: of 16-bit images, see :func:`to_pixels`.
    """

    part: Labelled
    split: str
    channels: int | None
    bit_depth: int | None = None

    def __len__(self) -> int:
        return len(self.part)

    def pixels(self, index: int) -> Tensor:
        """(C, H, W) uint8.

        Raises:
            DataError: the item cannot be read.
            UsageError: it holds no image.
        """
        return self._pixels(index, self.part.item(index)[0])

    def _pixels(self, index: int, image: Any) -> Tensor:
        try:
            return to_pixels(image, self.channels, self.bit_depth)
        except CollegiumError as error:
            raise type(error)(f"item {index} of the {self.split} split: {error}") from error
        except Exception as error:  # PIL decodes as late as here, and raises several kinds
            raise DataError(f"item {index} of the {self.split} split cannot be decoded ({error})") from error

    def fingerprint(self, indices: Tensor) -> str:
        """Of 256 images at most, evenly spread, of how many there are, and of every file's name, size and time."""
        digest = hashlib.sha1(f"{len(indices)} {self.bit_depth or ''}".strip().encode())
        if self.part.stamps is not None:
            digest.update(self.part.stamps[indices.numpy()].tobytes())
        with global_state_kept():
            for place in _spread(len(indices), _PRINTS):
                seed_globally(0)
                digest.update(self.pixels(int(indices[place])).numpy().tobytes())
        return digest.hexdigest()

    def probe(self) -> set[tuple[Shape, int]]:
        """Shapes (C, H, W) of some images, evenly spread, and their largest values where they have 16 bits, else 0."""
        with global_state_kept():
            images = ((index, self.part.item(index)[0]) for index in _spread(len(self), _PROBES))
            return {(_shape(self._pixels(index, image)), largest(image)) for index, image in images}

    def changes(self) -> bool:
        """Whether an image differs from one reading to the next."""
        with global_state_kept():
            for index in _spread(len(self), 4):
                readings = []
                for seed in range(3):
                    seed_globally(seed)
                    readings.append(self.pixels(index))
                if any(not torch.equal(readings[0], other) for other in readings[1:]):
                    return True
        return False

    def targets(self, workers: int | None) -> Tensor:
        """(N,) int64: the labels that the data set tells, if they agree with its items, else those of its items."""
        told = self.part.labels
        with global_state_kept():
            if told is not None and all(self.part.item(k)[1] == told[k] for k in _spread(len(self), _PROBES)):
                return told.to(torch.int64)
        chunks = [list(range(begin, min(begin + _CHUNK, len(self)))) for begin in range(0, len(self), _CHUNK)]
        count = default_workers() if workers is None else workers
        crew = Crew(_Labels(self.part), count if len(self) > _FEW else 0)
        with global_state_kept():
            read = counted(crew.run(chunks), f"Reading the {self.split} labels", len(chunks))
            return torch.tensor([label for chunk in read for label in chunk], dtype=torch.int64)


class _Labels:
    def __init__(self, part: Labelled) -> None:
        self.part = part

    def __call__(self, indices: list[int]) -> list[int]:
        return [self.part.item(index)[1] for index in indices]


def _in_memory(
    name: str,
    streams: Mapping[str, StreamedSplit],
    class_names: tuple[str, ...],
    reading: Reading,
    shape: Shape | None,
    notes: tuple[str, ...],
    kept: tuple[Path, str] | None,
) -> ImageData:
    resizing = reading.resizing(shape)
    pixels = {
        split: read_all(
            stream,
            f"Reading the {split} images",
            resizing=resizing,
            workers=reading.workers,
            kept=(None, "")
            if kept is None
            else (
                kept[0] / f"{split}.safetensors",
                f"{kept[1]} {split} {stream.source.fingerprint(stream.indices)}",
            ),
        )
        for split, stream in streams.items()
    }
    return in_memory(name, pixels, class_names, reading, resizing=resizing, notes=notes)


def _channels(name: str, found: set[int]) -> int:
    if len(found) == 1:
        return found.pop()
    if found <= {1, 3}:
        return 3
    raise UsageError(f"images of {name} have {sorted(found)} channels: give all of them the same number")


def _shape(image: Tensor) -> Shape:
    channels, height, width = image.shape
    return channels, height, width


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spread, with the first and the last."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(count, most))})


def _told_labels(dataset: Any) -> Tensor | None:
    from torch.utils.data import ConcatDataset, Subset, TensorDataset

    if isinstance(dataset, Subset):
        inner = _told_labels(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, ConcatDataset):
        parts = [_told_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return _as_labels(dataset.tensors[1], len(dataset))
    for attribute in ("targets", "labels", "_labels"):
        told = _as_labels(getattr(dataset, attribute, None), len(dataset))
        if told is not None:
            return told
    return None


def _told_files(dataset: Any) -> list[str] | None:
    """The file of each item where a data set of torchvision's kind tells it; of a subset or a sum too."""
    from torch.utils.data import ConcatDataset, Subset

    if isinstance(dataset, Subset):
        inner = _told_files(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [_told_files(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return [file for part in known for file in part] if len(known) == len(parts) else None
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list | tuple) or len(samples) != len(dataset):
        return None
    files = [sample[0] for sample in samples if isinstance(sample, tuple | list) and len(sample) == 2]
    if len(files) != len(dataset) or not all(isinstance(file, str | os.PathLike) for file in files):
        return None
    files = [os.fspath(file) for file in files]
    return files if all(map(os.path.lexists, files[:1])) else None


def _published(dataset: Any) -> bool:
    """Whether a torchvision data set is one that is downloaded, whose files do not become more."""
    from torch.utils.data import ConcatDataset, Subset

    if isinstance(dataset, Subset):
        return _published(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return all(map(_published, dataset.datasets))
    return "download" in inspect.signature(type(dataset).__init__).parameters


def _as_labels(told: Any, count: int) -> Tensor | None:
    if not isinstance(told, Tensor | np.ndarray | Sequence):
        return None
    try:
        given = told if isinstance(told, Tensor | np.ndarray) else np.asarray(told)
        found = labels.as_labels("the labels", given)
    except (TypeError, ValueError, OverflowError, UsageError):
        return None
    return found.cpu() if len(found) == count else None


def _told_classes(dataset: Any) -> tuple[str, ...] | None:
    """The names in `classes`, the first where one has several; looked for in what a subset or a sum is made of."""
    from torch.utils.data import ConcatDataset, Subset

    if isinstance(dataset, Subset):
        return _told_classes(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return _told_classes(dataset.datasets[0])
    classes = getattr(dataset, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    return tuple(str(name[0] if isinstance(name, tuple) else name) for name in classes)
