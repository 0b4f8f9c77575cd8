"""Data sets held in memory."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Unpack, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError

from .batches import NO_AUGMENTATION, Augmentation, Batches, Split
from .interface import BatchPlan, ClassificationData, check_order, describe, described_depth
from .labels import as_labels, ignored_note, kept, numbered_classes
from .transforms import Transform, transform_name
from .views import Views

Array: TypeAlias = "NDArray[Any] | Tensor"
Pair: TypeAlias = tuple[Array, Array]
Usual: TypeAlias = Literal["none", "crop", "crop_flip"]

_NOT_AUGMENTED = (
    "Training images are not augmented, unlike those of CIFAR by name: from_arrays(..., augmentation='crop_flip') "
    "crops and mirrors them at random, 'crop' crops them, 'none' says that this is meant."
)


@dataclass(frozen=True, kw_only=True)
class ImageData(ClassificationData[Split]):
    """A classification data set held in memory.

    Attributes:
        augmentation: what is done at random to training images.
        resizing: how the images got their size, where theirs was another.
        bit_depth: of 16-bit files that they were read from, where it is known.

    `mean` and `std` are of pixels scaled to [0, 1].

    Raises:
        UsageError: as ClassificationData; or a split is not (N, C, H, W) uint8, or unlike the training images in
            shape; the images are too small for the augmentation.
    """

    augmentation: Augmentation
    resizing: Views | None = None
    bit_depth: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def __post_init__(self) -> None:
        if self.augmentation != NO_AUGMENTATION or self.transform is not None:
            object.__setattr__(self, "notes", tuple(note for note in self.notes if note != _NOT_AUGMENTED))
        for name, split in self.splits.items():
            self._check_images(f"the {name} split of {self.name}", split.images)
        super().__post_init__()
        self.augmentation.check(self.image_size)

    def fingerprint(self) -> str:
        digest = hashlib.sha1(repr((self.class_names, self.mean, self.std, self.augmentation)).encode())
        if self.transform is not None:
            digest.update(transform_name(self.transform).encode())
        for split in (self.train, self.test, self.validation):
            if split is not None:
                digest.update(split.images.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes())
                digest.update(split.targets.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def training_batches(
        self,
        *,
        device: torch.device,
        channels_last: bool = True,
        **plan: Unpack[BatchPlan],
    ) -> Batches:
        return Batches(
            self.train.to(device),
            mean=self.mean,
            std=self.std,
            augmentation=self.augmentation,
            transform=self.transform,
            channels_last=channels_last,
            **plan,
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
        resized = {} if self.resizing is None else self.resizing.described()
        return super().preprocessing() | resized | described_depth(self.bit_depth)

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
    augmentation: Augmentation | Usual | None = None,
    validation: Pair | None = None,
    ignore_label: int | None = None,
    transform: Transform | None = None,
) -> ImageData:
    """A data set from arrays or tensors.

    Args:
        train: (images, labels) to train on. Images as a NumPy array are (N, H, W) or channels-last
            (N, H, W, C), as a tensor (N, H, W) or channels-first (N, C, H, W); uint8, or floating point in
            [0, 1], which is rounded to 256 levels. Where the shape tells that channels stand elsewhere, they are
            refused, see :func:`collegium.data.interface.check_order`. Labels are (N,) of any integer type.
        test: (images, labels) that score.
        name: what tables and reports call it.
        class_names: one name a class; the default is "0", "1", ... up to the largest label.
        mean: per channel, of pixels in [0, 1]; the default is the training images' own.
        std: per channel, of pixels in [0, 1]; the default is the training images' own.
        augmentation: what is done at random to training images: "crop_flip" crops them after padding each side by an
            eighth and mirrors them, as for folders and CIFAR; "crop" does not mirror, for digits and letters; "none"
            does nothing. So does the default, which says so in a note.
        validation: (images, labels) held out of training.
        ignore_label: leave out images with this label, such as 255 or -1 for unlabelled ones.
        transform: your own change of each training image, see :data:`collegium.data.transforms.Transform`.

    Raises:
        UsageError: images or labels of another shape or type, floating point images outside [0, 1] or not
            finite, labels that do not begin at 0 or leave out more numbers than they use where no class names are
            given, and whatever ImageData refuses.
    """
    given = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    whole = {part: _split(part, pair) for part, pair in given.items()}
    splits = {part: _without(split, ignore_label) for part, split in whole.items()}
    notes = ignored_note(ignore_label, *({part: len(s) for part, s in x.items()} for x in (whole, splits)))
    if class_names is None and all(map(len, splits.values())):
        class_names = numbered_classes(name, {part: split.targets for part, split in splits.items()})
    images = splits["train"].images
    if (mean is None or std is None) and len(images):
        own_mean, own_std = own_statistics(images, given_std=std is not None)
        mean, std = mean or own_mean, std or own_std
    if augmentation is None and transform is None:
        notes += (_NOT_AUGMENTED,)
    if isinstance(augmentation, str):
        augmentation = _usual(augmentation, min(images.shape[2:]))
    notes += _level_note(name, given["train"][0])
    return ImageData(
        name=name,
        train=splits["train"],
        test=splits["test"],
        validation=splits.get("validation"),
        class_names=class_names or ("0", "1"),  # of an empty split, which is refused
        mean=mean or (),
        std=std or (),
        augmentation=augmentation or NO_AUGMENTATION,
        notes=notes,
        transform=transform,
    )


def _usual(name: str, side: int) -> Augmentation:
    if name not in get_args(Usual):
        raise UsageError(f"augmentation is {name!r}: give {', '.join(map(repr, get_args(Usual)))}, or an Augmentation")
    return NO_AUGMENTATION if name == "none" else Augmentation(side // 8, "reflect", name == "crop_flip")


def _without(split: Split, ignore_label: int | None) -> Split:
    keep = kept(split.targets, ignore_label) if len(split) == len(split.targets) else None
    return split if keep is None else split.subset(keep)


def _level_note(name: str, images: Array) -> tuple[str, ...]:
    """What must be said of floating point images that are so dark that few of 256 levels are left."""
    floating = images.is_floating_point() if isinstance(images, Tensor) else images.dtype.kind == "f"
    brightest = round(255 * float(images.max())) if floating and len(images) else 255
    if brightest > 31:
        return ()
    return (
        f"Training images of {name} reach {brightest / 255:.2g} of 1, so at most {brightest + 1} of 256 levels are "
        "left: divide them by what white is (4095 for 12 bits), not by more.",
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
    if len(pair) != 2:
        raise UsageError(f"the {name} data are {len(pair)} things: give (images, labels)")
    images, targets = pair
    return Split(_images(f"the {name} images", images), as_labels(f"the {name} labels", targets))


def _images(where: str, given: Array) -> Tensor:
    if not isinstance(given, np.ndarray | Tensor) or given.ndim not in (3, 4):
        raise UsageError(
            f"{where} are {describe(given)}: expected a NumPy array (N, H, W) or (N, H, W, C), "
            "or a tensor (N, H, W) or (N, C, H, W)"
        )
    if given.ndim == 4:
        check_order(where, given)
    if isinstance(given, Tensor):
        images, floating, is_bytes = given.detach(), given.is_floating_point(), given.dtype == torch.uint8
    else:
        floating, is_bytes = given.dtype.kind == "f", given.dtype == np.uint8
    if not (floating or is_bytes):
        raise UsageError(
            f"{where} are {describe(given)}: expected uint8, or floating point in [0, 1] (divide by white)"
        )
    if isinstance(given, np.ndarray):
        # A copy of its own: the caller's array may be read-only, or be written to later.
        with np.errstate(over="ignore"):  # what is infinite then is outside [0, 1]
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
