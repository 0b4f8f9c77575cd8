"""Files that are either whole or not there, and folders that one process has to itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
