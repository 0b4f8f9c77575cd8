"""Sums over the steps of an epoch, kept on the device so that no step waits for it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from collegium.errors import TrainingError
from collegium.method import Terms


class Seen(NamedTuple):
    """What one step has measured."""

    names: list[str]  # "player/term"
    values: Tensor  # (K,), one for each term
    correct: Tensor  # (M + 1,), correct answers of each peer and of the ensemble
    images: int


def observe(terms: Mapping[str, Terms], logits: Tensor, target: Tensor) -> Seen:
    """From terms by player, the peers' logits (M, B, C) and class indices (B,)."""
    flat = {f"{player}/{name}": value for player, named in terms.items() for name, value in named.items()}
    answers = torch.cat([logits, logits.mean(0, keepdim=True)]).argmax(-1)
    values = torch.stack([value.detach().float() for value in flat.values()])
    return Seen(list(flat), values, (answers == target).sum(-1), len(target))


def joined(parts: Sequence[Seen]) -> Seen:
    """What equal micro-batches have measured, as one batch."""
    if len(parts) == 1:
        return parts[0]
    values = torch.stack([part.values for part in parts]).mean(0)
    correct = torch.stack([part.correct for part in parts]).sum(0)
    return Seen(parts[0].names, values, correct, sum(part.images for part in parts))


class Tally:
    """Sums of every term and counts of correct answers since the start of the epoch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums = torch.zeros(0, dtype=torch.float64)
        self.steps = 0
        self.images = 0
        self.correct: Tensor | None = None  # (M + 1,)
        self._unread: list[Tensor] = []

    def add(self, seen: Seen) -> None:
        """Adds one step."""
        self.names = seen.names
        self._unread.append(seen.values)
        self.correct = seen.correct if self.correct is None else self.correct.to(seen.correct.device) + seen.correct
        self.images += seen.images

    def read(self, epoch: int) -> None:
        """Adds the steps since the last call to the sums; waits for the device.

        Raises:
            TrainingError: a term was not finite; the message names term, epoch and step.
        """
        if not self._unread:
            return
        rows = torch.stack(self._unread).cpu().double()
        finite = rows.isfinite()
        if not finite.all():
            row, column = (~finite).nonzero()[0].tolist()
            raise TrainingError(
                f"the loss term {self.names[column]} became {rows[row, column].item()} "
                f"in epoch {epoch + 1}, step {self.steps + row + 1}"
            )
        self.sums = rows.sum(0) + (self.sums if len(self.sums) else 0)
        self.steps += len(rows)
        self._unread.clear()

    def loss(self) -> float:
        """Mean sum of all terms."""
        return float(self.sums.sum()) / max(1, self.steps)

    def accuracy(self) -> dict[str, float]:
        """Share of correct answers on training batches: of each peer, and of the ensemble."""
        if self.correct is None:
            return {}
        *peers, ensemble = (self.correct.cpu().double() / self.images).tolist()
        return {**{f"peer{k}": value for k, value in enumerate(peers)}, "ensemble": ensemble}

    def row(self) -> dict[str, float]:
        """Means over the epoch, as columns of metrics.csv."""
        means = (self.sums / max(1, self.steps)).tolist()
        return {
            **{f"train/{name}": value for name, value in zip(self.names, means, strict=True)},
            **{f"train/accuracy/{name}": value for name, value in self.accuracy().items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """The sums; call :meth:`read` first."""
        assert not self._unread
        return {key: vars(self)[key] for key in ("names", "sums", "steps", "images", "correct")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
