"""Where the runs of a study are computed: what every executor promises, and this machine's processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from collegium.files import open_log
from collegium.study.executors.machine import Host, Place, places
from collegium.study.executors.worker import FORKS
from collegium.training.recipe import Recipe
from collegium.user_code import current

POLL = 0.2  # seconds from one look at the processes to the next
SETTLED = 60.0  # seconds after which a run has taken the memory that it will take, where no epoch has ended before
ROOM = 1.5  # times the memory of the largest run so far that must be free for one more


@dataclass(frozen=True)
class Job:
    """One run to be computed.

    Args:
        key: names the run in events.
        recipe: what to train.
        folder: the run's folder.
        log: a file for whatever its process prints.
        after: the key of the job that must be done first.
    """

    key: str
    recipe: Recipe
    folder: Path
    log: Path
    after: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Args:
        key: the job's.
        state: "started"; "done", result.json is written; "failed", it ended in an error; "broken", it was killed.
        error: why it failed or broke, in a sentence.
        trace: the traceback, or the end of what its process printed.
    """

    key: str
    state: Literal["started", "done", "failed", "broken"]
    error: str = ""
    trace: str = ""


class Executor(Protocol):
    """Computes runs, by :func:`collegium.study.executors.worker.work` or to the same effect: whole run folders.

    An executor promises that

    - a job starts after the one named by its ``after`` is done, and never where that one is not done in the end;
    - every job that starts yields "started", and then "done", "failed" or "broken" before anything else happens to
      it; a job that broke may be started again;
    - what becomes of one job does not stop the others;
    - closing the generator, or a KeyboardInterrupt while it is waited for, stops every run after it has saved its
      state; a second KeyboardInterrupt stops them at once;
    - no run outlives the process that iterates.
    """

    def run(self, jobs: Sequence[Job]) -> Generator[Event]:
        """Computes the jobs; ends when nothing more can be done."""
        ...


