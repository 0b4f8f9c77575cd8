"""Networks that label every position of their input: to the method, each position is an image of its own."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from collegium.cohort import PeerOutputs
from collegium.errors import UsageError


class Labelled(NamedTuple):
    """What a method sees of a batch: N labelled positions, in the order of the batch."""

    out: PeerOutputs  # logits (M, N, C); (M, views N, C) where the method sees several views
    target: Tensor  # (N,) class indices, or (N, C) probabilities
    none: bool = False  # whether no position has a label, and the first stands in for them


@dataclasses.dataclass(frozen=True)
class Positions:
    """How the logits of a network are laid out, (B, C, ...) or (B, ..., C), and which positions have no label.

    Args:
        ndim: number of dimensions of a network's logits.
        class_dim: the dimension of the classes, counted from the end: -ndim + 1 or -1.
        ignore_index: the target of positions without a label, which are left out; None where all have one.
    """

    ndim: int
    class_dim: int
    ignore_index: int | None

    def rows(self, logits: Tensor) -> Tensor:
        """Logits in the network's shape -> (..., positions of the batch, C); what stands before the batch stays."""
        return logits.movedim(self.class_dim, -1).flatten(-self.ndim, -2)

    def restore(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Rows (positions of the batch, C) in the shape of one network's among these logits (M, B, C, ...)."""
        positions = logits[0].movedim(self.class_dim, -1).shape[:-1]
        return rows.view(*positions, rows.shape[-1]).movedim(-1, self.class_dim)

    def count(self, target: Tensor) -> int | Tensor:
        """The number of labelled positions but for a common factor, at least 1."""
        if self.ignore_index is None or target.is_floating_point():
            return len(target)
        return (target != self.ignore_index).sum().clamp_min(1)

    def flat(self, out: PeerOutputs) -> PeerOutputs:
        """The outputs with all positions as a batch."""
        return dataclasses.replace(
            out,
            logits=self.rows(out.logits),
            teacher=out.teacher and dataclasses.replace(out.teacher, logits=self.rows(out.teacher.logits)),
            shadow=None if out.shadow is None else self.rows(out.shadow),
        )

    def labelled(self, out: PeerOutputs, target: Tensor) -> Labelled:
        """The outputs and the target with all labelled positions as a batch.

        Raises:
            UsageError: the target has other positions than the logits.
        """
        shape = out.logits[0].shape
        positions = out.logits[0].movedim(self.class_dim, -1).shape[1:-1]
        if target.is_floating_point() and target.shape[1:] == shape[1:]:
            return Labelled(self.flat(out), self.rows(target))
        if target.is_floating_point() or target.shape[1:] != positions:
            raise UsageError(
                f"a target of shape {tuple(target.shape)} and type {target.dtype} does not fit logits of shape "
                f"{tuple(shape)}: give class indices ({', '.join(['B', *map(str, positions)])}), or probabilities of "
                "the logits' shape"
            )
        target = target.flatten()
        if self.ignore_index is None:
            return Labelled(self.flat(out), target)
        kept = (target != self.ignore_index).nonzero()[:, 0]
        if len(kept) == 0:
            kept = kept.new_zeros(1)
            return Labelled(_rows_of(self.flat(out), kept, len(target)), kept, none=True)
        return Labelled(_rows_of(self.flat(out), kept, len(target)), target[kept])


def _rows_of(out: PeerOutputs, kept: Tensor, count: int) -> PeerOutputs:
    """The kept ones of ``count`` rows, of every view."""
    views = out.logits.shape[-2] // count
    index = torch.cat([kept + view * count for view in range(views)])
    return dataclasses.replace(
        out,
        logits=out.logits[:, index],
        teacher=out.teacher and dataclasses.replace(out.teacher, logits=out.teacher.logits[index]),
        shadow=None if out.shadow is None else out.shadow[:, index],
    )
