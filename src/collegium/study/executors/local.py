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
from typing import IO, Literal, Protocol

from collegium.files import open_log
from collegium.study.executors.machine import Host, Place, places
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


@dataclass
class _Running:
    """A job in its process."""

    job: Job
    place: Place
    process: "subprocess.Popen[str]"
    output: IO[str]
    log: IO[str]
    again: bool
    used_before: int | None  # bytes in use at the place when it started
    alone: bool  # no other run had yet to settle when it started
    began: float = field(default_factory=time.time)
    settled: bool = False


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
    """What computes a run: it reads recipe and folder from its input, and says what became of it."""

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        self.workers = workers
        self.host = Host()
        self.threads = threads or max(1, self.host.cores // (workers or self.host.cores))
        self.places: list[Place] = []
        self.running: list[_Running] = []
        self.need: dict[str, int] = {}  # place -> bytes that the largest run so far has taken

    def run(self, jobs: Sequence[Job]) -> Generator[Event]:
        self.places = places(self.host)
        waiting = list(jobs)
        again: list[Job] = []  # broken jobs, for a second try when nothing else is running
        asked = {job.key for job in jobs}
        done: set[str] = set()
        with terminated_as_interrupted():
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
                    time.sleep(POLL)
                    for running in list(self.running):
                        self._measure(running)
                        if running.process.poll() is not None:
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
        log = open_log(job.log)
        alone = all(r.settled for r in self.running if r.place is place)
        used = place.used()
        output = tempfile.TemporaryFile("w+")  # a pipe that nobody reads before the end holds 64 kB and no more
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,  # stays open: its end tells the run that this process is gone
            stdout=output,
            stderr=log,
            text=True,
            env={"TORCHINDUCTOR_COMPILE_THREADS": str(self.threads)}  # else every run that compiles takes all cores
            | os.environ
            | {"OMP_NUM_THREADS": str(self.threads)}
            | place.environment,
            start_new_session=True,  # Ctrl-C on the terminal reaches this process only
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a worker that dies at once is seen when it is polled
            told = {"recipe": job.recipe.to_dict(), "folder": str(job.folder), "consent": current().to_dict()}
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
        self.running.append(_Running(job, place, process, output, log, again, used, alone))

    def _measure(self, running: _Running) -> None:
        """Learns the memory that a run takes, once it has settled."""
        if running.settled:
            return
        metrics = running.job.folder / "metrics.csv"
        trained = metrics.exists() and metrics.stat().st_mtime > running.began
        if not trained and time.time() - running.began < SETTLED:
            return
        running.settled = True
        taken = running.place.taken(running.process.pid, running.used_before if running.alone else None)
        if taken is not None:
            self.need[running.place.name] = max(taken, self.need.get(running.place.name, 0))

    def _end(self, running: _Running) -> Event:
        self.running.remove(running)
        assert running.process.stdin is not None
        running.output.seek(0)
        output = running.output.read()
        with contextlib.suppress(BrokenPipeError):
            running.process.stdin.close()
        running.output.close()
        running.log.close()
        key, status = running.job.key, running.process.returncode
        if output:
            return Event(key, **json.loads(output))
        tail = running.job.log.read_text(errors="replace")[-4000:]
        if status < 0:
            name = signal.Signals(-status).name
            why = ", for which the usual reason is that memory ran out" if name == "SIGKILL" else ""
            return Event(key, "broken", f"its process was killed by {name}{why}", tail)
        return Event(key, "broken", f"its process ended with status {status} and printed nothing", tail)

    def _stop(self) -> None:
        """Lets every run save its state and end; at a second interruption ends them as they are."""
        try:
            for running in self.running:
                running.process.terminate()
            for running in self.running:
                running.process.wait()
        except KeyboardInterrupt:
            for running in self.running:
                _kill(running.process)
        for running in list(self.running):
            running.process.wait()
            self._end(running)


def _kill(process: "subprocess.Popen[str]") -> None:
    """Ends a process and those that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


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
