"""Memory of training on a CPU: blocks that a step frees are kept for the next step."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# The numbers of mallopt's parameters, and the largest values to which glibc raises them by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL_TRIM, _USUAL_MMAP = 64 * 2**20, 32 * 2**20


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within it the process keeps freed blocks of up to 32 MiB; at the end they are returned to the system.

    By default glibc returns the free end of its heap, and the system has to map every page again in the next step,
    which costs methods that keep whole feature maps much of their time (``results/throughput``). Peak memory hardly
    changes. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)  # larger blocks would leave holes in the heap that nothing fits into
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        libc.malloc_trim(0)
