"""Signals by which a run is told to save its state and stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TOGETHER = 2.0
"""Seconds in which several signals are one wish: a cluster signals every process, and one tells another besides."""

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextmanager
def at_first_stop_signal(action: Callable[[], object]) -> Iterator[None]:
    """Within it the first signal to stop calls ``action``, and a second one, not at the same time, acts as usual.

    Outside the main thread, where Python hears no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    asked: list[float] = []  # when

    def as_usual() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def act(number: int, _: object) -> None:
        if not asked:
            asked.append(time.monotonic())
            action()
        elif time.monotonic() - asked[0] > TOGETHER:
            as_usual()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, act)
    try:
        yield
    finally:
        as_usual()
