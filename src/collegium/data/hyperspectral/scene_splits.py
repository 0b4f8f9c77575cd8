"""Training and test pixels of one scene, and how far the patches around them overlap.

A patch reaches half its side around its pixel. Where test pixels lie among training pixels, the network has seen
most of what it is tested on, as Liang et al., "On the Sampling Strategy for Evaluation of Spectral-Spatial Methods in
Hyperspectral Image Classification", IEEE JSTARS 2017, https://arxiv.org/abs/1605.05829, show.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator

SplitKind: TypeAlias = Literal["disjoint", "random"]
Array: TypeAlias = NDArray[Any]

_PIXELS, _BLOCKS = 0, 1  # what a stream of random numbers is for
SIDES = (64, 48, 32, 24, 16, 12, 8, 6, 4)  # of blocks, in pixels: the largest that serves every class is taken
BALANCE = (0.5, 0.0)  # how much of its due each class must have on either side, at least; the second where no side can


@dataclass(frozen=True)
class PixelSplit:
    """Positions of pixels as row * width + column, each sorted, all different.

    Attributes:
        train: (N,) int64
        validation: (V,) int64, may be empty.
        test: (T,) int64
        dropped: test pixels that were left out, as they lie inside a training patch.
        block: side of the blocks in pixels, None where pixels were drawn at random.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    dropped: int = 0
    block: int | None = None


