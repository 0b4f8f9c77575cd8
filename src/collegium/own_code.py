"""Functions of the user's own, named on the command line."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from collegium.errors import UsageError


def find(path: str) -> Callable[..., Any]:
    """The function or class at ``package.function``, looked for from the current folder on.

    Raises:
        UsageError: there is none, or importing it fails.
    """
    place, _, function = path.rpartition(".")
    if not place:
        raise UsageError(f"cannot find {path!r}: write module:package.function, for example module:my_code.build")
    try:
        with _current_folder():
            found = getattr(importlib.import_module(place), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot find {path!r} from {os.getcwd()}: {error}") from error
    if not callable(found):
        raise UsageError(f"{path} is a {type(found).__name__}, not a function or class")
    checked: Callable[..., Any] = found
    return checked


@contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder can be imported, as `python` itself allows and an installed command does not."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
