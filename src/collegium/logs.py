"""Messages of other libraries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_logging(level: int) -> Iterator[None]:
    """Drops log messages of this level and below; what was dropped before is dropped afterwards, and no more."""
    before = logging.root.manager.disable
    logging.disable(max(level, before))
    try:
        yield
    finally:
        logging.disable(before)
