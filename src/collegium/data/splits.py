"""Splits made by class, the same on every machine for a seed."""

import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator

from .interface import S, Samples


def hold_out(split: S, share: float, seed: int) -> tuple[S, S]:
    """Holds out the same share of every class.

    Args:
        split: N images.
        share: the fraction of each class to hold out, between 0 and 1, rounded to whole images.
        seed: which images are held out.

    Returns:
        (train, validation), disjoint, together all of `split`, each in its order.

    Raises:
        UsageError: `share` is not between 0 and 1, or so small or large that one side would have none of a class.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share to hold out is {share}: give a fraction between 0 and 1")
    held = torch.zeros(len(split), dtype=torch.bool)
    for label, members in enumerate(_shuffled_classes(split, seed)):
        count = int(share * len(members) + 0.5)
        if count in (0, len(members)):
            raise UsageError(
                f"holding out {share} of class {label} holds out {count} of its {len(members)} images, and leaves "
                f"{len(members) - count} to train on: give another share, or the class more images"
            )
        held[members[:count]] = True
    return split.subset((~held).nonzero()[:, 0]), split.subset(held.nonzero()[:, 0])


def per_class(split: S, count: int, seed: int) -> S:
    """A subset with `count` images of every class, in the order of `split`.

    With the same seed a smaller subset lies within a larger one.

    Raises:
        UsageError: `count` is below 1, or a class has fewer images.
    """
    if count < 1:
        raise UsageError(f"the number of images per class is {count}: give 1 or more")
    chosen = []
    for label, members in enumerate(_shuffled_classes(split, seed)):
        if len(members) < count:
            raise UsageError(
                f"class {label} has {len(members)} images to train on, not {count}: "
                f"take at most {len(members)} per class"
            )
        chosen.append(members[:count])
    return split.subset(torch.cat(chosen).sort().values)


def _shuffled_classes(split: Samples, seed: int) -> list[Tensor]:
    """The indices of each class 0, 1, ..., in an order that depends on the seed and the class alone.

    Classes are the right ones where they are known, so that sets which differ in their labels' errors alone have the
    same images.
    """
    targets = (split.targets if split.true_targets is None else split.true_targets).cpu()
    classes = []
    for label in range(int(targets.max()) + 1):
        members = (targets == label).nonzero()[:, 0]
        classes.append(members[torch.randperm(len(members), generator=generator(seed, label))])
    return classes