def split_pixels(
    truth: Tensor,
    *,
    kind: SplitKind,
    patch: int,
    per_class: int | None,
    train_share: float,
    validation: float,
    block: int | None,
    seed: int,
    names: Sequence[str] | None = None,
) -> PixelSplit:
    """Deals the labelled pixels of a scene to training, validation and test.

    "random": of each class, training pixels are drawn anywhere, and all others test: the usual protocol of the
    field, which flatters. "disjoint": the scene is cut into square blocks, and about half of each class is dealt
    to training by whole blocks. Training and validation pixels are drawn from those, and the pixels of all other
    blocks test, except those that lie inside a training patch. What is in the training blocks and is not drawn is
    not used.

    With the same seed a smaller training sample lies within a larger one. Blocks of a given side are dealt alike for
    every size of the sample: give `block` where samples of several sizes are to be compared.

    Args:
        truth: (H, W) int64, the class of each pixel, -1 where it has none.
        kind: "disjoint" or "random".
        patch: side of the patches, odd.
        per_class: training pixels of each class; None to go by `train_share`.
        train_share: share of each class's labelled pixels to train on, where `per_class` is None.
        validation: share of each class's pixels to hold out for validation: of those in the training blocks, or of
            all where the split is random.
        block: side of the blocks in pixels; None for the largest of SIDES with which every class has a quarter of its
            pixels in training blocks and a quarter in others, or where none does so, enough pixels in both.
        seed: of blocks and pixels.
        names: what messages call the classes; their numbers by default.

    Raises:
        UsageError: a number is out of range, or a class has too few pixels.
    """
    if per_class is not None and per_class < 1:
        raise UsageError(f"the number of training pixels per class is {per_class}: give 1 or more")
    if not 0 < train_share < 1:
        raise UsageError(f"train_share is {train_share}: give a fraction between 0 and 1")
    if not 0 <= validation < 1:
        raise UsageError(f"the share held out for validation is {validation}: give 0, or a fraction below 1")
    if block is not None and block < 1:
        raise UsageError(f"blocks of {block} pixels cannot be made: give 1 or more")
    flat = truth.flatten()
    names = names or [str(label) for label in range(int(flat.max()) + 1)]
    members = [(flat == label).nonzero()[:, 0] for label in range(int(flat.max()) + 1)]
    wanted = [per_class or max(1, round(train_share * len(pixels))) for pixels in members]
    shuffled = [
        pixels[torch.randperm(len(pixels), generator=generator(seed, _PIXELS, label))]
        for label, pixels in enumerate(members)
    ]
    if kind == "random":
        if problem := _shortage(names, shuffled, wanted, validation):
            raise UsageError(problem)
        train, held, rest = _draw(shuffled, wanted, validation)
        return PixelSplit(_sorted(train), _sorted(held), _sorted(rest))

    share = max(0.5, 0.0 if per_class else train_share)
    problem = ""
    for balance, side in itertools.product(BALANCE, SIDES) if block is None else ((0.0, block),):
        training = _deal(truth, side, share, seed).flatten()
        inside = [pixels[training[pixels]] for pixels in shuffled]
        problem = _shortage(names, inside, wanted, validation, f" in the training blocks of {side} x {side} pixels")
        if problem or _imbalanced(inside, members, share, balance):
            continue
        train, held, _ = _draw(inside, wanted, validation)
        outside = [pixels[~training[pixels]] for pixels in members]
        covered = near(train, truth.shape, patch // 2).flatten()
        test = [pixels[~covered[pixels]] for pixels in outside]
        empty = [label for label, pixels in enumerate(test) if len(pixels) == 0]
        if not empty:
            dropped = sum(map(len, outside)) - sum(map(len, test))
            return PixelSplit(_sorted(train), _sorted(held), _sorted(torch.cat(test)), dropped, side)
        problem = f"class {names[empty[0]]} has no test pixel outside the training patches with blocks of {side} pixels"
    raise UsageError(f"{problem}: train on fewer pixels, take smaller patches or other blocks, or split at random")


def near(pixels: Tensor, shape: tuple[int, ...], distance: int) -> Tensor:
    """(H, W) bool: the positions within so many rows and columns of one of `pixels` (N,), itself included."""
    from scipy.ndimage import maximum_filter

    mask = np.zeros(shape, dtype=np.uint8)
    mask.reshape(-1)[pixels.numpy()] = 1
    return torch.from_numpy(maximum_filter(mask, size=2 * distance + 1, mode="constant") > 0)


def overlap(split: PixelSplit, shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """How many test pixels lie inside a training patch, and how many test patches share a pixel with one."""
    inside = near(split.train, shape, patch // 2).flatten()[split.test]
    touching = near(split.train, shape, patch - 1).flatten()[split.test]
    return int(inside.sum()), int(touching.sum())


def describe_split(split: PixelSplit, shape: tuple[int, ...], patch: int) -> str:
    """A sentence on how the pixels were dealt, and how far training and test patches overlap."""
    inside, touching = overlap(split, shape, patch)
    count = len(split.test)
    size = f"{patch} x {patch}"
    if split.block is None:
        return (
            f"Pixels were split at random, as is usual in the field, which flatters: {inside:,} of {count:,} test "
            f"pixels ({inside / count:.1%}) lie inside a training patch of {size} pixels, and {touching / count:.1%} "
            "of the test patches overlap one."
        )
    return (
        f"The split is spatially disjoint, in blocks of {split.block} x {split.block} pixels: {inside:,} of {count:,} "
        f"test pixels lie inside a training patch of {size} pixels ({split.dropped:,} that did were dropped), and "
        f"{touching / count:.1%} of the test patches overlap one.{_of_validation(split, shape, patch)}"
    )


def _of_validation(split: PixelSplit, shape: tuple[int, ...], patch: int) -> str:
    """How many validation pixels lie among the training pixels; nothing where there are none."""
    if len(split.validation) == 0:
        return ""
    inside = int(near(split.train, shape, patch // 2).flatten()[split.validation].sum())
    return (
        f" Validation pixels come from the training blocks: {inside:,} of {len(split.validation):,} lie inside a "
        "training patch, so their scores flatter."
    )


def _draw(classes: list[Tensor], wanted: list[int], validation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and other pixels. Training comes from the front, so that samples are nested."""
    held = [len(pixels) - round(validation * len(pixels)) for pixels in classes]
    return (
        torch.cat([pixels[:n] for pixels, n in zip(classes, wanted, strict=True)]),
        torch.cat([pixels[start:] for pixels, start in zip(classes, held, strict=True)]),
        torch.cat([pixels[n:start] for pixels, n, start in zip(classes, wanted, held, strict=True)]),
    )


def _shortage(
    names: Sequence[str], classes: list[Tensor], wanted: list[int], validation: float, where: str = ""
) -> str:
    """What is missing, or nothing. At random, one pixel must be left to test."""
    for name, pixels, n in zip(names, classes, wanted, strict=True):
        free = len(pixels) - round(validation * len(pixels)) - (0 if where else 1)
        if free < n:
            return f"class {name} has {max(free, 0)} pixels to train on{where}, not {n}"
    return ""


def _deal(truth: Tensor, side: int, share: float, seed: int) -> Tensor:
    """(H, W) bool: the blocks for training, in which each class has about `share` of its pixels.

    Classes in few blocks choose first. Each block, in random order, goes to the side that is further behind.
    """
    height, width = truth.shape
    columns = -(-width // side)
    block = (torch.arange(height) // side)[:, None] * columns + torch.arange(width) // side  # (H, W)
    count = int(block.max()) + 1
    classes = int(truth.max()) + 1
    labelled = truth >= 0
    pixels = torch.bincount((truth * count + block)[labelled], minlength=classes * count).view(classes, count)
    order = torch.randperm(count, generator=generator(seed, _BLOCKS, side)).tolist()
    training = torch.full((count,), -1)
    for label in sorted(range(classes), key=lambda c: (int((pixels[c] > 0).sum()), c)):
        of_class = pixels[label]
        total = int(of_class.sum())
        for b in order:
            if of_class[b] > 0 and training[b] < 0:
                missing = share * total - int(of_class[training == 1].sum())
                missing_in_test = (1 - share) * total - int(of_class[training == 0].sum())
                training[b] = int(missing >= missing_in_test)
    return (training == 1)[block]


def _imbalanced(inside: list[Tensor], members: list[Tensor], share: float, balance: float) -> bool:
    """Whether a class has less than `balance` of what it should have in the training blocks, or outside of them."""
    for some, every in zip(inside, members, strict=True):
        outside = len(every) - len(some)
        if len(some) < balance * share * len(every) or outside < balance * (1 - share) * len(every):
            return True
    return False


def _sorted(pixels: Tensor) -> Tensor:
    return pixels.sort().values
