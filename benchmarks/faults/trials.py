"""What the campaigns of faults share: trials in forked processes, snapshots of folders, records.

A campaign is a list of numbered cases. Each is tried in a process of its own, which is forked from this one with all
imports done, so that it may hang, die or take memory without harm. The record of a campaign is two files beneath
results/reliability: NAME.csv has a line for each case, NAME.json says when, where and with which code they were tried.
"""

import argparse
import csv
import datetime
import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from collegium.training.provenance import provenance

RESULTS = Path(__file__).parents[2] / "results" / "reliability"
GIB = 2**30
OK = "ok"


def warm() -> None:
    """Imports what trials need. This process must never compute gradients, nor with several threads: it forks."""
    torch.set_num_threads(1)
    import collegium.api
    import collegium.cli
    import collegium.exporting
    import collegium.pages.rank_page
    import collegium.pages.run_page
    import collegium.pages.run_table
    import collegium.parsing
    import collegium.study.live
    import collegium.study.study
    import collegium.training.run  # noqa: F401

    gc.collect()
    gc.freeze()  # so that looking for garbage in a trial does not copy all memory


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    status: int | None  # None where it was killed
    killed_by: int | None
    output: str
    errors: str
    seconds: float  # of computing, its own; this machine may have other work
    peak: int  # bytes of its resident memory at most, with those that it began with

    @property
    def text(self) -> str:
        return self.output + self.errors


def trial(
    call: Callable[[], object],
    folder: Path,
    *,
    seconds: float = 60.0,
    memory: int | None = None,
    prepare: Callable[[], object] | None = None,
) -> Outcome:
    """Calls in a forked process whose current folder is ``folder``; it is killed after so many seconds by the clock.

    Args:
        call: its SystemExit is the process's; another exception is written with its traceback, and the status is 70.
        folder: must be there.
        seconds: by the clock, after which it is killed.
        memory: bytes of address space that it may take besides those that it begins with.
        prepare: called in the process before.
    """
    files = [folder.parent / f"{folder.name}.{os.getpid()}.{name}" for name in ("out", "err")]
    deadline = time.monotonic() + seconds
    child = os.fork()
    if child == 0:
        _become(call, folder, files, memory, prepare)
    status, usage = _await(child, deadline)
    with suppress(ProcessLookupError, PermissionError):  # what it started and left
        os.killpg(child, signal.SIGKILL)
    output, errors = (log.read_bytes().decode(errors="backslashreplace") for log in files)
    for log in files:
        log.unlink()
    exited = os.WIFEXITED(status)
    return Outcome(
        os.WEXITSTATUS(status) if exited else None,
        None if exited else os.WTERMSIG(status),
        output,
        errors,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
    )


def _await(child: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    pause = 0.002
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def _become(
    call: Callable[[], object],
    folder: Path,
    logs: Sequence[Path],
    memory: int | None,
    prepare: Callable[[], object] | None,
) -> None:
    """The trial's process, which ends here."""
    status = 0
    try:
        os.setsid()
        os.chdir(folder)
        for number, log in enumerate(logs, start=1):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if memory is not None:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        if prepare is not None:
            prepare()
        call()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def command(*arguments: str) -> Callable[[], None]:
    """The command line, as a call for :func:`trial`."""

    def call() -> None:
        from collegium.cli import main

        main(list(arguments))

    return call


def sentence_fault(outcome: Outcome, *names: Path, status: int | None = None) -> str:
    """Why a command's refusal is not one sentence that a person can use; "" where it is one.

    Args:
        outcome: of the command.
        names: of folders of the trial, whose lengths do not count.
        status: which it must have; any but 0 by default.
    """
    if outcome.killed_by is not None:
        return f"killed by {signal.Signals(outcome.killed_by).name} after {outcome.seconds:.1f} s of computing"
    if outcome.status == 0:
        return "accepted"
    if status is not None and outcome.status != status:
        return f"status {outcome.status}, not {status}: {_short(outcome.errors)}"
    said = [line for line in outcome.errors.splitlines() if not line.startswith("collegium: warning: ")]
    if len(said) != 1 or not said[0].startswith("collegium: "):
        return f"{len(said)} lines: {_short(outcome.errors)}"
    if "--debug shows where" in said[0]:
        return f"no sentence of its own: {_short(said[0])}"
    sentence = said[0].removeprefix("collegium: ")
    for name in names:
        sentence = sentence.replace(f"{name}/", "").replace(str(name), "FOLDER")
    if len(sentence) > 300:
        return f"{len(sentence)} characters: {_short(sentence)}"
    return steering_fault(outcome)


def steering_fault(outcome: Outcome) -> str:
    """Whether what was shown could steer a terminal; "" where it could not."""
    steering = re.search(r"[^\x20-\x7e\n\t\xa0-\U0010ffff]", outcome.text)
    return f"writes {steering.group()!r} to the terminal" if steering else ""


def _short(text: str) -> str:
    return " ".join(text.split())[-160:]


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything beneath a folder, followed through no link: what it is and what it holds."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        held: object = None
        if path.is_symlink():
            held = os.readlink(path)
        elif path.is_file():
            held = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_ino, held)
    return found


