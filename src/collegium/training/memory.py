"""Memory of training on a CPU: what a step frees is kept for the next."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# What glibc's mallopt calls its parameters, and the most to which glibc raises both of them by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL_TRIM, _USUAL_MMAP = 64 * 2**20, 32 * 2**20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, freed blocks of up to 32 MiB stay with the process; at the end they go back to the system.

    glibc by itself hands back what is free at the end of its heap, and the system has to bring every page again in the
    next step: about a tenth of the time of methods that keep whole maps (``results/throughput``). The most memory
    that is held at any one time stays the same within 2 %. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)  # blocks above it would leave holes that nothing fits into
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        libc.malloc_trim(0)
