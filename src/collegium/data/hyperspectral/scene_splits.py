"""Training and test pixels of one scene, and how far the patches around them overlap.

A patch reaches half its side around its pixel. Where test pixels lie among training pixels, the network has seen
most of what it is tested on, as Liang et al., "On the Sampling Strategy for Evaluation of Spectral-Spatial Methods in
Hyperspectral Image Classification", IEEE JSTARS 2017, https://arxiv.org/abs/1605.05829, show.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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
TRIES, ROUND = 180, 6  # of a search, throws of blocks of one side, and of those on one grid
LEFT = 0.1  # of each class, what a search wants to leave to test


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

    Blocks are dealt class by class, those in fewest blocks first. Each block of a class that is not dealt yet goes, in
    random order, to the side that is further behind. Where this leaves a class without enough training pixels or
    without test pixels, a search deals blocks again, up to TRIES times (a third of it for each of SIDES). A class of
    which less than the share LEFT could test is now cut in two by a line in a random direction, and what lies on one
    side of it trains: a random part that is enough to draw from and at most half. Classes that were served keep their
    draws, and every ROUND tries the grid of blocks is moved at random. The first split that leaves LEFT of every class
    to test is taken, else the one that leaves most of the class that comes off worst. So a split is drawn by the seed
    and the labels alone, never by what a network makes of it; but searched ones keep training and test pixels of small
    classes further apart than chance does, and train on a smaller part of them.

    With the same seed a smaller training sample lies within a larger one, and blocks of a given side are dealt alike
    for every size of the sample, except where one of the samples needs a search: give `block` where samples of
    several sizes are to be compared.

    Args:
        truth: (H, W) int64, the class of each pixel, -1 where it has none.
        kind: "disjoint" or "random".
        patch: side of the patches, odd.
        per_class: training pixels of each class; None to go by `train_share`.
        train_share: share of each class's labelled pixels to train on, where `per_class` is None.
        validation: share of each class's pixels to hold out for validation: of those in the training blocks, or of
            all where the split is random.
        block: side of the blocks in pixels; None for the largest of SIDES with which every class has a quarter of its
            pixels in training blocks and a quarter in others, or where none does so, enough pixels in both, or where
            none does so without a search, the largest with which a search serves every class.
        seed: of blocks and pixels.
        names: what messages call the classes; their numbers by default.

    Raises:
        UsageError: a number is out of range, or a class has too few pixels, or lies too close together for patches of
            that side.
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
        for name, pixels, n in zip(names, shuffled, wanted, strict=True):
            free = len(pixels) - round(validation * len(pixels)) - 1  # one pixel must be left to test
            if free < n:
                raise UsageError(
                    f"class {name} has {max(free, 0)} pixels to train on, not {n}: train on fewer pixels of each "
                    "class, or leave out classes with few of them (min_pixels of a scene)"
                )
        train, held, rest = _draw(shuffled, wanted, validation)
        return PixelSplit(_sorted(train), _sorted(held), _sorted(rest))

    task = _Task(
        truth=truth.numpy(),
        names=names,
        shuffled=shuffled,
        wanted=wanted,
        validation=validation,
        share=max(0.5, 0.0 if per_class else train_share),
        reach=patch // 2,
        seed=seed,
    )
    for balance, side in itertools.product(BALANCE, SIDES) if block is None else ((0.0, block),):
        thrown = task.throw(side)
        if thrown.worst_share > 0 and thrown.balanced(balance):
            return thrown.split
    if block is None:
        best = _best(task.search(side, TRIES // 3) for side in SIDES)
    else:
        best = task.search(block, TRIES)
    if best.worst_share == 0:
        raise UsageError(task.refusal(best))
    return best.split


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


@dataclass(frozen=True)
class _Dealt:
    """A disjoint split, good or not.

    Attributes:
        split: its pixels.
        due: share of each class that is to lie in training blocks.
        members: (classes,) int64, pixels of each class; of those
        inside: lie in training blocks,
        missing: are too few there to train on,
        left: test.
    """

    split: PixelSplit
    due: float
    members: Array
    inside: Array
    missing: Array
    left: Array

    @property
    def shares(self) -> Array:
        """(classes,) float64: the share of each class that is left to test; 0 where it cannot be trained on."""
        return np.where(self.missing > 0, 0.0, self.left / self.members)

    @property
    def worst_share(self) -> float:
        return float(self.shares.min())

    def balanced(self, least: float) -> bool:
        """Whether every class has `least` of what it should have in the training blocks, and outside of them."""
        enough_inside = self.inside >= least * self.due * self.members
        enough_outside = self.members - self.inside >= least * (1 - self.due) * self.members
        return bool((enough_inside & enough_outside).all())


def _best(candidates: Iterable[_Dealt]) -> _Dealt:
    """The first that leaves LEFT of every class to test, else the one that serves most classes, and those best."""
    best: _Dealt | None = None
    for dealt in candidates:
        if best is None or _merit(dealt) > _merit(best):
            best = dealt
        if best.worst_share >= LEFT:
            break
    assert best is not None
    return best


def _merit(dealt: _Dealt) -> tuple[int, float]:
    served = dealt.shares[dealt.shares > 0]
    return len(served), float(served.min(initial=1))


@dataclass(frozen=True)
class _Task:
    """What a disjoint split is asked for, see :func:`split_pixels`.

    Attributes:
        truth: (H, W) int64
        names: of the classes.
        shuffled: positions of each class, in the order in which they are drawn.
        wanted: training pixels of each class.
        validation: share held out of the pixels in training blocks.
        share: of each class that is to lie in training blocks.
        reach: of a patch around its pixel.
        seed: of everything random.
    """

    truth: Array
    names: Sequence[str]
    shuffled: list[Tensor]
    wanted: list[int]
    validation: float
    share: float
    reach: int
    seed: int

    def throw(self, side: int) -> _Dealt:
        """Blocks dealt in random order."""
        return next(self._throws(side))

    def search(self, side: int, tries: int) -> _Dealt:
        """The best of so many throws that learn from each other."""
        return _best(itertools.islice(self._throws(side), tries))

    def refusal(self, best: _Dealt) -> str:
        """Why the best split will not do, and what to change."""
        label, side = int(best.shares.argmin()), best.split.block
        name, count = self.names[label], int(best.members[label])
        if best.missing[label] > 0:
            trainable = self.wanted[label] - int(best.missing[label])
            problem = f"{trainable} pixels to train on in the training blocks of {side} x {side} pixels, "
            problem += f"not {self.wanted[label]}"
        else:
            problem = f"no test pixel outside the training patches with blocks of {side} pixels"
        advice = "train on fewer pixels, take smaller patches or other blocks, or split at random"
        if (best.members > count).sum() > 1:
            advice = f"leave out classes with fewer than {count + 1} pixels (min_pixels {count + 1}), {advice}"
        return f"class {name} has {problem}: {advice}"

    def _throws(self, side: int) -> Iterator[_Dealt]:
        """Splits, each of which draws anew for the classes that the one before did not serve."""
        draws = [0] * len(self.shuffled)
        for round_ in itertools.count():
            grid, order = self._grid(side, round_)
            for _ in range(ROUND):
                training = self._deal(grid, order, draws)
                dealt = self._judge(training[grid.block], side)
                yield dealt
                for label in np.flatnonzero(dealt.shares < LEFT):
                    draws[label] += 1

    def _grid(self, side: int, round_: int) -> tuple["_Grid", list[int]]:
        """Blocks, and an order of them; those of the first round begin in the scene's corner."""
        if round_ == 0:
            random = generator(self.seed, _BLOCKS, side)
            grid = _Grid.over(self.truth, side)
        else:
            random = generator(self.seed, _BLOCKS, side, round_)
            down, right = torch.randint(side, (2,), generator=random).tolist()
            grid = _Grid.over(self.truth, side, (down, right))
        return grid, torch.randperm(grid.counts.shape[1], generator=random).tolist()

    def _deal(self, grid: "_Grid", order: list[int], draws: list[int]) -> Array:
        """(blocks,) bool: which are for training.

        Classes in few blocks choose first. On a class's first draw each of its blocks, in random order, goes to the
        side that is further behind. On later draws, a line in a random direction cuts off what trains.
        """
        training = [-1] * len(order)
        place = np.argsort(order)  # of each block in the random order
        spread = (grid.counts > 0).sum(1)
        for label in sorted(range(len(draws)), key=lambda c: (spread[c], c)):
            blocks = np.flatnonzero(grid.counts[label])
            size = dict(zip(blocks.tolist(), grid.counts[label, blocks].tolist(), strict=True))
            total = sum(size.values())
            inside = sum(count for b, count in size.items() if training[b] == 1)
            outside = sum(count for b, count in size.items() if training[b] == 0)
            along: Array = place[blocks]
            if cut := draws[label] > 0:
                random = generator(self.seed, _BLOCKS, grid.side, label, draws[label])
                turn, part = torch.rand(2, generator=random, dtype=torch.float64).tolist()
                rows, columns = np.divmod(blocks, grid.columns)
                along = math.cos(2 * math.pi * turn) * rows + math.sin(2 * math.pi * turn) * columns
                needed = min(self.wanted[label] / (1 - self.validation), self.share * total)
                due = needed + part * (self.share * total - needed)
            for b in blocks[np.argsort(along, kind="stable")].tolist():
                if training[b] >= 0:
                    continue
                behind = self.share * total - inside >= (1 - self.share) * total - outside
                training[b] = int(inside < due if cut else behind)
                inside += size[b] * training[b]
                outside += size[b] * (1 - training[b])
        return np.array([side == 1 for side in training])

    def _judge(self, training: Array, side: int) -> _Dealt:
        """The split that blocks for training (H W,) bool lead to."""
        mask = torch.from_numpy(training)
        inside = [pixels[mask[pixels]] for pixels in self.shuffled]
        free = np.array([len(pixels) - round(self.validation * len(pixels)) for pixels in inside])
        train, held, _ = _draw(inside, self.wanted, self.validation)
        outside = [pixels[~mask[pixels]] for pixels in self.shuffled]
        covered = near(train, self.truth.shape, self.reach).flatten()
        test = [pixels[~covered[pixels]] for pixels in outside]
        dropped = sum(map(len, outside)) - sum(map(len, test))
        return _Dealt(
            split=PixelSplit(_sorted(train), _sorted(held), _sorted(torch.cat(test)), dropped, side),
            due=self.share,
            members=_sizes(self.shuffled),
            inside=_sizes(inside),
            missing=np.maximum(np.array(self.wanted) - free, 0),
            left=_sizes(test),
        )


@dataclass(frozen=True)
class _Grid:
    """Square blocks over a scene.

    Attributes:
        block: (H W,) int64, the block of each position.
        counts: (classes, blocks) int64, the pixels of each class in each block.
        side: of the blocks in pixels.
        columns: blocks in a row.
    """

    block: Array
    counts: Array
    side: int
    columns: int

    @classmethod
    def over(cls, truth: Array, side: int, shift: tuple[int, int] = (0, 0)) -> "_Grid":
        """Blocks over classes (H, W), -1 for none; those at the top and left are smaller by `shift`."""
        rows, columns = ((np.arange(size) + first) // side for size, first in zip(truth.shape, shift, strict=True))
        width = int(columns[-1]) + 1
        block = (rows[:, None] * width + columns).ravel()
        classes, count = int(truth.max()) + 1, int(block[-1]) + 1
        flat = truth.ravel()
        labelled = flat >= 0
        counts = np.bincount(flat[labelled] * count + block[labelled], minlength=classes * count)
        return cls(block, counts.reshape(classes, count), side, width)


def _sizes(classes: list[Tensor]) -> Array:
    return np.array([len(pixels) for pixels in classes])


def _sorted(pixels: Tensor) -> Tensor:
    return pixels.sort().values
