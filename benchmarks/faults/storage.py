"""Storage that fails wherever a run, a report, an export or a study's pages are written; then it is well again.

python benchmarks/faults/storage.py [--count 1000] [--out FOLDER]

From the n-th file operation on, for every n, all that writes fails: no space, no quota, a read-only file system, no
permission, an error of the device; or the folder is lost. Real file systems too, where this process may mount them: of
sizes and numbers of files from almost nothing to enough, and read-only; and a limit on the size of files. What is told
must name the file in one sentence, or be a warning where what fails is not needed; and the same call, repeated when all
is well, must end like an undisturbed one, bit for bit.
"""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kills import content, counted, difference, left_over, training
from operations import Call, watch
from trials import (
    OK,
    TINY,
    Case,
    Outcome,
    Record,
    command,
    copy,
    finish,
    make_study,
    must,
    parser,
    spread,
    steering_fault,
    trial,
    warm,
)

ERRORS = {
    "no space": errno.ENOSPC,
    "no quota": errno.EDQUOT,
    "read-only": errno.EROFS,
    "no permission": errno.EACCES,
    "error of the device": errno.EIO,
}
FREES = ("unlink", "rmdir")  # possible where there is no space


@dataclass(frozen=True)
class Job:
    """Something that writes beneath "run" or "study" in its folder.

    Args:
        name: what it is.
        call: in the folder, as a person would call it.
        base: what must lie there before.
        written: the folder whose operations fail.
        result: what to compare after it.
    """

    name: str
    call: Callable[[Path], Callable[[], object]]
    base: Path | None
    written: str
    result: Callable[[Path], Any]


def spoken(call: Callable[[], object]) -> Callable[[], None]:
    """A call from Python that ends as a command does, warnings too."""

    def run() -> None:
        import warnings

        from collegium.errors import CollegiumError

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: print(f"collegium: warning: {message}", file=sys.stderr)
            try:
                call()
            except CollegiumError as error:
                print(f"collegium: {error}", file=sys.stderr)
                sys.exit(error.exit_status)

    return run


def failing(folder: Path, first: int, kind: str) -> Callable[[], None]:
    """From the operation ``first`` on storage fails so."""

    def happens(number: int, name: str, path: Path, call: Call, _: object) -> Any:
        if number < first:
            return call()
        if kind == "the folder is lost":
            if number == first:
                shutil.rmtree(folder, ignore_errors=True)
            return call()
        if name in FREES and kind in ("no space", "no quota"):
            return call()
        code = ERRORS[kind]
        raise OSError(code, os.strerror(code), str(path))

    return lambda: watch(folder, happens)


def pages(folder: Path) -> Any:
    """The pages and tables that are there, but for what is said of times; no halves of files."""
    names = ("report.html", "table.md", "table.tex", "runs.csv", "summary.csv")
    there = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name in names)
    return {"there": there, "empty": [name for name in there if not (folder / name).stat().st_size]}


def exported(folder: Path) -> Any:
    return {"there": sorted(p.name for p in (folder / "run" / "exports").iterdir() if p.stat().st_size)}


def jobs(scratch: Path) -> list[Job]:
    """All of them; what they begin with is made in ``scratch``."""
    base = scratch / "base"
    base.mkdir()
    must(trial(command("train", *TINY, "--run", "run", "--quiet"), base), "training")
    (base / "run/report.html").unlink()
    study = ("compare", "--methods", "dml", *TINY[2:], "--seeds", "0", "--study", "study", "--workers", "1", "--quiet")
    make_study(base)
    return [
        Job(
            "training",
            lambda folder: spoken(training("dml", folder / "run")),
            None,
            "run",
            lambda f: content(f / "run"),
        ),
        Job("report", lambda _: command("report", "run"), base, "run", pages),
        Job("export", lambda _: command("export", "run"), base, "run", exported),
        Job("study", lambda _: command(*study), base, "study", pages),
    ]


def begin(job: Job, folder: Path) -> Path:
    if job.base is None:
        folder.mkdir()
        return folder
    return copy(job.base, folder)


def fault(job: Job, outcome: Outcome, folder: Path) -> str:
    """Whether what was said of failing storage is what a person needs."""
    said = outcome.errors.replace(str(folder), "FOLDER")
    if outcome.killed_by is not None:
        return f"killed by signal {outcome.killed_by}"
    lines = [line for line in said.splitlines() if line]
    strange = [line for line in lines if not line.startswith("collegium: ")]
    if strange:
        return f"says {' '.join(strange)[-200:]}"
    last = [line for line in lines if not line.startswith("collegium: warning: ")]
    if len(last) != (outcome.status != 0):
        return f"status {outcome.status} with {len(last)} sentences"
    if any("--debug shows where" in line or len(line) > 420 for line in lines):
        return f"no good sentence: {max(lines, key=len)[-200:]}"
    if not lines:
        return "" if job.name == "training" else "not a word"
    if not any(name in lines[-1] for name in ("FOLDER", f"{job.written}/", f" {job.written}", "recipe.yaml")):
        return f"names no file: {lines[-1][-200:]}"
    return steering_fault(outcome)


