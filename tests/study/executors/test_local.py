"""This machine's processes, computing what is no run, so that a test takes no time."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from collegium.study.executors import local as module
from collegium.study.executors.local import Event, Job, LocalExecutor
from collegium.study.executors.machine import Host, Place
from collegium.study.executors.worker import FORKS
from helpers_study import cell

PRETENDED = """
import os, pathlib, signal, sys, time
from collegium.study.executors import worker

def work(recipe, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tries = folder / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    (folder / "started").write_text(str(time.time()))
    (folder / "processes").write_text(f"{os.getpid()} {os.getppid()}")
    what = recipe["peers"]
    outcome = {"state": "done"}
    if what == "fails":
        outcome = dict(state="failed", error="no", trace="Traceback")
    elif what == "killed" or what == "killed_once" and len(tries.read_text()) == 1:
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "wordy":
        outcome = dict(state="failed", error="no", trace="x" * 200_000)
    elif what == "long":
        def save(*_):
            (folder / "saved").touch()
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        (folder / "ready").touch()
        while True: time.sleep(0.01)
    elif what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / "ready").touch()
        while True: time.sleep(0.01)
    elif what == "kills_the_server":
        while not (folder.parent / "long" / "ready").exists(): time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    else:
        time.sleep(0.2)
    (folder / "ended").write_text(str(time.time()))
    return outcome

