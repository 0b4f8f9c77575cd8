"""Files that someone else may have made: read only where they are plain files of a bounded size."""

import errno
import os
import stat
from pathlib import Path

from collegium.errors import DataError


def read_plain(path: Path | str, most: int) -> bytes:
    """The content of a file, read at once.

    Args:
        path: the file, or a link to it.
        most: bytes that it may have.

    Raises:
        OSError: it is a pipe, a socket, a device or a folder, has more bytes, or cannot be read.
    """
    # Opened without waiting: a pipe that nobody writes to would be waited for without end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no plain file")
        if found.st_size > most or len(content := file.read(found.st_size + 1)) > most:
            raise OSError(errno.EFBIG, f"more than {most >> 20} MiB")
    return content


def check_plain(folder: Path) -> None:
    """Raises DataError where a folder, at any depth, has a pipe, a socket or a device, or a link to one.

    Some libraries would wait for what it holds without end.
    """
    for place, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(place, name)
            try:
                plain = stat.S_ISREG(os.stat(path).st_mode)
            except OSError:  # a link to nothing or to itself: opening it fails at once
                continue
            if not plain:
                raise DataError(f"{shown(path)} is no plain file: remove it")


def shown(path: object) -> str:
    """A path as text for messages: bytes that are not UTF-8, and what would steer a terminal, as escapes."""
    text = os.fsencode(str(path)).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
