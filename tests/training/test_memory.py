"""Memory that is freed stays with the process while it trains, and goes back afterwards."""

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import run

from collegium.training import run as running
from collegium.training.loop import Run
from collegium.training.memory import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told to keep memory")

MAPS = """
import resource, torch

def maps():
    for _ in range(12):
        yield torch.zeros(24 * 2**20, dtype=torch.uint8)

def faults():
    "Pages that the system brings while maps of 288 MiB are made and then dropped together."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(maps())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    "Bytes of this process in memory."
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

PAGES = 288 * 2**20 // resource.getpagesize()
"""


def alone(program: str) -> None:
    """Runs it in a process of its own, whose heap nothing else has used."""
    ended = subprocess.run([sys.executable, "-c", MAPS + program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_what_is_freed_is_brought_once() -> None:
    alone("""
from collegium.training.memory import keep_freed_memory
with keep_freed_memory():
    faults(), faults(), faults()
    assert faults() < PAGES // 3  # glibc's aligned blocks leave holes, of which one or two may not be found again
""")


def test_it_goes_back_at_the_end_even_after_an_error() -> None:
    alone("""
from collegium.training.memory import keep_freed_memory
try:
    with keep_freed_memory():
        faults()
        kept = resident()
        raise KeyError
except KeyError:
    pass
assert resident() < kept - 200 * 2**20, (resident(), kept)
""")


def test_training_keeps_it_until_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, seen = [False], []

    @contextmanager
    def keep() -> Iterator[None]:
        kept[0] = True
        yield
        kept[0] = False

    def one_step(self: Run, *given: Any) -> None:
        seen.append(kept[0])
        before(self, *given)

    before = Run.train_step
    monkeypatch.setattr(running, "keep_freed_memory", keep)
    monkeypatch.setattr(Run, "train_step", one_step)
    run(tmp_path, epochs=1)
    assert seen and all(seen) and not kept[0]


def test_nothing_is_done_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", None)
    with keep_freed_memory():
        pass
