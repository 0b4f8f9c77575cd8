"""Signals by which a run is told to save its state and stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextmanager
def at_first_stop_signal(action: Callable[[], object]) -> Iterator[None]:
    """Within it the first signal to stop calls ``action``, and a second one acts as usual.

    Outside the main thread, where Python hears no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def as_usual() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def act(*_: object) -> None:
        as_usual()
        action()

    for number in before:
        signal.signal(number, act)
    try:
        yield
    finally:
        as_usual()
