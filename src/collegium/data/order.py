"""The order in which an epoch takes its images, and how many steps that makes, wherever the images lie."""

import numpy as np
import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator

ORDER, AUGMENTATION = 0, 1  # what a stream of random numbers is for


class Order:
    """Which images an epoch takes, one after another: a function of (seed, epoch).

    With more than one of ``images_per_class``, every batch holds at least so many images of each class that is in it.
    The images of a class are then put together at random in groups of that size, and the groups are dealt to the
    batches class by class, so that as many classes as can be are in each batch. An image is taken at most once an
    epoch. What does not fill a group or a batch sits the epoch out, others in each epoch; only a class that has fewer
    images than a group takes them again to fill its one group.

    Where it is balanced, every draw takes one of the classes that have images, all alike likely, and then one of its
    images, with replacement. An epoch has as many draws as there are images.

    Args:
        targets: (N,) int64, the class of each image.
        batch_size: images in a batch.
        seed: of the order, 0 or more.
        shuffle: draw the order of each epoch; otherwise that of the images, whatever ``images_per_class``.
        drop_last: leave out a last batch that is not full, except where it is the only one.
        images_per_class: how many images at least a batch holds of every class that is in it.
        balanced: draw with replacement, every class as often as any other on average.

    Raises:
        UsageError: no images, a batch size below 1 or no multiple of ``images_per_class``, a negative seed, balanced
            draws where ``images_per_class`` is more than 1.
    """

    def __init__(
        self,
        targets: Tensor,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = True,
        images_per_class: int = 1,
        balanced: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size is {batch_size}: give 1 or more")
        if len(targets) == 0:
            raise UsageError("there are no images to make batches of: the split is empty")
        if seed < 0:
            raise UsageError(f"the seed is {seed}: give 0 or more")
        if batch_size % images_per_class:
            raise UsageError(
                f"the batch size is {batch_size}, but batches shall hold {images_per_class} images of every class in "
                f"them: give a multiple of {images_per_class}"
            )
        if balanced and images_per_class > 1:
            raise UsageError(
                f"batches that hold {images_per_class} images of every class in them are dealt class by class, and not "
                "with --sampling balanced; leave it out, or weigh the classes by --class-weights balanced"
            )
        self.balanced = balanced and shuffle
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.group = images_per_class if shuffle else 1
        self._targets = targets.cpu()
        self._counts = np.unique(self._targets.numpy(), return_counts=True)[1].tolist() if self.group > 1 else []
        self._groups = sum(max(count // self.group, 1) for count in self._counts)

    def __len__(self) -> int:
        """Steps in an epoch."""
        images = self._groups * self.group if self.group > 1 else len(self._targets)
        full, rest = divmod(images, self.batch_size)
        return max(full, 1) if self.drop_last else full + (rest > 0)

    def epoch(self, epoch: int) -> Tensor:
        """The images of an epoch, batch after batch: int64, on the CPU."""
        if not self.shuffle:
            return torch.arange(len(self._targets))
        random = generator(self.seed, ORDER, epoch)
        if self.balanced:
            return self._drawn(random)
        order = torch.randperm(len(self._targets), generator=random)
        return order if self.group == 1 else self._dealt(order, random)

    def _drawn(self, random: torch.Generator) -> Tensor:
        by_class, counts = self._targets.argsort(stable=True), self._targets.bincount()
        counts = counts[counts > 0]
        drawn = torch.randint(len(counts), (len(self._targets),), generator=random)
        # Of numbers so large that what the remainder favours cannot be told.
        within = torch.randint(2**62, (len(self._targets),), generator=random) % counts[drawn]
        return by_class[(counts.cumsum(0) - counts)[drawn] + within]

    def _dealt(self, order: Tensor, random: torch.Generator) -> Tensor:
        classes = order[self._targets[order].argsort(stable=True)].split_with_sizes(self._counts)
        groups = torch.cat([self._grouped(classes[c]) for c in torch.randperm(len(classes), generator=random).tolist()])
        steps, each = len(self), min(self.batch_size // self.group, len(groups))
        kept = torch.randperm(len(groups), generator=random)[: steps * each].sort().values
        # One group to each batch in turn: those of a class, which lie together, go to different batches.
        batches = groups[kept].view(each, steps, self.group).transpose(0, 1)
        return batches[torch.randperm(steps, generator=random)].flatten()

    def _grouped(self, images: Tensor) -> Tensor:
        """Images of one class (n,), in groups (n // group, group)."""
        if len(images) < self.group:
            images = images.repeat(self.group)[: self.group]
        return images[: len(images) // self.group * self.group].view(-1, self.group)


def times_before(order: Tensor) -> Tensor:
    """How often each image (N,) stands in the order (N,) before its place."""
    sorted_, place = order.sort(stable=True)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = sorted_[1:] != sorted_[:-1]
    position = torch.arange(len(order))
    begin = torch.where(new, position, 0).cummax(0).values
    return torch.empty_like(order).scatter_(0, place, position - begin)
