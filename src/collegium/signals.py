"""Signals that make a run save its state and stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAME_REQUEST = 2.0
"""Seconds within which signals are one request: a cluster signals every process, and some pass a signal on."""

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextmanager
def at_first_stop_signal(action: Callable[[], object]) -> Iterator[None]:
    """Within it the first stop signal calls ``action``, and a later one has its usual effect.

    Outside the main thread, where Python handles no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    requested: list[float] = []  # when

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def act(number: int, _: object) -> None:
        if not requested:
            requested.append(time.monotonic())
            action()
        elif time.monotonic() - requested[0] > SAME_REQUEST:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, act)
    try:
        yield
    finally:
        restore()