class _Server:
    """A process that computes runs; see :mod:`collegium.study.executors.worker`."""

    def __init__(self, command: Sequence[str], threads: int, log: Path, said: "SimpleQueue[_Message]") -> None:
        self.log = log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={"TORCHINDUCTOR_COMPILE_THREADS": str(threads)}  # else every run that compiles takes all cores
                | os.environ
                | {"OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # Ctrl-C on the terminal reaches this process only
            )
        self.said = said
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.said.put((self, json.loads(line)))
        self.process.wait()
        self.said.put((self, None))

    def start(self, **job: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # one that died at once is seen by its listener
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """It lets every run save its state, and ends."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


_Message = tuple[_Server, dict[str, Any] | None]
"""What a server said; None: it has ended."""


@dataclass
class _Running:
    """A job in its process."""

    job: Job
    place: Place
    server: _Server
    outcome: Path
    again: bool
    used_before: int | None  # bytes in use at the place when it started
    alone: bool  # no other run had yet to settle when it started
    began: float = field(default_factory=time.time)
    settled: bool = False
    process: int | None = None
    status: int | None = None  # of its process, once that has ended


class LocalExecutor:
    """This machine: a process for each run, as many at once as there is room for.

    Without ``workers`` there are at most as many runs at once as cores. The first run computes alone until an epoch
    has ended; the memory that it has taken by then, on the GPU or in the machine, must be free one and a half times
    for each further run. Where there are several GPUs a run goes to the one that computes the fewest.

    Args:
        workers: so many runs at once, whatever their memory.
        threads: of each run on the CPU; by default 1, or the cores that each of ``workers`` can have.
    """

    command: Sequence[str] = (sys.executable, "-m", "collegium.study.executors.worker")
    """What computes runs, see :mod:`collegium.study.executors.worker`."""

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        self.workers = workers
        self.host = Host()
        self.threads = threads or max(1, self.host.cores // (workers or self.host.cores))
        self.places: list[Place] = []
        self.running: list[_Running] = []
        self.servers: list[_Server] = []
        self.said: SimpleQueue[_Message] = SimpleQueue()
        self.need: dict[str, int] = {}  # place -> bytes that the largest run so far has taken

    def run(self, jobs: Sequence[Job]) -> Generator[Event]:
        self.places = places(self.host)
        waiting = list(jobs)
        again: list[Job] = []  # broken jobs, for a second try when nothing else is running
        asked = {job.key for job in jobs}
        done: set[str] = set()
        with terminated_as_interrupted(), tempfile.TemporaryDirectory() as scratch:
            self.scratch = Path(scratch)
            try:
                while waiting or again or self.running:
                    ready = [job for job in waiting if job.after not in asked or job.after in done]
                    for job in ready:
                        place = self._room(job)
                        if place is not None:
                            waiting.remove(job)
                            self._start(job, place, again=False)
                            yield Event(job.key, "started")
                    if again and not self.running and not ready:
                        job = again.pop(0)
                        self._start(job, self._candidates(job)[0], again=True)
                        yield Event(job.key, "started")
                    if not self.running:
                        break  # what is left waits for something that did not finish
                    self._listen(POLL)
                    for running in list(self.running):
                        self._measure(running)
                        if running.status is not None:
                            event = self._end(running)
                            if event.state == "done":
                                done.add(event.key)
                            if event.state == "broken" and not running.again:
                                again.append(running.job)
                            yield event
            finally:
                self._stop()

    def _candidates(self, job: Job) -> list[Place]:
        """Where a job may go, the emptiest place first."""
        gpus = [place for place in self.places if place is not self.host]
        fitting = gpus if gpus and job.recipe.device != "cpu" else [self.host]
        return sorted(fitting, key=lambda place: sum(r.place is place for r in self.running))

    def _room(self, job: Job) -> Place | None:
        """The place for one more run, None where there is none yet."""
        if self.workers is not None:
            return self._candidates(job)[0] if len(self.running) < self.workers else None
        if len(self.running) >= max(1, self.host.cores // self.threads):
            return None
        return next((place for place in self._candidates(job) if self._has_memory(place)), None)

    def _has_memory(self, place: Place) -> bool:
        here = [r for r in self.running if r.place is place]
        need = self.need.get(place.name)
        if not here:
            return True
        if need is None:
            return place.free() is None
        free = place.free()
        if free is None:
            return True
        growing = sum(not r.settled for r in here)
        return free - growing * need >= ROOM * need

    def _start(self, job: Job, place: Place, *, again: bool) -> None:
        open_log(job.log).close()  # what cannot be written ends the study here
        alone = all(r.settled for r in self.running if r.place is place)
        used = place.used()
        if not self.servers or not FORKS:
            log = self.scratch / f"{job.key}.txt"
            self.servers.append(_Server(self.command, self.threads, log, self.said))
        running = _Running(job, place, self.servers[-1], self.scratch / f"{job.key}.json", again, used, alone)
        running.outcome.unlink(missing_ok=True)
        running.server.start(
            key=job.key,
            recipe=job.recipe.to_dict(),
            folder=str(job.folder),
            log=str(job.log),
            outcome=str(running.outcome),
            environment=place.environment,
            consent=current().to_dict(),
        )
        self.running.append(running)

    def _listen(self, seconds: float) -> None:
        """Takes what servers say, and waits for it for so many seconds."""
        with contextlib.suppress(Empty):
            while True:
                server, line = self.said.get(timeout=seconds)
                seconds = 0
                if line is None:
                    server.close()
                    self.servers.remove(server)
                for running in self.running:
                    if running.server is server and line is None and running.status is None:
                        running.status = server.process.returncode
                    elif line is not None and running.job.key == line["key"]:
                        running.process = line.get("process", running.process)
                        running.status = line.get("status")

    def _measure(self, running: _Running) -> None:
        """Learns the memory that a run takes, once it has settled."""
        if running.settled or running.process is None:
            return
        metrics = running.job.folder / "metrics.csv"
        trained = metrics.exists() and metrics.stat().st_mtime > running.began
        if not trained and time.time() - running.began < SETTLED:
            return
        running.settled = True
        taken = running.place.taken(running.process, running.used_before if running.alone else None)
        if taken is not None:
            self.need[running.place.name] = max(taken, self.need.get(running.place.name, 0))

    def _end(self, running: _Running) -> Event:
        self.running.remove(running)
        key, status = running.job.key, running.status
        assert status is not None
        if running.outcome.exists():
            return Event(key, **json.loads(running.outcome.read_text()))
        printed = running.job.log.read_text(errors="replace") or running.server.log.read_text(errors="replace")
        tail = printed[-4000:]
        if status < 0:
            name = signal.Signals(-status).name
            why = ", for which the usual reason is that memory ran out" if name == "SIGKILL" else ""
            return Event(key, "broken", f"its process was killed by {name}{why}", tail)
        return Event(key, "broken", f"its process ended with status {status} and printed nothing", tail)

    def _stop(self) -> None:
        """Lets every run save its state and end; at a second interruption ends them as they are."""
        try:
            for server in self.servers:
                server.close()
            while self.servers:
                self._listen(POLL)
        except KeyboardInterrupt:
            self._listen(0)
            for process in (*(r.process for r in self.running), *(server.process.pid for server in self.servers)):
                if process is not None:
                    _kill(process)
            while self.servers:
                self._listen(POLL)
        self.running.clear()


def _kill(process: int) -> None:
    """Ends a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process, signal.SIGKILL)
        else:
            os.kill(process, signal.SIGTERM)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which a cluster sends before it takes the machine, acts like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