worker.work, worker.load = work, lambda: None
worker.main()
"""


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> LocalExecutor:
    monkeypatch.setattr(LocalExecutor, "command", (sys.executable, "-c", PRETENDED))
    monkeypatch.setattr(module, "POLL", 0.01)
    return LocalExecutor(2)


def job(folder: Path, name: str, what: str = "works", after: str | None = None) -> Job:
    return Job(name, cell(peers=what).recipe, folder / name, folder / "logs" / name, after)


def states(events: list[Event], key: str) -> list[str]:
    return [event.state for event in events if event.key == key]


def test_every_job_is_done_whatever_becomes_of_the_others(local: LocalExecutor, tmp_path: Path) -> None:
    kinds = ["works", "fails", "killed", "killed_once", "works"]
    events = list(local.run([job(tmp_path, f"{k}", kind) for k, kind in enumerate(kinds)]))
    assert states(events, "0") == states(events, "4") == ["started", "done"]
    assert states(events, "1") == ["started", "failed"], "an error is not tried again"
    assert states(events, "2") == ["started", "broken", "started", "broken"], "a killed run is, once"
    assert states(events, "3") == ["started", "broken", "started", "done"]
    failed, broken = (next(e for e in events if e.key == key and e.error) for key in "12")
    assert (failed.error, failed.trace) == ("no", "Traceback")
    assert "killed by SIGKILL, for which the usual reason is that memory ran out" in broken.error
    assert "the last words" in broken.trace


def test_a_job_may_say_more_than_a_pipe_holds(local: LocalExecutor, tmp_path: Path) -> None:
    _, failed = local.run([job(tmp_path, "a", "wordy")])
    assert (failed.state, len(failed.trace)) == ("failed", 200_000)


def test_a_job_begins_when_the_one_before_it_is_done_and_never_where_that_failed(
    local: LocalExecutor, tmp_path: Path
) -> None:
    jobs = [job(tmp_path, "student", after="teacher"), job(tmp_path, "orphan", after="bad")]
    jobs += [job(tmp_path, "teacher"), job(tmp_path, "bad", "fails"), job(tmp_path, "later", after="elsewhere")]
    events = list(local.run(jobs))
    assert states(events, "student") == states(events, "later") == ["started", "done"]
    assert states(events, "orphan") == []
    ended = float((tmp_path / "teacher" / "ended").read_text())
    assert float((tmp_path / "student" / "started").read_text()) >= ended


def test_no_more_at_once_than_asked(local: LocalExecutor, tmp_path: Path) -> None:
    local.workers = 1
    list(local.run([job(tmp_path, str(k)) for k in range(3)]))
    times = [[float((tmp_path / str(k) / f).read_text()) for f in ("started", "ended")] for k in range(3)]
    assert times[0][1] <= times[1][0] and times[1][1] <= times[2][0]


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.01)


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_interruption_lets_every_run_save_its_state(local: LocalExecutor, tmp_path: Path) -> None:
    with closing(local.run([job(tmp_path, "a", "long"), job(tmp_path, "b", "long")])) as events:
        assert [next(events).state, next(events).state] == ["started", "started"]
        for name in "ab":
            wait_for(tmp_path / name / "ready")
    assert (tmp_path / "a" / "saved").exists() and (tmp_path / "b" / "saved").exists()
    assert local.running == []


def test_sigterm_acts_like_ctrl_c(local: LocalExecutor, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    events = local.run([job(tmp_path, "a", "long"), job(tmp_path, "b", "works")])
    next(events)
    wait_for(tmp_path / "a" / "ready")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        list(events)
    events.close()
    assert (tmp_path / "a" / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_interruption_ends_runs_that_do_not_stop(local: LocalExecutor, tmp_path: Path) -> None:
    events = local.run([job(tmp_path, "a", "stubborn")])
    next(events)
    wait_for(tmp_path / "a" / "ready")
    process, server = processes(tmp_path / "a")
    again = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    again.start()
    events.close()
    again.join()
    assert gone(process) and gone(server) and local.running == []


def processes(folder: Path) -> tuple[int, int]:
    """Of a run, and of what forked it."""
    run, server = map(int, (folder / "processes").read_text().split())
    return run, server


@pytest.mark.skipif(not FORKS, reason="a run has a Python of its own where processes cannot fork")
def test_each_run_is_a_process_forked_from_one_that_lives_on(local: LocalExecutor, tmp_path: Path) -> None:
    list(local.run([job(tmp_path, name) for name in "abc"]))
    found = [processes(tmp_path / name) for name in "abc"]
    assert len({run for run, _ in found}) == 3 and len({server for _, server in found}) == 1
    assert all(map(gone, {process for pair in found for process in pair})), "none outlives the study"


@pytest.mark.skipif(not FORKS, reason="a run has a Python of its own where processes cannot fork")
def test_runs_save_their_states_when_what_forked_them_is_killed(local: LocalExecutor, tmp_path: Path) -> None:
    jobs = [job(tmp_path, "long", "long"), job(tmp_path, "bad", "kills_the_server"), job(tmp_path, "later")]
    events = []
    with closing(local.run(jobs)) as running:
        for event in running:
            events.append(event)
            if event.key == "long" and event.state == "broken":
                wait_for(tmp_path / "long" / "saved")
            if event == Event("later", "done"):
                break
    assert "killed by SIGKILL" in next(e.error for e in events if e.key == "long" and e.error)
    assert processes(tmp_path / "later")[1] != processes(tmp_path / "bad")[1]


def test_loading_leaves_cuda_alone() -> None:
    """A process that has asked for GPUs cannot give them to those that it forks."""
    code = (
        "import torch\n"
        "def no(*_): raise SystemExit('asked')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'): setattr(torch.cuda, name, no)\n"
        "from collegium.study.executors import worker; worker.load()\n"
        "import sys; assert 'collegium.training.run' in sys.modules\n"
        "import os; assert not os.path.exists('/proc/self/task') or len(os.listdir('/proc/self/task')) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


class Room(Place):
    """A place with so much memory, of which every run takes its share once it has begun."""

    def __init__(self, name: str, memory: int, share: int) -> None:
        self.name, self.memory, self.share, self.environment = name, memory, share, {}
        self.executor: LocalExecutor

    def free(self) -> int:
        return self.memory - self.share * sum(r.place is self for r in self.executor.running)

    def used(self) -> int:
        return self.memory - self.free()

    def taken(self, pid: int, before: int | None) -> int:
        return self.share


def most_at_once(executor: LocalExecutor, rooms: list[Room], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    host = Host()
    host.cores = 8
    executor.workers, executor.host, executor.threads = None, host, 1
    for room in rooms:
        room.executor = executor
    monkeypatch.setattr(module, "places", lambda host: [host, *rooms])
    monkeypatch.setattr(module, "SETTLED", 0.05)
    most = 0
    jobs = [Job(str(k), cell(device="auto").recipe, folder / str(k), folder / "log" / str(k)) for k in range(8)]
    events = list[Event]()
    for event in executor.run(jobs):
        events.append(event)
        most = max(most, len(executor.running))
    assert sum(e.state == "done" for e in events) == 8
    return most


def test_runs_are_packed_as_the_memory_that_was_measured_allows(
    local: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert most_at_once(local, [Room("gpu 0", 100, 30)], tmp_path / "a", monkeypatch) == 2
    assert local.need == {"gpu 0": 30}
    local.need = {}
    assert most_at_once(local, [Room("gpu 0", 100, 90)], tmp_path / "b", monkeypatch) == 1, "one always runs"
    local.need = {}
    rooms = [Room("gpu 0", 100, 60), Room("gpu 1", 100, 60)]
    assert most_at_once(local, rooms, tmp_path / "c", monkeypatch) == 2, "one on each"
