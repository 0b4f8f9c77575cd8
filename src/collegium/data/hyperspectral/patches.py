"""Patches around the pixels of one scene, cut on the fly on the device where the scene lies."""

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator
from collegium.tiles import Tile

from ..batches import check_place
from ..interface import WHOLE, BatchPlan, ClassificationData, Share, at, describe
from ..order import AUGMENTATION, Order

_TURNS = 8  # the ways to turn and mirror a square
SCORING_BYTES = 2**25  # of patches in one batch to score, at most


@dataclass(frozen=True)
class Pixels:
    """Pixels of one scene, each the centre of a patch.

    Attributes:
        positions: (N,) int64, row * width + column.
        targets: (N,) int64, the class of each pixel.
        true_targets: (N,) int64, the right classes, where `targets` are known to be wrong in part; else None.
    """

    positions: Tensor
    targets: Tensor
    true_targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def files(self) -> None:
        """A pixel has no file of its own."""
        return None

    def subset(self, indices: Tensor) -> "Pixels":
        """The pixels at `indices` (K,), in that order."""
        return Pixels(self.positions[indices], self.targets[indices], at(self.true_targets, indices))


@dataclass(frozen=True)
class Components:
    """A linear map from bands to fewer channels: (spectrum - centre) @ directions.T.

    Attributes:
        centre: (B,) float64
        directions: (K, B) float64, orthonormal, by falling variance.
    """

    centre: Tensor
    directions: Tensor

    def project(self, spectra: Tensor) -> Tensor:
        """(N, B) -> (N, K), float32"""
        directions = self.directions.to(torch.float32)
        return spectra.to(torch.float32) @ directions.T - self.centre.to(torch.float32) @ directions.T


