"""Loading libraries quickly."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
