"""What is gathered during an epoch, on the device, without waiting for it in any step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from collegium.errors import TrainingError
from collegium.method import Terms


class Tally:
    """Sums of every term and counts of right answers since the epoch began."""

    def __init__(self) -> None:
        self.names: list[str] = []  # "player/term"
        self.sums = torch.zeros(0, dtype=torch.float64)
        self.steps = 0
        self.images = 0
        self.correct: Tensor | None = None  # (M + 1,): each peer, the ensemble
        self._unread: list[Tensor] = []

    def add(self, terms: Mapping[str, Terms], logits: Tensor, target: Tensor) -> None:
        """One step: terms by player, the peers' logits (M, B, C), class indices (B,)."""
        flat = {f"{player}/{name}": value for player, named in terms.items() for name, value in named.items()}
        self.names = list(flat)
        self._unread.append(torch.stack([value.detach().float() for value in flat.values()]))
        answers = torch.cat([logits, logits.mean(0, keepdim=True)]).argmax(-1)
        correct = (answers == target).sum(-1)
        self.correct = correct if self.correct is None else self.correct.to(correct.device) + correct
        self.images += len(target)

    def read(self, epoch: int) -> None:
        """Takes the steps since the last reading into the sums; waits for the device.

        Raises:
            TrainingError: a term was not finite; names the term, the epoch and the step.
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
        """Share of right answers on training batches: each peer, and the ensemble."""
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
        """All that has been read; call :meth:`read` first."""
        assert not self._unread
        return {key: vars(self)[key] for key in ("names", "sums", "steps", "images", "correct")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
