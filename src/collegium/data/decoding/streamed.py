"""Data sets whose images are decoded by worker processes while the networks train."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from collegium.seeds import global_state_kept, seed_globally

from ..batches import Normalisation, check_place
from ..interface import WHOLE, BatchPlan, ClassificationData, Share, at, described_depth
from ..order import AUGMENTATION, Order, times_before
from ..transforms import Transform, transform_name, transformed
from ..views import Part, Ready, View, Views
from .image_files import ImageFiles
from .source import Source
from .workers import Crew, default_workers

Task = tuple[int, list[int], list[int]]
"""An epoch, places of a split, and how often each image has been in that epoch before."""


@dataclass(frozen=True)
class StreamedSplit:
    """Images that are not in memory, and their labels.

    Attributes:
        source: where the images come from.
        indices: (N,) int64, which images of the source.
        targets: (N,) int64, the class of each.
        true_targets: (N,) int64, the right classes, where `targets` are known to be wrong in part; else None.
        keys: (N,) int64, see :class:`collegium.data.splits.Keyed`.
    """

    source: Source
    indices: Tensor
    targets: Tensor
    true_targets: Tensor | None = None
    keys: Tensor | None = None

    @classmethod
    def of(cls, source: Source, targets: Tensor, keys: Tensor | None = None) -> "StreamedSplit":
        """All images of a source."""
        return cls(source, torch.arange(len(source)), targets, keys=keys)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def files(self) -> tuple[str, ...] | None:
        """The path of each image's file, None where they come from elsewhere."""
        if not isinstance(self.source, ImageFiles):
            return None
        return tuple(str(self.source.path(k)) for k in self.indices.tolist())

    def subset(self, indices: Tensor) -> "StreamedSplit":
        """The images at `indices` (K,), in that order."""
        truth, keys = at(self.true_targets, indices), at(self.keys, indices)
        return StreamedSplit(self.source, self.indices[indices], self.targets[indices], truth, keys)


@dataclass(frozen=True, kw_only=True)
class StreamedData(ClassificationData[StreamedSplit]):
    """A classification data set whose images are decoded while the networks train.

    Attributes:
        channels: of every image.
        views: how images become those of one size, at random for training.
        workers: processes that decode; None for one for each CPU but one. The batches do not depend on it.
        bit_depth: of 16-bit files, where it is known.

    `mean` and `std` are of pixels scaled to [0, 1].
    """

    channels: int
    views: Views
    workers: int | None = None
    bit_depth: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, *self.views.image_size

    def fingerprint(self) -> str:
        digest = hashlib.sha1(repr((self.class_names, self.mean, self.std, self.views, self.channels)).encode())
        if self.transform is not None:
            digest.update(transform_name(self.transform).encode())
        for split in self.splits.values():
            digest.update(split.source.fingerprint(split.indices).encode())
            digest.update(split.targets.numpy().tobytes())
        return digest.hexdigest()[:16]

    def training_batches(
        self,
        *,
        device: torch.device,
        channels_last: bool = True,
        **plan: Unpack[BatchPlan],
    ) -> "StreamedBatches":
        return StreamedBatches(
            self.train,
            _then(self.views.training(self.mean), self.transform),
            self._normalisation(device, channels_last),
            device=device,
            workers=self.workers,
            **plan,
        )

    def scoring_batches(
        self, split: StreamedSplit, *, batch_size: int, device: torch.device, channels_last: bool = True
    ) -> "StreamedBatches":
        return StreamedBatches(
            split,
            self.views.scoring(),
            self._normalisation(device, channels_last),
            batch_size=batch_size,
            device=device,
            training=False,
            workers=self.workers,
        )

    def _normalisation(self, device: torch.device, channels_last: bool) -> Normalisation:
        return Normalisation(self.mean, self.std, self.image_size[1], device, channels_last=channels_last)

    def pictures(self, split: StreamedSplit) -> Tensor:
        everything = list(range(len(split)))
        images, _ = _Maker(split, self.views.scoring(), seed=0, views=1)((0, everything, [0] * len(split)))
        return images.permute(0, 3, 1, 2)

    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing() | self.views.described() | described_depth(self.bit_depth)


