"""Images in memory, and batches of them, cropped, flipped and normalised at once on the device where they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator, global_state_kept, seed_globally

from .interface import WHOLE, Share, at, check_statistics
from .order import AUGMENTATION, Order, times_before
from .transforms import Transform, transformed

PaddingMode: TypeAlias = Literal["zeros", "reflect"]


@dataclass(frozen=True)
class Split:
    """Images and labels held in memory.

    Attributes:
        images: (N, C, H, W) uint8, memory laid out channels-last.
        targets: (N,) int64, the class of each image.
        true_targets: (N,) int64, the right classes, where `targets` are known to be wrong in part; else None.
        keys: (N,) int64, see :class:`collegium.data.splits.Keyed`.
        files: the path of the file that each image was read from, None where they come from elsewhere.
    """

    images: Tensor
    targets: Tensor
    true_targets: Tensor | None = None
    keys: Tensor | None = None
    files: tuple[str, ...] | None = None

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
        files = None if self.files is None else tuple(self.files[k] for k in indices.tolist())
        return Split(images, self.targets[indices], at(self.true_targets, indices), at(self.keys, indices), files)


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


NO_AUGMENTATION = Augmentation(padding=0, flip=False)


class Normalisation:
    """(pixel / 255 - mean) / std.

    Args:
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        width: of the images, in pixels.
        device: where the images lie.
        channels_last: the memory layout of the result; otherwise contiguous (B, C, H, W).
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        width: int,
        device: torch.device,
        *,
        channels_last: bool = True,
    ) -> None:
        self.channels_last = channels_last
        deviation = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean, dtype=torch.float64) / deviation
        # Repeated over a row of pixels: a vector of C = 3 numbers is slow to broadcast.
        self._scale = scale.float().repeat(width).to(device)  # (W * C,)
        self._shift = shift.float().repeat(width).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, H, W, C) uint8 -> (B, C, H, W) float32."""
        flat = images.flatten(2).to(torch.float32)  # (B, H, W * C)
        result = torch.addcmul(self._shift, flat, self._scale).view(images.shape).permute(0, 3, 1, 2)
        # Not contiguous(), which leaves the strides of images of one channel as they are: both layouts fit them.
        return result if self.channels_last else result.clone(memory_format=torch.contiguous_format)


def check_place(epoch: int, first_step: int, steps: int) -> None:
    """Raises UsageError where an epoch of `steps` steps cannot be made from `first_step` on."""
    if epoch < 0:
        raise UsageError(f"epoch {epoch} cannot be made: epochs count from 0")
    if not 0 <= first_step <= steps:
        raise UsageError(f"step {first_step} cannot be the first: an epoch has steps 0 to {steps - 1}")


class Batches:
    """Batches of normalised images, made on the device where the split lies.

    Every epoch and every step can be made again on its own: the order is a function of (seed, epoch), the
    augmentation of (seed, epoch, step). So an interrupted run goes on in the middle of an epoch exactly.
    Random numbers are drawn on the CPU, so they are the same for every device.

    Args:
        split: N images (C, H, W) and their labels.
        batch_size: images in a batch.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        seed: of order and augmentation, 0 or more.
        augmentation: what is done at random to each image; None for nothing. Padding "zeros" adds pixels
            that are black before normalisation.
        transform: the user's own change of each image after that, on the CPU.
        shuffle: draw the order of each epoch; otherwise the order of the split.
        drop_last: leave out a last batch that is not full, except where it is the only one.
        channels_last: the memory layout of the images; otherwise contiguous (B, C, H, W).
        views: see :class:`BatchPlan`, and so for ``images_per_class`` and ``share``.
        images_per_class: see there.
        balanced: see there.
        share: see there.

    Raises:
        UsageError: an empty split, a batch size below 1, a negative seed, mean or std without one value a
            channel, images too small for the augmentation, batches that cannot be shared equally.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        augmentation: Augmentation | None = None,
        transform: Transform | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
        channels_last: bool = True,
        views: int = 1,
        images_per_class: int = 1,
        balanced: bool = False,
        share: Share = WHOLE,
    ) -> None:
        _, channels, height, width = split.images.shape
        check_statistics(tuple(mean), tuple(std), channels)
        self.augmentation = augmentation or NO_AUGMENTATION
        self.augmentation.check((height, width))

        self.batch_size, self.seed, self.views, self.share = batch_size, seed, views, share
        self.transform = transform
        self._order = Order(
            split.targets,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            images_per_class=images_per_class,
            balanced=balanced,
        )
        self._images = split.images.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C); a view where channels-last
        self._targets = split.targets
        device = self._device = split.images.device
        self._rows, self._columns = torch.arange(height, device=device), torch.arange(width, device=device)
        self._normalise = Normalisation(mean, std, width, device, channels_last=channels_last)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch.

        Args:
            epoch: 0, 1, ...
            first_step: where to go on; earlier batches are not made.

        Returns:
            An iterator over images (B, C, H, W) float32 and targets (B,) int64.

        Raises:
            UsageError: `epoch` is negative, or `first_step` is not within 0..len(self).
        """
        check_place(epoch, first_step, len(self))
        return self._steps(epoch, first_step)

    def normalise(self, images: Tensor) -> Tensor:
        """(pixel / 255 - mean) / std: (B, C, H, W) uint8 -> (B, C, H, W) float32."""
        return self._normalise(images.permute(0, 2, 3, 1).contiguous())

    def _steps(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        # All draws of an epoch are made and moved at once: steps then need no transfer from the host.
        order = self._order.epoch(epoch)
        count, padding = len(order), self.augmentation.padding
        before = None if self.transform is None else self.share.cut(times_before(order), self.batch_size)
        order = self._draw(order)
        random = generator(self.seed, AUGMENTATION, epoch)
        draws = [
            (
                self._draw(torch.randint(-padding, padding + 1, (2, count), generator=random)),
                self._draw(torch.randint(2, (count,), generator=random) > 0),
            )
            for _ in range(self.views)
        ]
        size = self.share.size(min(self.batch_size, count))
        for step in range(first_step, len(self)):
            here = slice(step * size, (step + 1) * size)
            index = order[here]
            views = [self._pick(index, shifts[0, here], shifts[1, here], flips[here]) for shifts, flips in draws]
            if self.transform is not None and before is not None:
                views = self._transformed(self.transform, views, epoch, index.tolist(), before[here].tolist())
            images = self._normalise(views[0] if self.views == 1 else torch.cat(views))
            if self.views > 1:
                images = images.reshape(self.views, -1, *images.shape[1:])
            yield images, self._targets[index]

    def _pick(self, index: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
        """Images at `index` (B,), each moved by its shifts (B,) and flipped, as (B, H, W, C) uint8."""
        if self.augmentation.padding == 0 and not self.augmentation.flip:
            return self._images[index]
        count, height, width, channels = self._images.shape
        columns = self._columns.expand(len(index), width)
        if self.augmentation.flip:
            columns = torch.where(flip[:, None], columns.flip(1), columns)
        rows, columns = (
            self._rows + down[:, None],
            columns + right[:, None],
        )  # (B, H), (B, W): may lie outside
        if self.augmentation.padding_mode == "reflect":
            inside = None
            rows, columns = _reflect(rows, height), _reflect(columns, width)
        else:
            wanted_rows, rows = rows, rows.clamp(0, height - 1)
            wanted_columns, columns = columns, columns.clamp(0, width - 1)
            inside = (wanted_rows == rows)[:, :, None] & (wanted_columns == columns)[:, None, :]
        # One gather over the pixels of the whole set: the same as images[index, rows, columns], but copying
        # pixels whole, which is several times faster on a CPU.
        pixel = ((index[:, None] * height + rows) * width)[:, :, None] + columns[:, None, :]  # (B, H, W)
        images = self._images.view(-1, channels).index_select(0, pixel.flatten())
        images = images.view(len(index), height, width, channels)
        return images if inside is None else images * inside[..., None]

    def _transformed(
        self, transform: Transform, views: list[Tensor], epoch: int, index: list[int], before: list[int]
    ) -> list[Tensor]:
        """Views (B, H, W, C) of the images `index`, each image changed with draws of its own."""
        made = []
        with global_state_kept():
            for view, images in enumerate(views):
                changed = []
                for image, place, times in zip(images.permute(0, 3, 1, 2).cpu(), index, before, strict=True):
                    seed_globally(self.seed, AUGMENTATION, epoch, place, times, view)
                    changed.append(transformed(transform, image).permute(1, 2, 0))
                made.append(torch.stack(changed).to(self._device))
        return made

    def _draw(self, draws: Tensor) -> Tensor:
        """What was drawn for an epoch (..., N): of it what this process needs, on the device."""
        return self._to_device(self.share.cut(draws, self.batch_size))

    def _to_device(self, draws: Tensor) -> Tensor:
        if self._device.type == "cuda":
            draws = draws.pin_memory()  # else the copy would wait for the device
        return draws.to(self._device, non_blocking=self._device.type == "cuda")


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions within a side's length outside 0..size-1, mirrored at the edge pixels."""
    last = size - 1
    return last - (last - position.abs()).abs()
