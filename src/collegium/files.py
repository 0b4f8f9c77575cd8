"""Files that are either whole or not there, and folders that one process has to itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from collegium.errors import UsageError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name, syncs and renames, so that a kill at any moment leaves no half file."""
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
    """Keeps other processes out of a folder, which is made where there is none; the lock ends with the process.

    Raises:
        UsageError: another process holds it; ``busy`` is the sentence that says so.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(busy) from error
        yield
