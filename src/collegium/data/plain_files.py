"""Names and folders that someone else may have made."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from collegium.errors import DataError


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, which in Python 3.11 fails where folders lie a thousand deep; links to folders are not followed."""
    left = [os.fspath(folder)]
    while left:
        found = next(os.walk(left.pop()), None)
        if found is not None:
            yield found
            inner = (os.path.join(found[0], name) for name in reversed(found[1]))
            left += [path for path in inner if not os.path.islink(path)]


def check_plain(folder: Path) -> None:
    """Raises DataError where a folder, at any depth, has a pipe, a socket or a device, or a link to one.

    Some libraries would wait for what it holds without end.
    """
    for place, _, files in walk(folder):
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
