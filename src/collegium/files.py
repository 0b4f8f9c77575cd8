"""Files that are written whole or not at all, and folders that one process locks for itself."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from collegium.errors import UsageError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name, syncs and renames, so that a kill at any moment leaves no partial file."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # the rename itself is durable once the folder is synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_can_make(folder: str | Path) -> None:
    """Whether a folder is there or can be made, which is tried in a temporary folder beside it; nothing is left.

    Raises:
        UsageError: it has no name, or cannot be made.
    """
    if not os.fspath(folder):
        raise UsageError("the folder's name is empty")
    try:
        path = Path(folder).expanduser()
        if not path.exists():
            parent = next(parent for parent in path.parents if parent.exists())
            with TemporaryDirectory(dir=parent) as trial:
                (Path(trial) / path.relative_to(parent)).mkdir(parents=True)
    except (OSError, RuntimeError, ValueError) as error:  # no permission, no such user, a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the folder {str(folder)!r} cannot be made: {reason}; choose another") from error


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Keeps other processes out of a folder, which it creates if necessary; the lock ends with the process.

    On a file system that cannot lock it warns and goes on.

    Raises:
        UsageError: another process has the lock; ``busy`` is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    file.touch()
    lock = FileLock(file, blocking=False, fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(busy) from error
    except OSError as error:
        reason = error.strerror or str(error)
        warnings.warn(f"{folder} cannot be locked ({reason}): make sure that no other process uses it", stacklevel=3)
    try:
        yield
    finally:
        lock.release()
