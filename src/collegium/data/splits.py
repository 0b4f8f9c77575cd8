"""Splits made by class, the same on every machine for a seed."""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator

from .interface import S, Samples

_PARTS = {"validation": (3, 0), "test": (3, 1)}  # paths of their own for the random numbers


@runtime_checkable
class Keyed(Protocol):
    """A split that may know its images by more than their places."""

    @property
    def keys(self) -> Tensor | None:
        """(N,) int64, numbers that stay with the images when others are added, made of file names; else None."""
        ...


def hold_out(split: S, share: float, seed: int, part: Literal["validation", "test"] = "validation") -> tuple[S, S]:
    """Holds out a share of every class.

    Where the images have keys, each one's key and the seed decide, so that images which are added later never make
    another one held out. Then the share of a class is right on average: of n images share * n are held out, with a
    standard deviation of sqrt(n * share * (1 - share)), and at least one. Else it is right but for rounding to whole
    images.

    Args:
        split: N images.
        share: the fraction of each class to hold out, between 0 and 1.
        seed: which images are held out.
        part: what for. Keys decide independently of each other what is held out for testing and for validation.

    Returns:
        (train, held out), disjoint, together all of `split`, each in its order.

    Raises:
        UsageError: `share` is not between 0 and 1, or so small or large that one side would have none of a class.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share to hold out is {share}: give a fraction between 0 and 1")
    keys = split.keys if isinstance(split, Keyed) else None
    place = None if keys is None else _places(keys, seed, _PARTS[part])
    held = torch.zeros(len(split), dtype=torch.bool)
    for label, members in _shuffled_classes(split, seed):
        if place is None:
            chosen = members[: int(share * len(members) + 0.5)]
        else:
            here = place[members]
            # Where none is low enough the lowest one is taken: it would be lowest among fewer images too.
            chosen = members[(here < share) | (here == here.min())]
        if len(chosen) in (0, len(members)):
            # That one more image must not make another one held out leaves no other way out for keys.
            other = "another share" if place is None else "a smaller share, another split_seed"
            raise UsageError(
                f"holding out {share} of class {label} holds out {len(chosen)} of its {len(members)} images, and "
                f"leaves {len(members) - len(chosen)} to train on: give {other}, or the class more images"
            )
        held[chosen] = True
    return split.subset((~held).nonzero()[:, 0]), split.subset(held.nonzero()[:, 0])


def _places(keys: Tensor, seed: int, path: tuple[int, int]) -> Tensor:
    """(N,) int64 -> (N,) float64, spread evenly over [0, 1), each a function of its key, seed and path alone."""
    mixed = mix(keys.cpu().numpy().view(np.uint64) ^ np.uint64(generator(seed, *path).initial_seed()))
    return torch.from_numpy((mixed >> np.uint64(11)).astype(np.float64) / 2**53)


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers as unlike each other as random ones: the finalizer of SplitMix64, Steele et al., OOPSLA 2014."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def per_class(split: S, count: int, seed: int) -> S:
    """A subset with `count` images of every class that has any, in the order of `split`.

    With the same seed a smaller subset lies within a larger one.

    Raises:
        UsageError: `count` is below 1, or a class has fewer images.
    """
    if count < 1:
        raise UsageError(f"the number of images per class is {count}: give 1 or more")
    chosen = []
    for label, members in _shuffled_classes(split, seed):
        if len(members) < count:
            raise UsageError(
                f"class {label} has {len(members)} images to train on, not {count}: "
                f"take at most {len(members)} per class"
            )
        chosen.append(members[:count])
    return split.subset(torch.cat(chosen).sort().values)


def _shuffled_classes(split: Samples, seed: int) -> list[tuple[int, Tensor]]:
    """Each class that has images, with their indices in an order that depends on the seed and the class alone.

    Classes are the right ones where they are known, so that sets which differ in their labels' errors alone have the
    same images.
    """
    targets = (split.targets if split.true_targets is None else split.true_targets).cpu()
    classes = []
    for label in np.unique(targets.numpy()).tolist():
        members = (targets == label).nonzero()[:, 0]
        classes.append((label, members[torch.randperm(len(members), generator=generator(seed, label))]))
    return classes
