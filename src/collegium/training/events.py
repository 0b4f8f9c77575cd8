"""The scores of every epoch as TensorBoard reads them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from collegium.files import inside

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Events:
    """Writes RUN/tensorboard. Where that fails it warns once, and training goes on without it.

    Args:
        run: the run's folder.
        first_epoch: the next one; what is there of it and later ones is replaced.
        write: whether to write at all.
    """

    def __init__(self, run: Path, first_epoch: int, *, write: bool = True) -> None:
        self.run, self.first_epoch, self.write = run, first_epoch, write
        self.writer: SummaryWriter | None = None

    def __enter__(self) -> "Events":
        if self.write:
            try:
                from torch.utils.tensorboard import SummaryWriter

                place = inside(self.run, "tensorboard")
                self.writer = SummaryWriter(str(place), purge_step=self.first_epoch)
            except Exception as error:  # however it fails, it is not needed to go on
                self._give_up(error)
        return self

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Writes the values of an epoch."""
        if self.writer is None:
            return
        try:
            for key, value in row.items():
                self.writer.add_scalar(key, value, epoch)
            self.writer.flush()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.writer = None
        reason = " ".join(str(error).split())[:120]
        place = self.run / "tensorboard"
        warnings.warn(f"cannot write {place}: {reason} (training goes on without it)", stacklevel=3)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is None:
            return
        try:
            self.writer.close()
        except Exception as reason:
            self._give_up(reason)
