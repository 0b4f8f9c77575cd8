"""Images in memory: a split, a data set, and what is done to its images at random."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError

Array: TypeAlias = "NDArray[Any] | Tensor"
Pair: TypeAlias = tuple[Array, Array]
PaddingMode: TypeAlias = Literal["zeros", "reflect"]


@dataclass(frozen=True)
class Split:
    """Images and labels held in memory.

    Attributes:
        images: (N, C, H, W) uint8, memory laid out channels-last.
        targets: (N,) int64, the class of each image.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`."""
        return Split(self.images.to(device), self.targets.to(device))

    def subset(self, indices: Tensor) -> "Split":
        """The images at `indices` (K,), in that order."""
        indices = indices.to(self.images.device)
        # Taken in the order of memory: a plain index on the NCHW view may come back in another layout.
        images = self.images.permute(0, 2, 3, 1)[indices].permute(0, 3, 1, 2)
        return Split(images, self.targets[indices])


@dataclass(frozen=True)
class Augmentation:
    """Random crop after padding, and horizontal flip, drawn for each image separately.

    Attributes:
        padding: pixels added on each side before a crop of the original size is taken; 0 for no crop.
        padding_mode: black pixels ("zeros"), or the image mirrored at its edge ("reflect").
        flip: mirror left and right half of the time.

    Raises:
        UsageError: `padding` is negative, or `padding_mode` is neither "zeros" nor "reflect".
    """

    padding: int = 4
    padding_mode: PaddingMode = "zeros"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise UsageError(f"padding is {self.padding} pixels: give 0 (no random crop) or more")
        if self.padding_mode not in ("zeros", "reflect"):
            raise UsageError(f"padding_mode is {self.padding_mode!r}: give 'zeros' or 'reflect'")

    def check(self, image_size: tuple[int, int]) -> None:
        """Raises UsageError where a crop of images of `image_size` (H, W) could miss the whole image."""
        if self.padding >= min(image_size):
            height, width = image_size
            raise UsageError(
                f"padding {self.padding} is too much for images of {height} x {width} pixels: "
                f"give at most {min(image_size) - 1}"
            )


@dataclass(frozen=True)
class ImageData:
    """A classification data set: what peers train on, what scores them.

    Attributes:
        name: what tables and reports call it.
        train: images to train on.
        test: images that score, and never select anything.
        class_names: one name a class, in the order of the labels.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        augmentation: what is done at random to training images.
        validation: images held out of training, for choosing between settings.

    Raises:
        UsageError: a split is empty, not (N, C, H, W) uint8, unlike the training images in shape, without
            one label an image, or holds a label outside 0..num_classes-1; `mean` or `std` has not one
            (positive, for std) value a channel; the images are too small for the augmentation.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    validation: Split | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise UsageError(f"{self.name} has {self.num_classes} classes: there is nothing to learn below 2")
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, split in splits.items():
            if split is not None:
                self._check_split(f"the {name} split of {self.name}", split)
        check_statistics(self.mean, self.std, self.in_channels)
        self.augmentation.check(self.image_size)

    def fingerprint(self) -> str:
        """A short text that differs where pixels, labels, normalisation or augmentation do."""
        digest = hashlib.sha1(repr((self.class_names, self.mean, self.std, self.augmentation)).encode())
        for split in (self.train, self.test, self.validation):
            if split is not None:
                digest.update(split.images.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes())
                digest.update(split.targets.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _check_split(self, where: str, split: Split) -> None:
        images, targets = split.images, split.targets
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise UsageError(
                f"{where} holds {_describe(images)}: expected uint8 images (N, C, H, W); "
                "collegium.data.from_arrays converts arrays"
            )
        if len(images) == 0:
            raise UsageError(f"{where} is empty: it needs at least one image")
        if images.shape[1:] != self.train.images.shape[1:]:
            raise UsageError(
                f"{where} has images (C, H, W) of {tuple(images.shape[1:])}, the training images are "
                f"{tuple(self.train.images.shape[1:])}: give every split the same shape"
            )
        if targets.ndim != 1 or targets.dtype != torch.int64:
            raise UsageError(f"{where} has as labels {_describe(targets)}: expected int64 of shape (N,)")
        if len(images) != len(targets):
            raise UsageError(f"{where} has {len(images)} images and {len(targets)} labels: give one label an image")
        wrong = (targets < 0) | (targets >= self.num_classes)
        if wrong.any():
            index = int(wrong.nonzero()[0])
            raise UsageError(
                f"{where} has label {int(targets[index])} at index {index}: with {self.num_classes} classes "
                f"labels run from 0 to {self.num_classes - 1}"
            )


def check_statistics(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Raises UsageError unless `mean` and `std` have one usable value for each of `channels`."""
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise UsageError(
                f"{name} has {len(values)} values for images of {channels} channels: give one value a channel"
            )
    if not all(value > 0 for value in std):
        raise UsageError(f"std is {std}: every channel needs a value above 0")


def from_arrays(
    train: Pair,
    test: Pair,
    *,
    name: str = "arrays",
    class_names: tuple[str, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augmentation: Augmentation = Augmentation(padding=0, flip=False),
    validation: Pair | None = None,
) -> ImageData:
    """A data set from arrays or tensors.

    Args:
        train: (images, labels) to train on. Images as a NumPy array are (N, H, W) or channels-last
            (N, H, W, C), as a tensor (N, H, W) or channels-first (N, C, H, W); uint8, or floating point in
            [0, 1], which is rounded to 256 levels. Labels are (N,) of any integer type.
        test: (images, labels) that score.
        name: what tables and reports call it.
        class_names: one name a class; the default is "0", "1", ... up to the largest label.
        mean: per channel, of pixels in [0, 1]; the default is the training images' own.
        std: per channel, of pixels in [0, 1]; the default is the training images' own.
        augmentation: what is done at random to training images; the default is nothing.
        validation: (images, labels) held out of training.

    Raises:
        UsageError: images or labels of another shape or type, floating point images outside [0, 1] or not
            finite, and whatever ImageData refuses.
    """
    train_split, test_split = _split("train", train), _split("test", test)
    validation_split = None if validation is None else _split("validation", validation)
    if class_names is None:
        largest = max((int(s.targets.max()) for s in (train_split, test_split) if s.targets.numel()), default=-1)
        class_names = tuple(str(label) for label in range(largest + 1))
    if (mean is None or std is None) and len(train_split):
        own_mean, own_std = pixel_statistics(train_split.images)
        if std is None and 0.0 in own_std:
            raise UsageError(
                f"channel {own_std.index(0.0)} of the training images is the same everywhere, so it has no "
                "spread to divide by: give std, or leave the channel out"
            )
        mean, std = mean or own_mean, std or own_std
    return ImageData(
        name=name,
        train=train_split,
        test=test_split,
        class_names=class_names,
        mean=mean or (),
        std=std or (),
        augmentation=augmentation,
        validation=validation_split,
    )


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 `images` (N, C, H, W), in units of [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(dim=1):
        # From the histogram: exact, and without a floating point copy of the data set.
        share = torch.bincount(channel.flatten(), minlength=256).cpu().double() / channel.numel()
        mean = float(share @ levels)
        means.append(mean)
        stds.append(float(share @ (levels - mean).square()) ** 0.5)
    return tuple(means), tuple(stds)


def _split(name: str, pair: Pair) -> Split:
    images, targets = pair
    return Split(_images(f"the {name} images", images), _targets(f"the {name} labels", targets))


def _images(where: str, given: Array) -> Tensor:
    if not isinstance(given, np.ndarray | Tensor) or given.ndim not in (3, 4):
        raise UsageError(
            f"{where} are {_describe(given)}: expected a NumPy array (N, H, W) or (N, H, W, C), "
            "or a tensor (N, H, W) or (N, C, H, W)"
        )
    if isinstance(given, Tensor):
        images, floating, is_bytes = given.detach(), given.is_floating_point(), given.dtype == torch.uint8
    else:
        floating, is_bytes = given.dtype.kind == "f", given.dtype == np.uint8
    if not (floating or is_bytes):
        raise UsageError(f"{where} are {_describe(given)}: expected uint8, or floating point in [0, 1]")
    if isinstance(given, np.ndarray):
        # A copy of its own: the caller's array may be read-only, or be written to later.
        images = torch.from_numpy(np.array(given, dtype=np.float32 if floating else np.uint8, order="C"))
        if images.ndim == 4:
            images = images.permute(0, 3, 1, 2)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if floating:
        if not ((images >= 0) & (images <= 1)).all():  # NaN fails both
            raise UsageError(
                f"{where} are floating point with values outside [0, 1] (or NaN): scale them to [0, 1], "
                "or give uint8 from 0 to 255"
            )
        images = (images * 255).round().to(torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def _targets(where: str, given: Array) -> Tensor:
    if isinstance(given, Tensor):
        integers = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    else:
        integers = isinstance(given, np.ndarray) and given.dtype.kind in "iu"
    if not integers or given.ndim != 1:
        raise UsageError(f"{where} are {_describe(given)}: expected an array of integers (N,)")
    return given.to(torch.int64) if isinstance(given, Tensor) else torch.from_numpy(given.astype(np.int64))


def _describe(given: object) -> str:
    if isinstance(given, np.ndarray | Tensor):
        return f"{str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)}"
    return f"a {type(given).__name__}"
