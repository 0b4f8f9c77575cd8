"""Where runs compute on this machine, and how much memory is left there."""

import math
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

FRESH = 1.0  # seconds that for which a GPU's free memory counts as known


class Place(ABC):
    """The machine itself, or one of its GPUs. Memory is in bytes, None where it cannot be known."""

    name: str
    environment: dict[str, str]
    """What a run's process must find in its environment in order to compute here."""

    @abstractmethod
    def free(self) -> int | None:
        """Memory that could be taken now."""

    @abstractmethod
    def used(self) -> int | None:
        """Memory that is taken now, by whatever it is."""

    @abstractmethod
    def taken(self, pid: int, before: int | None) -> int | None:
        """Memory that the process of a run has taken; ``before`` was used without it, None if that was not seen."""


class Host(Place):
    """The machine: its cores and its main memory, as far as this process may use them."""

    name = "cpu"

    def __init__(self) -> None:
        self.environment = {}
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def free(self) -> int | None:
        known = [_entry(Path("/proc/meminfo"), "MemAvailable:"), left_in(Path("/sys/fs/cgroup"))]
        return min((memory for memory in known if memory is not None), default=None)

    def used(self) -> int | None:
        return None

    def taken(self, pid: int, before: int | None) -> int | None:
        peaks = [_entry(Path(f"/proc/{process}/status"), "VmHWM:") for process in _family(pid)]
        return sum(peak or 0 for peak in peaks) or None


class Gpu(Place):
    """One GPU, asked by nvidia-smi, which sees what torch keeps in reserve and the driver's share besides."""

    def __init__(self, identity: str) -> None:
        self.name = f"gpu {identity}"
        self.identity = identity
        self.environment = {"CUDA_VISIBLE_DEVICES": identity}
        self.told: tuple[float, int | None] = (-math.inf, None)  # when it was asked, and its answer

    def free(self) -> int | None:
        if time.monotonic() - self.told[0] > FRESH:  # each question is a process
            self.told = time.monotonic(), self._ask("memory.free")
        return self.told[1]

    def used(self) -> int | None:
        return self._ask("memory.used")

    def taken(self, pid: int, before: int | None) -> int | None:
        used = self._ask("memory.used")
        return None if used is None or before is None else max(0, used - before) or None

    def _ask(self, what: str) -> int | None:
        told = _nvidia_smi(f"--query-gpu={what}", "--format=csv,noheader,nounits", f"--id={self.identity}")
        return int(told[0]) * 2**20 if told and told[0].isdigit() else None


def places(host: Host) -> list[Place]:
    """The machine and its visible GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = [identity.strip() for identity in visible.split(",") if identity.strip() not in ("", "-1")]
    else:
        found = _nvidia_smi("--query-gpu=index", "--format=csv,noheader")
    return [host, *map(Gpu, found)]


def left_in(group: Path) -> int | None:
    """Memory that a container's own limit leaves, None where there is no limit."""
    try:
        limit, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files that were read stay in memory until it is wanted.
        return limit - taken + int(told["active_file"]) + int(told["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None


def _nvidia_smi(*arguments: str) -> list[str]:
    """The lines that it prints; none where there is no such program or GPU."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _entry(file: Path, name: str) -> int | None:
    """An entry in kB of a file of /proc, in bytes."""
    try:
        line = next(line for line in file.read_text().splitlines() if line.startswith(name))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _family(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))
