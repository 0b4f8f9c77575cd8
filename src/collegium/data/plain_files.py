"""Names and folders that someone else may have made."""

import os
import stat
from pathlib import Path

from collegium.errors import DataError


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
