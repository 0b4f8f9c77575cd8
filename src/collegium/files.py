"""Files: written whole or not at all, never through links, with a checksum where it matters; read with a bound."""

import errno
import hashlib
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from filelock import FileLock, Timeout

from collegium.errors import CollegiumError, DataError, StorageError, UsageError

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_ADVICE = {
    errno.ENOSPC: "free some space, then repeat the command",
    errno.EDQUOT: "your quota is used up: free some space, then repeat the command",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "change the permissions or choose another folder",
    errno.EPERM: "change the permissions or choose another folder",
    errno.ELOOP: "it is a link, through which nothing is written: remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def storing(path: Path, safe: str = "") -> Iterator[None]:
    """Turns an operating system's error within it into a StorageError.

    Args:
        path: what is being written.
        safe: what is not lost, as the end of a sentence.
    """
    try:
        yield
    except CollegiumError:
        raise
    except OSError as error:
        reason, advice = error.strerror or type(error).__name__, _ADVICE.get(error.errno or 0, "")
        kept = "; ".join(part for part in (reason, safe, advice) if part)
        raise StorageError(f"cannot write {path}: {kept}") from error


@contextmanager
def auxiliary(path: Path) -> Iterator[None]:
    """Turns a failure to write something that is not needed to go on into a warning."""
    try:
        with storing(path):
            yield
    except (StorageError, DataError) as error:
        warnings.warn(f"{error} (what it holds is not needed to go on)", stacklevel=3)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name, syncs and renames, so that a kill at any moment leaves no partial file.

    What has the name, or the temporary one, is replaced; where that is a link, what it points to stays as it is.

    Raises:
        StorageError: the file cannot be written; what was there before is as it was.
    """
    temporary = path.with_name(path.name + ".part")
    with storing(path):
        try:
            temporary.unlink(missing_ok=True)
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
            with os.fdopen(file, "wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)  # the space that it takes may be what is lacking
            raise
        if os.name == "posix":  # the rename itself is durable once the folder is synced
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def open_log(path: Path) -> TextIO:
    """A file to write text to as it comes, emptied; its folder is made. It is never a link.

    Raises:
        StorageError: it cannot be written.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o666), "w")


def checksum_file(path: Path) -> Path:
    """Where the checksum of a file is kept, as ``sha256sum --check`` reads it."""
    return path.with_name(path.name + ".sha256")


def _checksum_line(digest: str, path: Path) -> str:
    return f"{digest}  {path.name}\n"


def write_checked(path: Path, content: str | bytes) -> None:
    """:func:`write_whole`, and the file's checksum beside it.

    A kill in between leaves a checksum without a file, or where there was a file before, a file without a checksum.
    """
    content = content.encode() if isinstance(content, str) else content
    parts: list[tuple[Path, str | bytes]] = [
        (checksum_file(path), _checksum_line(hashlib.sha256(content).hexdigest(), path)),
        (path, content),
    ]
    with storing(path):
        checksum_file(path).unlink(missing_ok=True)
    for file, what in reversed(parts) if path.exists() else parts:
        write_whole(file, what)


def check_whole(path: Path, limit: int | None = None) -> None:
    """Compares a file with its checksum. A file that has none is taken as it is.

    Args:
        path: the file.
        limit: the most bytes that it may have, if there is such a number.

    Raises:
        DataError: they differ, or the file cannot be read, or is longer.
    """
    try:
        kept = read_bounded(checksum_file(path), 4096)
    except FileNotFoundError:
        return
    with reading(path), _open_regular(path) as file:
        if limit is not None:
            _check_size(path, file, limit)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if kept != _checksum_line(found, path).encode():
        raise DataError(
            f"{path} is damaged: its checksum is not that in {checksum_file(path).name}; "
            "take a copy of it, or delete the checksum if it was changed on purpose"
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an operating system's error within it into a DataError, but for a file that is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is no regular file, cannot be read, or is longer.
    """
    with reading(path), _open_regular(path) as file:
        _check_size(path, file, limit)
        # Not more than it has: as much memory is taken at once.
        content = file.read(min(limit, os.fstat(file.fileno()).st_size or limit) + 1)
    if len(content) > limit:  # what is not on a disk does not say its size
        raise _too_long(path, limit)
    return content


def copy_bounded(source: Path, target: Path, limit: int) -> None:
    """Copies a regular file.

    Raises:
        DataError: it is none, cannot be read, or has more than ``limit`` bytes.
        StorageError: the copy cannot be written.
    """
    with reading(source), _open_regular(source) as file:
        _check_size(source, file, limit)
        with storing(target), target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 2**20)


def _check_size(path: Path, file: BufferedReader, limit: int) -> None:
    if os.fstat(file.fileno()).st_size > limit:
        raise _too_long(path, limit)


def _too_long(path: Path, limit: int) -> DataError:
    return DataError(f"cannot read {path}: it has more than the {limit:,} bytes that such a file may have")


@contextmanager
def _open_regular(path: Path) -> Iterator[BufferedReader]:
    """Opens a file to read; a folder, a pipe or a device is refused, and not waited for."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"cannot read {path}: it is not a file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def inside(folder: Path, *names: str) -> Path:
    """The path of something in a folder, of which no part leads elsewhere.

    Args:
        folder: may itself be a link, as the user gave it.
        names: one for each level, perhaps read from a file.

    Raises:
        DataError: a name is none of a single level, or what has it is a link.
    """
    path = folder
    for name in names:
        if not is_plain_name(name):
            raise DataError(f"{folder} has nothing called {name[:80]!r}: it is not the name of a file")
        path = path / name
        if path.is_symlink():
            raise DataError(f"{path} is a link, which is not followed: put what it points to in its place")
    return path


def is_plain_name(name: str) -> bool:
    """Whether a text names something within a folder: letters, digits, and ``._-`` after the first."""
    return re.fullmatch(r"\w[\w.-]{0,200}", name) is not None


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
        StorageError: the folder cannot be written, or its lock is a link.
    """
    file = folder / ".lock"
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with storing(file):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666))
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
