"""The scores of every epoch as TensorBoard reads them."""

import os
import socket
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from collegium.files import inside, storing

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter


class Events:
    """Writes RUN/tensorboard. Where that fails it warns once, and training goes on without it.

    TensorBoard's own writer has a thread, which would tell of a full disk by a traceback.

    Args:
        run: the run's folder.
        first_epoch: the next one; what is there of it and later ones is replaced.
        write: whether to write at all.
    """

    def __init__(self, run: Path, first_epoch: int, *, write: bool = True) -> None:
        self.run, self.first_epoch, self.write = run, first_epoch, write
        self.writer: RecordWriter | None = None

    def __enter__(self) -> "Events":
        if self.write:
            try:
                self.writer = self._open()
            except Exception as error:  # however it fails, it is not needed to go on
                self._give_up(error)
        return self

    def _open(self) -> "RecordWriter":
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        place = inside(self.run, "tensorboard")
        with storing(place):
            place.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            file = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        writer = RecordWriter(os.fdopen(file, "wb"))
        writer.write(_event(file_version="brain.Event:2"))
        # What an earlier process wrote of this epoch and later ones, before it was killed, is not shown.
        writer.write(_event(step=self.first_epoch, session_log=SessionLog(status=SessionLog.START)))
        return writer

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Writes the values of an epoch."""
        if self.writer is None:
            return
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [Summary.Value(tag=key, simple_value=value) for key, value in row.items()]
            self.writer.write(_event(step=epoch, summary=Summary(value=values)))
            self.writer.flush()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self.writer is not None:
            with suppress(Exception):
                self.writer.close()
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


def _event(**entries: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return bytes(Event(wall_time=time.time(), **entries).SerializeToString())
