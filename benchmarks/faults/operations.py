"""File operations that can be disturbed: what happens at each is decided by whoever watches."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")

Call = Callable[[], Any]
Watcher = Callable[[int, str, Path, Call, Any], Any]


def watch(folder: Path, happens: Watcher) -> None:
    """From now on operations within ``folder``, of this process and for good, are made by ``happens``.

    It is given the number of the operation from 0 on, its name, its path, what makes it, and the first argument (a path
    or a descriptor), and returns its result. To open a file counts where it may be written.
    """
    counted = 0
    inside = f"{os.path.realpath(folder)}{os.sep}"

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(first: Any, *rest: Any, **named: Any) -> Any:
            nonlocal counted
            path = _path(first, named.get("dir_fd"))
            reads = name == "open" and not (rest[0] if rest else named["flags"]) & (os.O_WRONLY | os.O_RDWR)
            if reads or not path.startswith(inside):
                return original(first, *rest, **named)
            number, counted = counted, counted + 1
            return happens(number, name, Path(path), lambda: original(first, *rest, **named), first)

        return operation

    for name in NAMES:
        setattr(os, name, wrap(name, getattr(os, name)))


def _path(first: Any, folder: int | None = None) -> str:
    if isinstance(first, int):
        return os.readlink(f"/proc/self/fd/{first}")
    parent = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
    path = os.path.abspath(os.path.join(parent, os.fsdecode(first)))
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