class PatchBatches:
    """Batches of patches, the scene mirrored at its border, each patch turned and mirrored at random if wanted.

    The order is a function of (seed, epoch) and the turns of (seed, epoch, step), as for
    :class:`collegium.data.Batches`. Never more patches than one batch are in memory.

    Args:
        scene: (H, W, C) float32, normalised, on the device where batches are wanted.
        pixels: N centres of patches, with their labels.
        patch: side of the patches, odd, at most twice the scene's shorter side less one.
        batch_size: patches in a batch.
        seed: of order and turns, 0 or more.
        turn: turn each patch by a multiple of 90 degrees and mirror it half of the time, all 8 ways alike likely.
        shuffle: draw the order of each epoch; otherwise the order of `pixels`.
        drop_last: leave out a last batch that is not full, except where it is the only one.
        channels_last: the memory layout of the patches; otherwise contiguous (B, C, H, W).
        views: see :class:`BatchPlan`, and so for ``images_per_class`` and ``share``.
        images_per_class: see there.
        balanced: see there.
        share: see there.

    Raises:
        UsageError: no pixels, a batch size below 1, a negative seed, a patch that is even or too large, batches that
            cannot be shared equally.
    """

    def __init__(
        self,
        scene: Tensor,
        pixels: Pixels,
        *,
        patch: int,
        batch_size: int,
        seed: int = 0,
        turn: bool = False,
        shuffle: bool = False,
        drop_last: bool = False,
        channels_last: bool = True,
        views: int = 1,
        images_per_class: int = 1,
        balanced: bool = False,
        share: Share = WHOLE,
    ) -> None:
        check_patch(patch, scene.shape)
        device = self._device = scene.device
        self._height, self._width, channels = scene.shape
        self._spectra = scene.reshape(-1, channels)
        self._positions, self._targets = pixels.positions.to(device), pixels.targets.to(device)
        self._offsets = _turned_offsets(patch)[:, : _TURNS if turn else 1].to(device)  # (2, ways, p, p)
        self.patch, self.batch_size, self.seed, self.views, self.share = patch, batch_size, seed, views, share
        self.channels_last = channels_last
        self._order = Order(
            pixels.targets,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            images_per_class=images_per_class,
            balanced=balanced,
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Patches (B, C, p, p) float32 and targets (B,) int64, from step `first_step` of an epoch on.

        Raises:
            UsageError: `epoch` is negative, or `first_step` is not within 0..len(self).
        """
        check_place(epoch, first_step, len(self))
        return self._steps(epoch, first_step)

    def _steps(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        # All draws of an epoch are made and moved at once: steps then need no transfer from the host.
        order = self._order.epoch(epoch)
        count, ways = len(order), self._offsets.shape[1]
        random = generator(self.seed, AUGMENTATION, epoch)
        turns = [torch.randint(ways, (count,), generator=random) for _ in range(self.views)]
        order, *turns = [self._to_device(self.share.cut(drawn, self.batch_size)) for drawn in (order, *turns)]
        size = self.share.size(min(self.batch_size, count))
        for step in range(first_step, len(self)):
            here = slice(step * size, (step + 1) * size)
            index = order[here]
            views = [self.cut(self._positions[index], drawn[here]) for drawn in turns]
            yield views[0] if self.views == 1 else torch.stack(views), self._targets[index]

    def cut(self, positions: Tensor, turns: Tensor) -> Tensor:
        """The patches around `positions` (B,), each turned in its way (B,): (B, C, p, p)."""
        down, right = self._offsets[0, turns], self._offsets[1, turns]  # (B, p, p)
        rows = _mirror((positions // self._width)[:, None, None] + down, self._height)
        columns = _mirror((positions % self._width)[:, None, None] + right, self._width)
        # One gather of whole spectra, which lie together in memory.
        picked = self._spectra.index_select(0, (rows * self._width + columns).flatten())
        patches = picked.view(len(positions), self.patch, self.patch, -1).permute(0, 3, 1, 2)
        return patches if self.channels_last else patches.clone(memory_format=torch.contiguous_format)

    def _to_device(self, draws: Tensor) -> Tensor:
        if self._device.type == "cuda":
            draws = draws.pin_memory()  # else the copy would wait for the device
        return draws.to(self._device, non_blocking=self._device.type == "cuda")


class TileBatches:
    """The patches of a split in its order, for scoring: as tiles, or one by one where these have fewer pixels.

    Args:
        scene: (H, W, C) float32, normalised, on the device.
        pixels: the centres of the patches, and their classes.
        patch: side of the patches.
        batch_size: patches in a tile; the last one has the rest.
        channels_last: whether images have this memory layout.

    Raises:
        UsageError: as for :class:`PatchBatches`.
    """

    def __init__(self, scene: Tensor, pixels: Pixels, *, patch: int, batch_size: int, channels_last: bool) -> None:
        self._apart = PatchBatches(scene, pixels, patch=patch, batch_size=batch_size, channels_last=channels_last)
        self._scene, self._pixels = scene, pixels

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._apart)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor | Tile, Tensor]]:
        """Tiles, or patches (B, C, p, p) float32, and classes (B,) int64, from step `first_step` of an epoch on.

        Raises:
            UsageError: as for :class:`PatchBatches`.
        """
        check_place(epoch, first_step, len(self))
        device, size = self._scene.device, self._apart.batch_size
        for step in range(first_step, len(self)):
            here = slice(step * size, (step + 1) * size)
            yield self._tile_or_patches(self._pixels.positions[here]), self._pixels.targets[here].to(device)

    def _tile_or_patches(self, positions: Tensor) -> Tile | Tensor:
        """The smallest tile with the patches around `positions` (B,), or the patches where these have fewer pixels."""
        height, width, _ = self._scene.shape
        patch = self._apart.patch
        corners = torch.stack([positions // width, positions % width]) - patch // 2
        first, last = corners.amin(1), corners.amax(1)
        if int((last - first + patch).prod()) >= len(positions) * patch**2:
            device = self._scene.device
            return self._apart.cut(positions.to(device), torch.zeros_like(positions).to(device))
        sides = [
            _mirror(torch.arange(int(a), int(b) + patch), side).to(self._scene.device)
            for a, b, side in zip(first, last, (height, width), strict=True)
        ]
        piece = self._scene.index_select(0, sides[0]).index_select(1, sides[1]).permute(2, 0, 1)[None]
        if not self._apart.channels_last:
            piece = piece.clone(memory_format=torch.contiguous_format)
        return Tile(piece, patch, (corners - first[:, None]).to(self._scene.device))


@dataclass(frozen=True, kw_only=True)
class PatchData(ClassificationData[Pixels]):
    """Labelled pixels of one scene, seen as patches around them.

    `mean` and `std` are per channel, in the units of `cube`.

    Attributes:
        cube: (H, W, C) float32: the scene's bands, those that were picked, projected where `components` says so;
            not yet normalised.
        colours: (H, W, 3) uint8, the scene for people to look at.
        patch: side of the patches, odd; 1 is a spectrum alone.
        turn: whether training patches are turned by multiples of 90 degrees and mirrored at random.
        bands: the bands that were picked of the sensor's, counted from 0.
        components: how the bands became channels; None where each band is one.

    Raises:
        UsageError: as ClassificationData; or the patch is even or too large for the scene, a position lies outside
            it, or the splits share a pixel.
    """

    labels_areas = False  # the label is the centre pixel's

    cube: Tensor
    colours: Tensor
    patch: int
    turn: bool
    bands: tuple[int, ...]
    components: Components | None = None

    def __post_init__(self) -> None:
        if self.cube.ndim != 3 or self.cube.dtype != torch.float32:
            raise UsageError(f"the scene {self.name} is {describe(self.cube)}: expected float32 (H, W, C)")
        check_patch(self.patch, self.cube.shape)
        if self.transform is not None:
            raise UsageError(f"{self.name} holds patches of a scene, which no transform changes: leave it out")
        super().__post_init__()
        together = torch.cat([split.positions for split in self.splits.values()])
        if together.min() < 0 or together.max() >= self.cube[..., 0].numel():
            raise UsageError(f"a pixel of {self.name} lies outside its scene of {self.size}")
        if len(torch.unique(together)) < len(together):
            raise UsageError(f"a pixel of {self.name} is in two splits, or twice in one")

    @property
    def size(self) -> str:
        """ "610 x 340 pixels" """
        return f"{self.cube.shape[0]} x {self.cube.shape[1]} pixels"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.cube.shape[2], self.patch, self.patch

    def fingerprint(self) -> str:
        settings = (self.class_names, self.mean, self.std, self.patch, self.turn, self.bands)
        digest = hashlib.sha1(repr(settings).encode())
        digest.update(self.cube.cpu().numpy().tobytes())
        for name, split in self.splits.items():
            digest.update(name.encode())
            digest.update(split.positions.cpu().numpy().tobytes())
            digest.update(split.targets.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def training_batches(
        self,
        *,
        device: torch.device,
        channels_last: bool = True,
        **plan: Unpack[BatchPlan],
    ) -> PatchBatches:
        return PatchBatches(
            self.normalised.to(device),
            self.train,
            patch=self.patch,
            turn=self.turn,
            shuffle=True,
            drop_last=True,
            channels_last=channels_last,
            **plan,
        )

    def scoring_batches(
        self, split: Pixels, *, batch_size: int, device: torch.device, channels_last: bool = True
    ) -> PatchBatches:
        """All patches of a split in its order; batches are smaller than asked where patches are large."""
        return PatchBatches(
            self.normalised.to(device),
            split,
            patch=self.patch,
            batch_size=self._fitting(batch_size),
            channels_last=channels_last,
        )

    def tiles(self, split: Pixels, *, batch_size: int, device: torch.device, channels_last: bool = True) -> TileBatches:
        """All patches of a split in its order; tiles hold fewer than asked where patches are large."""
        return TileBatches(
            self.normalised.to(device),
            split,
            patch=self.patch,
            batch_size=self._fitting(batch_size),
            channels_last=channels_last,
        )

    def _fitting(self, batch_size: int) -> int:
        return min(batch_size, max(1, SCORING_BYTES // (4 * self.in_channels * self.patch**2)))

    def pictures(self, split: Pixels) -> Tensor:
        """False-colour patches (N, 3, p, p) uint8."""
        batches = PatchBatches(
            self.colours, split, patch=self.patch, batch_size=max(1, len(split)), channels_last=False
        )
        ((patches, _),) = batches.epoch(0)
        return patches

    def preprocessing(self) -> dict[str, Any]:
        """Bands are picked, projected, then normalised; a patch reaches over the scene's border mirrored."""
        found = self.components
        projection = found and {"centre": found.centre.tolist(), "directions": found.directions.tolist()}
        return super().preprocessing() | {
            "patch": self.patch,
            "border": "mirrored",
            "bands": list(self.bands),
            "components": projection,
        }

    def split_table(self) -> str:
        """Every pixel that is used, as CSV: split, row, column (both from 0) and the name of its class."""
        width = self.cube.shape[1]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["split", "row", "column", "class"])
        for name, split in self.splits.items():
            for position, target in zip(split.positions.tolist(), split.targets.tolist(), strict=True):
                writer.writerow([name, position // width, position % width, self.class_names[target]])
        return text.getvalue()

    @cached_property
    def normalised(self) -> Tensor:
        """(H, W, C) float32: what patches are cut from."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        return torch.addcmul((-mean / std).float(), self.cube, (1 / std).float())


def check_patch(patch: int, shape: tuple[int, ...]) -> None:
    """Raises UsageError unless patches of that side can be cut from a scene of shape (H, W, ...)."""
    height, width = shape[:2]
    if patch < 1 or patch % 2 == 0:
        raise UsageError(f"a patch of {patch} x {patch} pixels has no pixel in its centre: give an odd side")
    if patch // 2 >= min(height, width) and patch > 1:
        raise UsageError(
            f"patches of {patch} x {patch} pixels are too large for a scene of {height} x {width}: "
            f"give a side of at most {2 * min(height, width) - 1}"
        )


def _turned_offsets(patch: int) -> Tensor:
    """(2, 8, p, p): rows and columns from the centre to each place of a patch, in 8 ways; the first as it is."""
    reach = torch.arange(patch) - patch // 2
    plain = torch.stack(torch.meshgrid(reach, reach, indexing="ij"))  # (2, p, p)
    turned = [torch.rot90(plain, k, (1, 2)) for k in range(4)]
    return torch.stack([*turned, *(way.flip(2) for way in turned)], 1)


def _mirror(position: Tensor, size: int) -> Tensor:
    """Positions within a side's length outside 0..size-1, mirrored at the edge pixels."""
    last = size - 1
    return last - (last - position.abs()).abs()
