"""What every data set offers to training, evaluation and reports, wherever its images lie."""

import abc
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, NotRequired, Protocol, Self, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.tiles import Tile

from .transforms import Transform, transform_name


class Samples(Protocol):
    """One split: labelled images, wherever they lie."""

    @property
    def targets(self) -> Tensor:
        """(N,) int64, the class of each image."""
        ...

    @property
    def true_targets(self) -> Tensor | None:
        """(N,) int64, the right classes, where `targets` are known to be wrong in part; else None."""
        ...

    @property
    def files(self) -> tuple[str, ...] | None:
        """The path of the file that each image is read from, None where they come from elsewhere."""
        ...

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor) -> Self:
        """The images at `indices` (K,), in that order."""
        ...


class Share(NamedTuple):
    """What one of several processes makes of every training batch: its part of ``ranks`` equal ones, in their order."""

    rank: int = 0
    ranks: int = 1
    before: int = 0
    """How many images in front of its part it makes too; those in front of the first part are the batch's last."""

    def size(self, batch_size: int) -> int:
        """How many images this process makes of every batch.

        Raises:
            UsageError: the parts would not be equal.
        """
        part, rest = divmod(batch_size, self.ranks)
        if rest:
            fit = sorted({max(self.ranks, batch_size - rest), batch_size - rest + self.ranks})
            raise UsageError(
                f"{self.ranks} processes cannot share batches of {batch_size} images equally; "
                f"take a batch size of {' or '.join(map(str, fit))}"
            )
        return self.before + part

    def cut(self, x: Tensor, batch_size: int) -> Tensor:
        """What belongs to the images of an epoch (..., N): the entries of those that this process makes, in order."""
        if self.ranks == 1:
            return x
        whole = min(batch_size, x.shape[-1])
        batches = x[..., : x.shape[-1] // whole * whole].reshape(*x.shape[:-1], -1, whole)
        end = (self.rank + 1) * whole // self.ranks
        return batches[..., torch.arange(end - self.size(whole), end) % whole].flatten(-2)


WHOLE = Share()


class BatchSource(Protocol):
    """Batches of one split, ready for the networks."""

    def __len__(self) -> int:
        """Steps in an epoch."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, C, H, W) float32 and targets (B,) int64 on the device, from step `first_step` of an epoch on.

        A function of the seed, `epoch` and the step alone, so that an interrupted run goes on exactly.
        """
        ...


class TileSource(Protocol):
    """Batches of one split to score, in which images may overlap."""

    def __len__(self) -> int:
        """Steps in an epoch."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor | Tile, Tensor]]:
        """As :meth:`BatchSource.epoch`; a tile holds its images as patches."""
        ...


S = TypeVar("S", bound=Samples)


def described_depth(bit_depth: int | None) -> dict[str, int]:
    """What a peer's config.json says of how its 16-bit images were read, where that is known."""
    return {} if bit_depth is None else {"bit_depth": bit_depth}


class BatchPlan(TypedDict):
    """What training batches hold.

    Attributes:
        batch_size: images in a batch.
        seed: of order and augmentation, 0 or more.
        views: how many differently augmented views of each image a batch holds, 1 by default; with more than one its
            images are (views, B, C, H, W). The first is that of a single one.
        images_per_class: how many images at least a batch holds of every class that is in it, 1 by default; see
            :class:`collegium.data.order.Order`.
        balanced: draw with replacement, every class as often as any other on average; by default every image is taken
            once an epoch.
        share: what one process makes of each batch, where others make the rest: the same images, augmented alike, that
            the whole batch would hold. B is then its size.
    """

    batch_size: int
    seed: int
    views: NotRequired[int]
    images_per_class: NotRequired[int]
    balanced: NotRequired[bool]
    share: NotRequired[Share]


@dataclass(frozen=True, kw_only=True)
class ClassificationData(abc.ABC, Generic[S]):
    """A classification data set: what peers train on, what scores them.

    Attributes:
        name: what tables and reports call it.
        train: images to train on.
        test: images that score, and never select anything.
        class_names: one name a class, in the order of the labels.
        mean: per channel, subtracted from what the networks are given.
        std: per channel, what it is then divided by.
        validation: images held out of training, for choosing between settings.
        notes: sentences a reader must know before believing a score; printed before training, kept with the result.
        transform: the user's own change of training images, see :data:`collegium.data.transforms.Transform`.

    Raises:
        UsageError: fewer than two classes, an empty split, a label outside 0..num_classes-1, `mean` or `std` without
            one (for std positive) value a channel.
    """

    labels_areas: ClassVar[bool] = True
    """Whether a label stands for all of an image, so that pasted parts of two images mix their labels by area."""

    name: str
    train: S
    test: S
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: S | None = None
    notes: tuple[str, ...] = ()
    transform: Transform | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise UsageError(f"{self.name} has {self.num_classes} classes: there is nothing to learn below 2")
        for name, split in self.splits.items():
            where = f"the {name} split of {self.name}"
            if len(split) == 0:
                raise UsageError(f"{where} is empty: it needs at least one image")
            self._check_targets(where, split)
        absent = tuple(note for note in self._absent() if note not in self.notes)
        object.__setattr__(self, "notes", self.notes + absent)
        if self.transform is not None:
            note = f"Training images are changed by {transform_name(self.transform)}."
            object.__setattr__(self, "notes", (*(n for n in self.notes if n != note), note))
        check_statistics(self.mean, self.std, self.in_channels)

    @property
    def splits(self) -> dict[str, S]:
        """Those that there are: train, validation, test."""
        validation = {} if self.validation is None else {"validation": self.validation}
        return {"train": self.train, **validation, "test": self.test}

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the networks are given."""

    @property
    def in_channels(self) -> int:
        return self.image_shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image_shape[1:]

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A short text that differs where pixels, labels, normalisation or augmentation do."""

    @abc.abstractmethod
    def training_batches(
        self,
        *,
        device: torch.device,
        channels_last: bool = True,
        **plan: Unpack[BatchPlan],
    ) -> BatchSource:
        """The training images, shuffled and augmented; a last batch that is not full is left out."""

    @abc.abstractmethod
    def scoring_batches(
        self, split: S, *, batch_size: int, device: torch.device, channels_last: bool = True
    ) -> BatchSource:
        """All images of a split in their own order, unchanged."""

    def tiles(self, split: S, *, batch_size: int, device: torch.device, channels_last: bool = True) -> TileSource:
        """The same, as tiles where the images are overlapping parts of a larger one."""
        return self.scoring_batches(split, batch_size=batch_size, device=device, channels_last=channels_last)

    @abc.abstractmethod
    def pictures(self, split: S) -> Tensor:
        """The images of a (small) split for people to look at: (N, C, H, W) uint8."""

    def preprocessing(self) -> dict[str, Any]:
        """What must be done to an image before a trained peer can be asked: kept in the peer's config.json."""
        return {"image_size": list(self.image_size), "mean": list(self.mean), "std": list(self.std)}

    def split_table(self) -> str | None:
        """Which samples each split holds, as CSV, where that is the library's choice and not the owner's."""
        return None

    def normalised_like(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The same images, normalised as those were that a network was trained on."""
        return dataclasses.replace(self, mean=mean, std=std)

    def _check_targets(self, where: str, split: S) -> None:
        targets = split.targets
        if targets.ndim != 1 or targets.dtype != torch.int64:
            raise UsageError(f"{where} has as labels {describe(targets)}: expected int64 of shape (N,)")
        if len(split) != len(targets):
            raise UsageError(f"{where} has {len(split)} images and {len(targets)} labels: give one label an image")
        wrong = (targets < 0) | (targets >= self.num_classes)
        if wrong.any():
            index = int(wrong.nonzero()[0])
            raise UsageError(
                f"{where} has label {int(targets[index])} at index {index}: with {self.num_classes} classes "
                f"labels run from 0 to {self.num_classes - 1}; number them so, or leave out images without a class "
                "(ignore_label)"
            )

    def _absent(self) -> list[str]:
        """What must be said of classes without training images."""
        there = {name: split.targets.bincount(minlength=self.num_classes) > 0 for name, split in self.splits.items()}
        trained, notes = there.pop("train"), []
        if not trained.all():
            notes.append(
                f"{self.name} has no training images of {self._some(~trained)}: no network can learn them; leave them "
                "out of class_names and labels, or add images."
            )
        for name, scored in there.items():
            if (scored & ~trained).any():
                notes.append(
                    f"The {name} split of {self.name} has images of {self._some(scored & ~trained)}, which training "
                    "lacks: all of them count as errors; leave them out, or add training images."
                )
        return notes

    def _some(self, classes: Tensor) -> str:
        """Some classes (num_classes,) in words."""
        names = [f"{label} ({self.class_names[label][:20]})" for label in classes.nonzero()[:3, 0].tolist()]
        more = int(classes.sum()) - len(names)
        return ("classes " if len(names) > 1 else "class ") + ", ".join(names) + (f" and {more} more" if more else "")


def at(values: Tensor | None, indices: Tensor) -> Tensor | None:
    """The values at `indices`, where there are values."""
    return None if values is None else values[indices]


def check_statistics(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Raises UsageError unless `mean` and `std` have one usable value for each of `channels`."""
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise UsageError(
                f"{name} has {len(values)} values for images of {channels} channels: give one value a channel"
            )
    if not all(value > 0 for value in std):
        raise UsageError(f"std is {std}: every channel needs a value above 0")


def check_order(where: str, given: Any) -> None:
    """Raises UsageError where the channels of one or many images stand in the wrong place.

    NumPy arrays are channels-last, tensors channels-first. The other order is recognised where this one gives an
    image that is not square and has neither 1 nor 3 channels, and the other one gives at most 4 channels, or a square.
    Whoever means such a shape gives it as a tensor in place of an array, or the reverse.
    """
    if given.ndim not in (3, 4):
        return
    array, sides = not isinstance(given, Tensor), tuple(given.shape[-3:])
    height, width, channels = sides if array else (*sides[1:], sides[0])
    first, second = (height, width) if array else (width, height)  # `first` would hold the channels
    square = second == channels
    if channels in (1, 3) or height == width or not (first <= 4 or square):
        return
    if array:
        right = f"channels-last, by transpose{(1, 2, 0) if given.ndim == 3 else (0, 2, 3, 1)}"
        other = "a tensor, channels-first"
    else:
        right = f"channels-first, by permute{(2, 0, 1) if given.ndim == 3 else (0, 3, 1, 2)}"
        other = "a NumPy array, channels-last"
    raise UsageError(
        f"{where} of shape {tuple(given.shape)} in {'a NumPy array' if array else 'a tensor'} would have {height} x "
        f"{width} pixels and {channels} channels: give them {right}, or, where this is meant, {other}"
    )


def describe(given: object) -> str:
    """An array's type and shape, or what else it is, for messages."""
    if hasattr(given, "dtype") and hasattr(given, "shape"):
        return f"{str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)}"
    return f"a {type(given).__name__}"
