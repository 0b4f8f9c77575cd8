"""Images of any kind made into a data set: in memory where they are small and equal, else decoded while training."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError

from ..batches import Augmentation, Split
from ..images import ImageData, own_statistics
from ..splits import hold_out
from ..views import Policy, View, Views
from .passes import cached, counted
from .source import Source
from .streamed import StreamedData, StreamedSplit
from .workers import Crew, default_workers

# Of ImageNet's training images, as everybody uses them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_SIZE = 224

SMALL = 128  # pixels: larger sides are not taken into memory unasked
MEMORY = 4 << 30  # bytes: more is not taken into memory unasked

_CHUNK = 256
_FEW = 512  # images that are read before other processes have started

Shape = tuple[int, int, int]


class ReadingOptions(TypedDict, total=False):
    """The options of :class:`Reading`, where they are described."""

    image_size: int | None
    memory: bool | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flip: bool
    scale: tuple[float, ...]
    ratio: tuple[float, ...]
    augment: Policy
    erasing: float
    crop_ratio: float
    bit_depth: int | None
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read, whatever they are: the options that all such data sets share.

    Attributes:
        image_size: side of the square that the networks are given; by default that of images which are all one
            square of up to 224 pixels, else 224. Images in memory keep the size that they all have.
        memory: keep all images in memory (resized to image_size, if given) or none; by default equal small ones.
        mean: per channel, of pixels in [0, 1]; by default the training images' own in memory, else ImageNet's.
        std: as mean.
        flip: mirror training images at random.
        scale: least and largest share of the image that the random part has; not in memory.
        ratio: least and largest ratio of its width to its height; not in memory.
        augment: a policy of random changes to training images; not in memory.
        erasing: the share of training images of which a random rectangle is erased; not in memory.
        crop_ratio: the share of the resized image's side that is cut out for scoring; not in memory.
        bit_depth: how many bits the values of 16-bit images have, such as 12, so that 2^bit_depth - 1 is white; by
            default 16.
        workers: processes that decode; by default one for each CPU but one.

    Raises:
        UsageError: `bit_depth` is not from 9 to 16.
    """

    image_size: int | None = None
    memory: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    augment: Policy = "none"
    erasing: float = 0.0
    crop_ratio: float = 0.875
    bit_depth: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.bit_depth is not None and not 9 <= self.bit_depth <= 16:
            raise UsageError(f"bit_depth is {self.bit_depth}: give how many bits of 16-bit images are used, 9 to 16")
        for name in ("mean", "std", "scale", "ratio"):  # lists where they come from a recipe
            value = getattr(self, name)
            object.__setattr__(self, name, value and tuple(value))

    def into_memory(self, shape: Shape | None, count: int) -> bool:
        """Whether `count` images are to be kept in memory, all of (C, H, W) `shape` if that is known."""
        only_decoded = [
            name
            for name in ("scale", "ratio", "augment", "erasing", "crop_ratio")
            if getattr(self, name) != type(self).__dataclass_fields__[name].default
        ]
        if self.memory:
            if only_decoded:
                raise UsageError(
                    f"memory cannot be had with {' and '.join(only_decoded)}, which is done as images are decoded: "
                    "leave out one or the other"
                )
            if shape is None and self.image_size is None:
                raise UsageError(
                    "the images are not of one size, or not known to be: memory needs image_size, to resize them to"
                )
            return True
        if self.memory is False or shape is None or only_decoded:
            return False
        small = max(shape[1:]) <= SMALL and count * math.prod(shape) <= MEMORY
        return small and self.resizing(shape) is None

    def resizing(self, shape: Shape | None) -> Views | None:
        """How images in memory, all of (C, H, W) `shape` if that is known, are resized; None where they are not."""
        if self.image_size is None or (shape is not None and shape[1:] == (self.image_size, self.image_size)):
            return None
        return Views((self.image_size, self.image_size), crop_ratio=1.0)

    def settled(self, shape: Shape | None) -> "Reading":
        """With the image size decided, for images all of (C, H, W) `shape` if that is known."""
        if self.image_size is not None:
            return self
        square = shape is not None and shape[1] == shape[2] <= IMAGE_SIZE
        return replace(self, image_size=shape[1] if shape is not None and square else IMAGE_SIZE)

    def views(self, ready: tuple[int, int] | None = None) -> Views:
        """What is done to images that are decoded one by one; `ready` is their size where nothing is to be done."""
        size = self.image_size or IMAGE_SIZE
        return Views(
            image_size=ready or (size, size),
            scale=self.scale,
            ratio=self.ratio,
            flip=self.flip,
            augment=self.augment,
            erasing=self.erasing,
            crop_ratio=self.crop_ratio,
            ready=ready is not None,
        )


def hold_out_test(name: str, train: StreamedSplit, share: float, seed: int) -> tuple[StreamedSplit, StreamedSplit, str]:
    """Images to train on and images that score, where a data set has no split for it; and what must be said of it.

    Raises:
        UsageError: `share` is not between 0 and 1, or leaves one side empty.
    """
    if not 0 < share < 1:
        raise UsageError(f"test_share is {share}: give the share of each class to hold out, between 0 and 1")
    rest, test = hold_out(train, share, seed, "test")
    note = (
        f"{name} has no test images of its own: {len(test)} of its {len(train)} images ({100 * share:g} % of each class"
        f"{'' if train.keys is None else ' on average, by file name'}, split_seed {seed}) are held out of training: "
        "they are the test images."
    )
    return rest, test, note


