import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def workers_end_with_the_test() -> Iterator[None]:
    """An error that a test has looked at holds the frames it came through, and so the workers, until it is freed."""
    yield
    gc.collect()