class StreamedBatches:
    """Batches of normalised images that worker processes decode.

    The order is a function of (seed, epoch), and what is done at random to an image of (seed, epoch, its index in
    the source, how often it has been in the epoch before), so an interrupted run goes on in the middle of an epoch
    exactly, with any number of workers.

    Args:
        split: N images and their labels.
        view: what is done to each image.
        normalise: what is done to the batch on the device.
        batch_size: images in a batch.
        device: where batches go.
        seed: of order and augmentation, 0 or more.
        training: shuffle, leave out a last batch that is not full (except where it is the only one), and keep the
            workers from one epoch to the next.
        workers: processes that decode, 0 for none; None for one for each CPU but one.
        views: see :class:`BatchPlan`, and so for ``images_per_class`` and ``share``; each image is read once for all.
        images_per_class: see there.
        balanced: see there.
        share: see there.

    Raises:
        UsageError: an empty split, a batch size below 1, a negative seed or number of workers, batches that cannot be
            shared equally.
    """

    def __init__(
        self,
        split: StreamedSplit,
        view: View,
        normalise: Normalisation,
        *,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        training: bool = True,
        workers: int | None = None,
        views: int = 1,
        images_per_class: int = 1,
        balanced: bool = False,
        share: Share = WHOLE,
    ) -> None:
        self.batch_size, self.seed, self.training, self.views, self.share = batch_size, seed, training, views, share
        self._device, self._normalise = device, normalise
        self._order = Order(
            split.targets,
            batch_size=batch_size,
            seed=seed,
            shuffle=training,
            drop_last=training,
            images_per_class=images_per_class,
            balanced=balanced,
        )
        self._crew = Crew(
            _Maker(split, view, seed, views),
            default_workers() if workers is None else workers,
            pin_memory=device.type == "cuda",
            keep=training,
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, to be read to its end (or left) before the next is begun.

        Args:
            epoch: 0, 1, ...
            first_step: where to go on; earlier batches are not made.

        Returns:
            An iterator over images (B, C, H, W) float32 and targets (B,) int64, on the device.

        Raises:
            UsageError: `epoch` is negative, or `first_step` is not within 0..len(self).
            DataError: an image cannot be read.
        """
        check_place(epoch, first_step, len(self))
        return self._steps(epoch, first_step)

    def _steps(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        whole = self._order.epoch(epoch)
        order, before = (self.share.cut(x, self.batch_size) for x in (whole, times_before(whole)))
        size = self.share.size(min(self.batch_size, len(whole)))
        steps = [slice(step * size, (step + 1) * size) for step in range(first_step, len(self))]
        tasks = [(epoch, order[here].tolist(), before[here].tolist()) for here in steps]
        pinned = self._device.type == "cuda"
        for images, targets in self._crew.run(tasks):
            ready = self._normalise(images.to(self._device, non_blocking=pinned))
            if self.views > 1:
                ready = ready.reshape(self.views, -1, *ready.shape[1:])
            yield ready, targets.to(self._device, non_blocking=pinned)


class _Then(View):
    """A view, and then the user's own change of it."""

    def __init__(self, view: View, transform: Transform) -> None:
        self.view, self.transform = view, transform

    def part(self, height: int, width: int) -> Part:
        return self.view.part(height, width)

    def finish(self, pixels: Tensor) -> Tensor:
        return transformed(self.transform, self.view.finish(pixels))


def _then(view: View, transform: Transform | None) -> View:
    return view if transform is None else _Then(view, transform)


class _Maker:
    """Makes the batch of an epoch at some places of a split."""

    def __init__(self, split: StreamedSplit, view: View, seed: int, views: int) -> None:
        self.split, self.view, self.seed, self.views = split, view, seed, views
        self.redraws = isinstance(view.view if isinstance(view, _Then) else view, Ready)  # the source draws the view

    def __call__(self, task: Task) -> tuple[Tensor, Tensor]:
        """(views * B, H, W, C) uint8, view after view, and (B,) int64."""
        epoch, places, before = task
        with global_state_kept():  # in the training process it is the training's own
            indices = self.split.indices[places].tolist()
            images = [self._views(epoch, *image) for image in zip(indices, before, strict=True)]
        return torch.stack(images, 1).flatten(0, 1), self.split.targets[places]

    def _views(self, epoch: int, index: int, before: int) -> Tensor:
        """(views, H, W, C)"""
        seed_globally(self.seed, AUGMENTATION, epoch, index, *([before] if before else []))
        # A source that draws the view itself is read for each.
        readings, views = (self.views, 1) if self.redraws else (1, self.views)

        def plan(height: int, width: int) -> list[Part]:
            return [self.view.part(height, width) for _ in range(views)]

        parts = [part for _ in range(readings) for part in self.split.source.parts(index, plan)]
        made = []
        for view, part in enumerate(parts):
            seed_globally(self.seed, AUGMENTATION, epoch, index, before, view)  # the first is that of a single one
            made.append(self.view.finish(part).permute(1, 2, 0))
        return torch.stack(made)
