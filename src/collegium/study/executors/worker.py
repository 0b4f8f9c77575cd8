"""Runs of a study, each in a process of its own: ``python -m collegium.study.executors.worker``.

It imports what training needs, reads jobs from its input, a line each, and forks for every job. So no run waits for
imports but the first, and each begins in the state of a fresh process. It prints a line when a run has begun,
``{"key", "process"}``, and one when it has ended, ``{"key", "status"}``. Where it may not fork it computes one job.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from collegium.errors import CollegiumError, UsageError
from collegium.files import open_log, write_whole
from collegium.loading import quick_imports
from collegium.user_code import Consent, given

PATIENCE = 60.0  # seconds that a run may still be saved by the process that trained it before
REAP = 0.05  # seconds from one look at the ended runs to the next
FORKS = sys.platform == "linux"
"""Whether a process may fork after its imports. Apple's libraries do not survive it, and Windows has no fork."""


def work(recipe: dict[str, Any], folder: str, patience: float = PATIENCE) -> dict[str, str]:
    """Trains a run, or goes on with it; another process may hold its folder for so many seconds.

    Returns:
        What becomes of it, as the fields of :class:`collegium.study.executors.local.Event` but for the key.
    """
    try:
        with quick_imports():
            from torch import OutOfMemoryError

            from collegium.errors import Interrupted
            from collegium.training.recipe import Recipe
            from collegium.training.run import train
            from collegium.training.run_folder import RunFolder
    except Exception as error:
        return _failure("failed", error)
    try:
        _wait_for(RunFolder(folder), patience)
        train(Recipe.from_dict(recipe), folder, quiet=True)
    except Interrupted:
        return {"state": "broken", "error": "it was interrupted"}
    except (OutOfMemoryError, MemoryError) as error:
        return _failure("broken", error)  # beside fewer others it may fit
    except Exception as error:
        return _failure("failed", error)
    return {"state": "done"}


def _failure(state: str, error: Exception) -> dict[str, str]:
    text = " ".join(str(error).split())
    sentence = text if isinstance(error, CollegiumError) else f"{type(error).__name__}: {text}"
    return {"state": state, "error": sentence, "trace": traceback.format_exc()}


def _wait_for(folder: Any, patience: float) -> None:
    """Until a run of a study that was killed has saved its state and let go of the folder."""
    deadline = time.monotonic() + patience
    while folder.path.exists():
        try:
            with folder.locked():
                return
        except UsageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _stop_at_end_of(pipe: int) -> None:
    """Saves and ends this run when the other end of a pipe is gone with its process, however that went."""
    while os.read(pipe, 1):  # not through sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _compute(job: dict[str, Any], lifeline: int) -> None:
    """One run in this process, whose outcome goes to a file; what libraries print goes to the log."""
    with open_log(Path(job["log"])) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.update(job["environment"])
    threading.Thread(target=_stop_at_end_of, args=(lifeline,), daemon=True).start()
    with given(Consent.from_dict(job["consent"])):
        outcome = work(job["recipe"], job["folder"])
    write_whole(Path(job["outcome"]), json.dumps(outcome))


class _Server:
    """Forks a process for each job, and says what becomes of them."""

    def __init__(self, says: TextIO) -> None:
        self.says = says
        self.lifeline, self.held = os.pipe()  # this process alone holds the second end
        self.runs: dict[int, str] = {}  # process -> key

    def serve(self) -> dict[str, Any] | None:
        """Returns in every forked process, with its job, and in this one when the input has ended and all runs have."""
        unread = b""
        while True:
            if select.select([0], [], [], REAP)[0]:
                read = os.read(0, 2**16)
                if not read:
                    break
                *lines, unread = (unread + read).split(b"\n")
                for job in map(json.loads, lines):
                    if self._fork(job):
                        return job  # type: ignore[no-any-return]
            self._reap()
        for process in self.runs:
            os.kill(process, signal.SIGTERM)
        while self.runs:
            self._reap()
            time.sleep(REAP)
        return None

    def _fork(self, job: dict[str, Any]) -> bool:
        """Whether this is the new process."""
        process = os.fork()
        if process:
            self.runs[process] = job["key"]
            _say(self.says, key=job["key"], process=process)
            return False
        os.setsid()  # a group of its own, which can be ended with all that the run starts
        os.close(self.held)
        self.says.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return True

    def _reap(self) -> None:
        while self.runs:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                break
            _say(self.says, key=self.runs.pop(process), status=os.waitstatus_to_exitcode(status))


def load() -> None:
    """Imports what training needs, and leaves CUDA alone, which does not survive a fork."""
    with contextlib.suppress(Exception), quick_imports():  # the first run says what is wrong
        import collegium.training.run  # noqa: F401


def _say(channel: TextIO, **line: Any) -> None:
    channel.write(json.dumps(line) + "\n")
    channel.flush()


def main() -> None:
    says = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if not FORKS:
        job = json.loads(sys.stdin.readline())
        _say(says, key=job["key"], process=os.getpid())
        _compute(job, lifeline=0)
        return
    load()
    server = _Server(says)
    mine = server.serve()
    if mine is not None:
        _compute(mine, server.lifeline)


if __name__ == "__main__":
    main()
