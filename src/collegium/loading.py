"""Loading libraries quickly."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def quick_imports() -> Iterator[None]:
    """Nothing looks for garbage within: loading makes a million objects, of which few are dropped.

    The search for these takes half a second of the start of every run.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def import_withheld(package: str) -> Iterator[None]:
    """Within, whoever imports a package that nobody has imported gets an empty module.

    For libraries that import another whole in order to learn whether it is there, and then ask for its version.
    """
    withheld = package not in sys.modules and find_spec(package) is not None
    if withheld:
        sys.modules[package] = ModuleType(package)
    try:
        yield
    finally:
        if withheld:
            del sys.modules[package]
