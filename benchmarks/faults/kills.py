"""Kills small runs again and again until they end, and compares them with undisturbed ones, bit for bit.

python benchmarks/faults/kills.py [--count 250] [--seed 0] [--minutes 30] [--out FOLDER]

A case is a run of one of all methods, of two or three peers of about 500 weights on 40 digits: three epochs of two
steps, a checkpoint after each. Its process is killed one to six times, each time at a random moment of its computing
time (by the kernel, no Python runs any more), or before, within or after a randomly chosen file operation: within means
that half of the bytes are written. Then the same call is repeated until it ends. Repeated, the script adds cases to the
record.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from operations import Call, watch
from torch import nn
from trials import OK, Case, Outcome, Record, finish, must, parser, trial, warm

OWN: dict[str, dict[str, Any]] = {"one": {"method": {"name": "one", "gate": False}}, "ffsd": {}, "okddip": {}}
"""What the methods that need more than their name have besides; two of them need three peers."""
MOST_KILLS = 6


def network() -> nn.Module:
    """The smallest peer in which methods find several stages."""

    def stage(given: int) -> nn.Module:
        convolution = nn.Conv2d(given, 4, 3, padding=1, stride=2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU())

    return nn.Sequential(stage(1), stage(4), stage(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def training(method: str, run: Path) -> Callable[[], object]:
    """The run of a method, which goes on where it was killed."""

    def call() -> object:
        from collegium import api, methods

        torch.manual_seed(0)
        peers = 3 if method in ("ffsd", "okddip") else 2
        teacher = {"teacher": network()} if methods.get(method).needs_teacher else {}
        recipe: dict[str, Any] = {"method": method, "epochs": 3, "batch_size": 20, "device": "cpu", "mixup": 0.2}
        return api.train(
            run=run,
            peers=[network() for _ in range(peers)],
            data={"name": "digits", "per_class": 4},
            quiet=True,
            **recipe | teacher | OWN.get(method, {}),
        )

    return call


def kill_at(run: Path, number: int, when: str) -> Callable[[], None]:
    """Makes the process kill itself before, within or after its file operation of this number."""

    def happens(count: int, name: str, path: Path, call: Call, first: Any) -> Any:
        if count != number:
            return call()
        if when == "within" and name == "fsync" and not path.is_dir():
            os.ftruncate(first, os.fstat(first).st_size // 2)
        elif when == "after":
            call()
        os.kill(os.getpid(), signal.SIGKILL)

    return lambda: watch(run, happens)


def counted(run: Path, call: Callable[[], object]) -> Callable[[], None]:
    """The call, which then prints how many file operations it made."""

    def counting() -> None:
        numbers: list[int] = []

        def happens(count: int, name: str, path: Path, call: Call, first: Any) -> Any:
            numbers.append(count)
            return call()

        watch(run, happens)
        call()
        print(len(numbers))

    return counting


def kill_after(seconds: float) -> Callable[[], None]:
    """Makes the kernel end the process after so much computing."""
    return lambda: signal.setitimer(signal.ITIMER_PROF, seconds) and None


def draw_kill(run: Path, draw: random.Random, seconds: float, operations: int) -> tuple[str, Callable[[], None]]:
    """In words, and what prepares a process for it."""
    if draw.random() < 0.4:
        share = draw.random()
        return f"after {share:.0%} of its time", kill_after(max(0.001, share * seconds))
    number, when = draw.randrange(operations), draw.choice(["before", "within", "after"])
    return f"{when} operation {number}", kill_at(run, number, when)


def content(run: Path) -> dict[str, Any]:
    """All that a run ends in, but for times: by file, tensors as they are."""
    from safetensors.torch import load_file

    result = json.loads((run / "result.json").read_text())
    for name in ("seconds", "training_seconds", "images_per_second"):
        del result[name]
    found: dict[str, Any] = {"result.json": result}
    rows = (run / "metrics.csv").read_text().splitlines()
    clock = rows[0].split(",").index("seconds")
    found["metrics.csv"] = [[cell for k, cell in enumerate(row.split(",")) if k != clock] for row in rows]
    for peer in sorted((run / "peers").iterdir()):
        found[f"{peer.name}/config.json"] = (peer / "config.json").read_text()
        found |= {f"{peer.name}/{name}": tensor for name, tensor in load_file(peer / "model.safetensors").items()}
    for file in sorted((run / "checkpoints").glob("*.pt")):
        state = torch.load(file, weights_only=True)
        del state["seconds"]
        for row in state["history"]:
            del row["seconds"]
        found[file.name] = state
    return found


def difference(a: Any, b: Any, place: str = "") -> str:
    """Where two contents first differ, bit for bit; "" where they do not."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        alike = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return "" if alike else place
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{place}: {sorted(map(str, a.keys() ^ b.keys()))[:3]}"
        return next((wrong for key in a if (wrong := difference(a[key], b[key], f"{place}/{key}"))), "")
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{place}: {len(a)} and {len(b)} items"
        return next(
            (w for k, (x, y) in enumerate(zip(a, b, strict=True)) if (w := difference(x, y, f"{place}/{k}"))), ""
        )
    return "" if a == b else place


