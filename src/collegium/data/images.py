"""Data sets held in memory."""

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError

from .batches import NO_AUGMENTATION, Augmentation, Batches, Split
from .decoding.views import Views
from .interface import WHOLE, ClassificationData, Share, describe

Array: TypeAlias = "NDArray[Any] | Tensor"
Pair: TypeAlias = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class ImageData(ClassificationData[Split]):
    """A classification data set held in memory.

    Attributes:
        augmentation: what is done at random to training images.
        resizing: how the images got their size, where theirs was another.

    `mean` and `std` are of pixels scaled to [0, 1].

    Raises:
        UsageError: as ClassificationData; or a split is not (N, C, H, W) uint8, or unlike the training images in
            shape; the images are too small for the augmentation.
    """

    augmentation: Augmentation
    resizing: Views | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            self._check_images(f"the {name} split of {self.name}", split.images)
        super().__post_init__()
        self.augmentation.check(self.image_size)

    def fingerprint(self) -> str:
        digest = hashlib.sha1(repr((self.class_names, self.mean, self.std, self.augmentation)).encode())
        for split in (self.train, self.test, self.validation):
            if split is not None:
                digest.update(split.images.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes())
                digest.update(split.targets.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def training_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        channels_last: bool = True,
        views: int = 1,
        images_per_class: int = 1,
        share: Share = WHOLE,
    ) -> Batches:
        return Batches(
            self.train.to(device),
            batch_size=batch_size,
            mean=self.mean,
            std=self.std,
            seed=seed,
            augmentation=self.augmentation,
            channels_last=channels_last,
            views=views,
            images_per_class=images_per_class,
            share=share,
        )

    def scoring_batches(
        self, split: Split, *, batch_size: int, device: torch.device, channels_last: bool = True
    ) -> Batches:
        return Batches(
            split.to(device),
            batch_size=batch_size,
            mean=self.mean,
            std=self.std,
            shuffle=False,
            drop_last=False,
            channels_last=channels_last,
        )

    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing() | ({} if self.resizing is None else self.resizing.described())

    def pictures(self, split: Split) -> Tensor:
        return split.images.cpu()

    def _check_images(self, where: str, images: Tensor) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise UsageError(
                f"{where} holds {describe(images)}: expected uint8 images (N, C, H, W); "
                "collegium.data.from_arrays converts arrays"
            )
        if images.shape[1:] != self.train.images.shape[1:]:
            raise UsageError(
                f"{where} has images (C, H, W) of {tuple(images.shape[1:])}, the training images are "
                f"{tuple(self.train.images.shape[1:])}: give every split the same shape"
            )


def from_arrays(
    train: Pair,
    test: Pair,
    *,
    name: str = "arrays",
    class_names: tuple[str, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augmentation: Augmentation = NO_AUGMENTATION,
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
        own_mean, own_std = own_statistics(train_split.images, given_std=std is not None)
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


def own_statistics(images: Tensor, *, given_std: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `pixel_statistics`, of images to be divided by their spread unless one is given.

    Raises:
        UsageError: a channel has no spread, and none is given.
    """
    mean, std = pixel_statistics(images)
    if not given_std and 0.0 in std:
        raise UsageError(
            f"channel {std.index(0.0)} of the training images is the same everywhere, so it has no "
            "spread to divide by: give std, or leave the channel out"
        )
    return mean, std


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
            f"{where} are {describe(given)}: expected a NumPy array (N, H, W) or (N, H, W, C), "
            "or a tensor (N, H, W) or (N, C, H, W)"
        )
    if isinstance(given, Tensor):
        images, floating, is_bytes = given.detach(), given.is_floating_point(), given.dtype == torch.uint8
    else:
        floating, is_bytes = given.dtype.kind == "f", given.dtype == np.uint8
    if not (floating or is_bytes):
        raise UsageError(f"{where} are {describe(given)}: expected uint8, or floating point in [0, 1]")
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
        raise UsageError(f"{where} are {describe(given)}: expected an array of integers (N,)")
    return given.to(torch.int64) if isinstance(given, Tensor) else torch.from_numpy(given.astype(np.int64))
