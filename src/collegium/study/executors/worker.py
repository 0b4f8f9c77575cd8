"""A run of a study in its own process, ``python -m collegium.study.executors.worker``, which reads its job as input."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from collegium.errors import CollegiumError, UsageError
from collegium.loading import quick_imports
from collegium.user_code import Consent, given

PATIENCE = 60.0  # seconds that a run may still be saved by the process that trained it before


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


def _stop_with_the_study() -> None:
    """The input ends when the process of the study is gone, however it went."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    # What libraries print goes with the errors; the outcome alone goes to the study.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    with given(Consent.from_dict(job["consent"])):
        outcome = work(job["recipe"], job["folder"])
    channel.write(json.dumps(outcome))
    channel.close()


if __name__ == "__main__":
    main()