class Undisturbed:
    """The run of each method that nobody disturbs, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[dict[str, Any], float, int]] = {}
        folder.mkdir(exist_ok=True)

    def of(self, method: str) -> tuple[dict[str, Any], float, int]:
        """Its content, the seconds of computing that it took, and how many file operations."""
        if method not in self._known:
            run = self.folder / method
            outcome = must(trial(counted(run, training(method, run)), self.folder), method)
            self._known[method] = content(run), outcome.seconds, int(outcome.output)
        return self._known[method]


def check(method: str, draw: random.Random, undisturbed: Undisturbed, folder: Path) -> tuple[str, str, int, float]:
    """One case: what was done, its outcome, how often it was killed, seconds of computing."""
    expected, seconds, operations = undisturbed.of(method)
    run, told, kills, took = folder / "run", [], 0, 0.0
    folder.mkdir()
    for _ in range(draw.randint(1, MOST_KILLS)):
        words, prepare = draw_kill(run, draw, seconds, operations)
        outcome = trial(training(method, run), folder, prepare=prepare)
        took += outcome.seconds
        if outcome.killed_by is not None:
            told.append(words)
            kills += 1
        elif outcome.status != 0:
            return "; ".join([*told, words]), failure(outcome), kills, took
    outcome = trial(training(method, run), folder)
    what = "; ".join(told) or "was not killed in time"
    if outcome.status != 0:
        return what, failure(outcome), kills, took
    wrong = difference(content(run), expected) or left_over(run)
    shutil.rmtree(folder)
    return what, f"differs in {wrong}" if wrong else OK, kills, took + outcome.seconds


def left_over(run: Path) -> str:
    """What a run should not have at its end: halves of files."""
    return ", ".join(str(path.relative_to(run)) for path in run.rglob("*.part"))


def failure(outcome: Outcome) -> str:
    said = outcome.errors.strip().splitlines() or [f"killed by {outcome.killed_by}"]
    return f"status {outcome.status}: {said[-1][:200]}"


def main() -> None:
    made = parser(__doc__ or "", 250)
    made.add_argument("--minutes", type=float, default=1e9, help="no case begins after so many")
    options = made.parse_args()
    warm()
    from collegium import methods

    record, kills, end = Record("kills", options.out, goes_on=True), 0, time.monotonic() + 60 * options.minutes
    names = methods.names()
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = Undisturbed(Path(scratch) / "undisturbed")
        for number in range(record.next_number, record.next_number + options.count):
            if time.monotonic() > end:
                break
            method = names[number % len(names)]
            draw = random.Random(f"{options.seed} {number}")
            what, found, killed, took = check(method, draw, undisturbed, Path(scratch) / str(number))
            kills += killed
            record.add(Case(number, method, what, found, took))
    finish(record, options, kills=kills)


if __name__ == "__main__":
    main()