def copy(source: Path, target: Path) -> Path:
    """A copy of a folder, in which links stay links."""
    return Path(shutil.copytree(source, target, symlinks=True))


@dataclass
class Case:
    """One line of a record."""

    number: int
    kind: str
    what: str
    outcome: str = OK
    seconds: float = 0.0


COLUMNS = list(asdict(Case(0, "", "")))


@dataclass
class Record:
    """What a campaign found: its cases, and when and where they were tried.

    Args:
        name: of the campaign and of its files.
        folder: where they lie.
        goes_on: later calls add cases; else each starts the record anew.
    """

    name: str
    folder: Path = RESULTS
    goes_on: bool = False
    cases: list[Case] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._where = provenance(torch.device("cpu"))  # now: the working tree may change while cases are tried
        self._before = 0
        if self.goes_on and self.table.exists():
            with self.table.open(newline="") as file:
                self.cases = [
                    Case(int(row["number"]), row["kind"], row["what"], row["outcome"], float(row["seconds"]))
                    for row in csv.DictReader(file)
                ]
            self.sessions = json.loads(self.about.read_text())["sessions"]
            self._before = len(self.cases)

    @property
    def table(self) -> Path:
        return self.folder / f"{self.name}.csv"

    @property
    def about(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def failed(self) -> list[Case]:
        return [case for case in self.cases if case.outcome != OK]

    @property
    def added(self) -> int:
        return len(self.cases) - self._before

    @property
    def next_number(self) -> int:
        return max((case.number for case in self.cases), default=-1) + 1

    def add(self, case: Case) -> None:
        self.cases.append(case)
        if case.outcome != OK:
            print(f"{case.number} {case.kind}: {case.what}: {case.outcome}", flush=True)

    def keep(self, wanted: Callable[[Case], bool]) -> None:
        """Leaves out the other cases, which are to be tried anew."""
        self.cases = [case for case in self.cases if wanted(case)]
        self._before = len(self.cases)

    def write(self, options: argparse.Namespace, **more: object) -> None:
        """Writes both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(case) | {"seconds": round(case.seconds, 2)} for case in self.cases)
        session = {
            "date": datetime.date.today().isoformat(),
            **{name: self._where[name] for name in ("commit", "device", "platform", "python", "torch")},
            "seed": options.seed,
            "cases": self.added,
            "seconds": round(time.monotonic() - self._begun),
            **more,
        }
        self.about.write_text(json.dumps({"sessions": [*self.sessions, session]}, indent=2) + "\n")


def parser(description: str, count: int) -> argparse.ArgumentParser:
    """The options that all campaigns have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--count", type=int, default=count, help="cases of this call")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=RESULTS, help="where the record is written")
    return made


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """So many of a list, evenly; all where there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[k * len(items) // count] for k in range(count)]


def finish(record: Record, options: argparse.Namespace, **more: object) -> None:
    """Writes the record and the page of all, and exits with 1 where a case failed."""
    record.write(options, **more)
    if record.folder == RESULTS:
        from page import write_page

        write_page()
    print(f"{record.name}: {record.added} cases, {len(record.failed)} of {len(record.cases)} failed")
    sys.exit(1 if record.failed else 0)


def tiny_run(run: Path, **changes: Any) -> Callable[[], object]:
    """Trains two small networks by name for two epochs of two steps; a call for :func:`trial`."""
    recipe: dict[str, Any] = {
        "method": "dml",
        "peers": "2xresnet8",
        "data": {"name": "digits", "per_class": 4},
        "epochs": 2,
        "batch_size": 20,
        "device": "cpu",
    }

    def call() -> object:
        from collegium import api

        return api.train(run=run, quiet=True, **(recipe | changes))

    return call


TINY = [
    *("--method", "dml", "--peers", "2xresnet8", "--data", "digits", "--data.per-class", "4"),
    *("--epochs", "2", "--batch-size", "20", "--device", "cpu"),
]
"""The same as options of a command."""


def make_study(folder: Path) -> None:
    """A study of two runs in ``folder``/study, trained in a trial rather than by a worker, which would take long."""

    def call() -> None:
        from collegium import api
        from collegium.study.study import Study
        from collegium.training.run import train

        api.compare(
            methods="independent,dml",
            study="study",
            peers="2xresnet8",
            data={"name": "digits", "per_class": 4},
            seeds=[0],
            epochs=2,
            batch_size=20,
            device="cpu",
            hypothesis="none",
            plan_only=True,
            quiet=True,
        )
        study = Study.open("study")
        for cell in study.cells:
            train(study.recipe(cell), study.run_folder(cell).path, quiet=True)
        api.publish("study")

    must(trial(call, folder, seconds=200), "the study")


def must(outcome: Outcome, what: str) -> Outcome:
    """The outcome of what a campaign itself depends on."""
    if outcome.status != 0:
        raise SystemExit(f"{what} did not go: {outcome.text}")
    return outcome


def kinds(cases: Iterable[Case]) -> Mapping[str, list[Case]]:
    """Cases by kind, in their order."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.kind, []).append(case)
    return found
