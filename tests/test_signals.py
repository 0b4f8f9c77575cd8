"""The first signal to stop asks, a later one acts as usual."""

import signal
import threading

import pytest

from collegium import signals
from collegium.signals import STOP_SIGNALS, at_first_stop_signal


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_acts_once_and_the_second_one_as_usual(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual: list[int] = []
    asked: list[str] = []
    before = signal.signal(number, lambda *_: usual.append(number))
    try:
        with at_first_stop_signal(lambda: asked.append("stop")):
            signal.raise_signal(number)
            for other in STOP_SIGNALS:  # at the same time: whoever stops a job may signal each of its processes
                signal.raise_signal(other)
            assert (asked, usual) == (["stop"], [])
            monkeypatch.setattr(signals, "SAME_REQUEST", 0.0)
            signal.raise_signal(number)
        assert (asked, usual) == (["stop"], [number])
        signal.raise_signal(number)
        assert (asked, usual) == (["stop"], [number, number])
    finally:
        signal.signal(number, before)


def test_another_thread_hears_no_signals() -> None:
    entered: list[bool] = []

    def work() -> None:
        with at_first_stop_signal(lambda: None):
            entered.append(True)

    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered and before == [signal.getsignal(number) for number in STOP_SIGNALS]