def check(job: Job, folder: Path, disturbed: Outcome, expected: Any, *, silent: bool = False) -> str:
    """What is wrong after a disturbed call; the same call is repeated undisturbed."""
    found = fault(job, disturbed, folder)
    if found and not (silent and found == "not a word"):
        return found
    again = trial(job.call(folder), folder, seconds=200)
    if again.status != 0:
        return f"repeated: status {again.status}: {again.errors[-200:]}"
    wrong = difference(job.result(folder), expected) or left_over(folder / job.written)
    return f"repeated: differs in {wrong}" if wrong else OK


def injected(job: Job, scratch: Path, count: int) -> Iterator[Case]:
    """Every operation of a job, with one kind of failure each in turn."""
    folder = begin(job, scratch / "counted")
    outcome = must(trial(counted(folder / job.written, job.call(folder)), folder, seconds=200), job.name)
    expected, operations = job.result(folder), int(outcome.output.split()[-1])
    shutil.rmtree(folder)
    kinds = [*ERRORS, "the folder is lost"] if job.base is None else list(ERRORS)
    for number in spread(range(operations), count):
        kind = kinds[number % len(kinds)]
        folder = begin(job, scratch / f"{job.name}-{number}")
        outcome = trial(job.call(folder), folder, prepare=failing(folder / job.written, number, kind), seconds=200)
        found = check(job, folder, outcome, expected)
        shutil.rmtree(folder)
        yield Case(0, f"{job.name}: {kind}", f"from operation {number} of {operations} on", found, outcome.seconds)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A tmpfs; raises CalledProcessError where this process may not mount one."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def real(job: Job, scratch: Path, count: int) -> Iterator[Case]:
    """The training on file systems that are too small, or read-only."""
    whole = scratch / "whole"
    whole.mkdir()
    must(trial(job.call(whole), whole), job.name)
    expected = job.result(whole)
    files = [path for path in whole.rglob("*") if path.is_file()]
    pages_needed = sum(-(-path.stat().st_size // 4096) for path in files)
    inodes = len(list(whole.rglob("*"))) + 1
    limits = [("small disk", f"size={4096 * k},nr_inodes=1000") for k in range(1, pages_needed + 8)]
    limits += [("few inodes", f"size=64m,nr_inodes={k}") for k in range(1, inodes + 3)]
    for kind, options in spread(limits, count):
        place = scratch / "small"
        with mounted(place, options):
            outcome = trial(job.call(place), place)
            remount(place, "size=64m,nr_inodes=10000")
            found = check(job, place, outcome, expected)
        place.rmdir()
        yield Case(0, f"{job.name}: {kind}", options, found, outcome.seconds)
    for done in (False, True):
        place = scratch / "small"
        with mounted(place, "size=64m"):
            if done:
                must(trial(job.call(place), place), job.name)
                (place / "run/result.json").unlink()
            remount(place, "ro")
            outcome = trial(job.call(place), place)
            remount(place, "rw")
            found = check(job, place, outcome, expected)
        place.rmdir()
        what = "a run that lacks its result" if done else "an empty folder"
        yield Case(0, f"{job.name}: mounted read-only", what, found, outcome.seconds)


def limited(job: Job, scratch: Path, count: int) -> Iterator[Case]:
    """The training with a limit on the size of any file."""
    whole = scratch / "unlimited"
    whole.mkdir()
    must(trial(job.call(whole), whole), job.name)
    expected = job.result(whole)
    sizes = sorted({path.stat().st_size for path in whole.rglob("*") if path.is_file()})
    for size in spread([size - 1 for size in sizes if size > 600], count):
        folder = begin(job, scratch / f"limit-{size}")
        set_limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        outcome = trial(job.call(folder), folder, prepare=set_limit)
        found = check(job, folder, outcome, expected)
        shutil.rmtree(folder)
        yield Case(0, f"{job.name}: files of limited size", f"{size} bytes", found, outcome.seconds)


def main() -> None:
    options = parser(__doc__ or "", 100_000).parse_args()
    warm()
    record = Record("storage", options.out)
    left_out = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        training_job, *others = jobs(scratch)
        each = max(1, options.count // 6)
        parts = [injected(training_job, scratch, each), real(training_job, scratch, each)]
        parts += [limited(training_job, scratch, each), *(injected(job, scratch, each) for job in others)]
        for part in parts:
            try:
                for case in part:
                    case.number = record.next_number
                    record.add(case)
            except subprocess.CalledProcessError as error:
                left_out["not_mounted"] = json.dumps(error.stderr.decode()[:100])
    finish(record, options, **left_out)


if __name__ == "__main__":
    main()