def streamed(
    name: str,
    splits: Mapping[str, StreamedSplit],
    class_names: tuple[str, ...],
    channels: int,
    reading: Reading,
    *,
    notes: tuple[str, ...] = (),
    ready: tuple[int, int] | None = None,
) -> StreamedData:
    """A data set whose images are decoded while the networks train."""
    mean, std = (
        given or (usual if channels == 3 else (sum(usual) / 3,) * channels)
        for given, usual in ((reading.mean, IMAGENET_MEAN), (reading.std, IMAGENET_STD))
    )
    return StreamedData(
        name=name,
        class_names=class_names,
        channels=channels,
        mean=mean,
        std=std,
        views=reading.views(ready),
        workers=reading.workers,
        bit_depth=reading.bit_depth,
        notes=notes,
        **_parts(splits),
    )


def in_memory(
    name: str,
    splits: Mapping[str, Split],
    class_names: tuple[str, ...],
    reading: Reading,
    *,
    resizing: Views | None = None,
    notes: tuple[str, ...] = (),
) -> ImageData:
    """A data set in memory, cropped at random after padding each side by an eighth of the image, and mirrored.

    ``resizing`` is how its images got their size.
    """
    train = splits["train"].images
    own = (None, None) if reading.mean and reading.std else own_statistics(train, given_std=reading.std is not None)
    return ImageData(
        name=name,
        class_names=class_names,
        mean=reading.mean or own[0] or (),
        std=reading.std or own[1] or (),
        augmentation=Augmentation(min(train.shape[2:]) // 8, "reflect", reading.flip),
        resizing=resizing,
        bit_depth=reading.bit_depth,
        notes=notes,
        **_parts(splits),
    )


def read_all(
    split: StreamedSplit,
    title: str,
    *,
    resizing: Views | None = None,
    workers: int | None = None,
    kept: tuple[Path | None, str] = (None, ""),
) -> Split:
    """Every image of a split.

    Args:
        split: what to read.
        title: what is said meanwhile.
        resizing: what is done to each image, as for scoring.
        workers: processes that decode; by default one for each CPU but one.
        kept: the file where the pixels are kept for the next time, and a key that differs where the images do.

    Raises:
        Unequal: the images are not all of one size.
        DataError: one cannot be read.
    """
    view, size = (None, None) if resizing is None else (resizing.scoring(), resizing.image_size[0])
    file, key = kept

    def read() -> Split:
        return Split(_gather(split.source, split.indices, view, workers, title), split.targets)

    # Labels are part of the key: they are kept with the pixels.
    which = hashlib.sha1(split.indices.numpy().tobytes() + split.targets.numpy().tobytes()).hexdigest()
    return replace(cached(file, f"{key} {which} reduced to {size}", read), keys=split.keys, files=split.files)


def depth_note(name: str, peak: int, bit_depth: int | None) -> tuple[str, ...]:
    """What must be said of 16-bit images whose largest value is `peak`, 0 where there are none.

    Raises:
        UsageError: `bit_depth` is too small for them.
    """
    bits = peak.bit_length()
    if bit_depth is not None and bits > bit_depth:
        raise UsageError(f"16-bit images of {name} reach {peak}, more than bit_depth {bit_depth} allows: give {bits}")
    if bit_depth is not None or not 0 < bits < 16:
        return ()
    return (
        f"16-bit images of {name} reach {peak} of 65535: at most {(peak >> 8) + 1} of 256 grey levels are left. "
        f"Give bit_depth (such as {max(bits, 9)}) to have 2^bit_depth - 1 as white.",
    )


class Unequal(UsageError):
    """Images that were to be in memory together have not all one shape."""


class _Chunk:
    def __init__(self, source: Source, view: View | None) -> None:
        self.source, self.view = source, view

    def __call__(self, indices: list[int]) -> NDArray[np.uint8]:
        """(K, H, W, C)"""
        images = [self._image(index) for index in indices]
        if len(shapes := {tuple(image.shape) for image in images}) > 1:
            raise _unequal(*list(shapes)[:2])
        return torch.stack(images).permute(0, 2, 3, 1).numpy()

    def _image(self, index: int) -> Tensor:
        if (view := self.view) is None:
            return self.source.pixels(index)
        (part,) = self.source.parts(index, lambda height, width: [view.part(height, width)])
        return view.finish(part)


def _gather(source: Source, indices: Tensor, view: View | None, workers: int | None, title: str) -> Tensor:
    """(N, C, H, W) uint8, laid out channels-last."""
    chunks = [indices[begin : begin + _CHUNK].tolist() for begin in range(0, len(indices), _CHUNK)]
    count = default_workers() if workers is None else workers
    crew = Crew(_Chunk(source, view), count if len(indices) > _FEW else 0)
    images, begin = torch.empty(0), 0
    for part in counted(crew.run(chunks), title, len(chunks)):
        if begin == 0:
            images = torch.empty((len(indices), *part.shape[1:]), dtype=torch.uint8)
        if part.shape[1:] != images.shape[1:]:
            raise _unequal(*((s[2], s[0], s[1]) for s in (images.shape[1:], part.shape[1:])))
        images[begin : begin + len(part)] = torch.from_numpy(part)
        begin += len(part)
    return images.permute(0, 3, 1, 2)


def _unequal(one: tuple[int, ...], other: tuple[int, ...]) -> Unequal:
    return Unequal(f"the images are not all of one shape (C, H, W): {one}, {other}; give image_size")


def _parts(splits: Mapping[str, Any]) -> dict[str, Any]:
    return {key: splits[key] for key in ("train", "test", "validation") if key in splits}
