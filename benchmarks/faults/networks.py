"""Trains networks of timm and torchvision by the command line, each in a process of its own; no crash ends a command.

python benchmarks/faults/networks.py [--count 500] [--minutes 30] [--out FOLDER]

The networks are those of docs/architectures.md and another one of each of timm's families. Each is trained beside a
ResNet-8 with FFL, for one epoch of two steps, on a folder of photographs of 64 x 64 pixels. It trains, or its weights
diverge, which is told, or the command refuses it in one sentence. Repeated, the script tries the networks that the
record does not have yet, and those that failed.
"""

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from trials import OK, Case, Outcome, Record, command, finish, parser, sentence_fault, trial, warm

sys.path.insert(0, str(Path(__file__).parents[1]))
from architectures import NAMES

SECONDS = 600.0
LARGEST = 200_000_000  # parameters; what is larger does not fit beside its gradients on every machine


def photographs(folder: Path) -> None:
    """Two classes of four training images each, and as many for the test."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("one", "two"):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = draw.integers(256, size=(64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def one_more_of_each_family(known: list[str]) -> Iterator[str]:
    """Of each module of timm a network that is not known yet: of the five with the shortest names the smallest."""
    tried = {name.removeprefix("timm/").partition(":")[0] for name in known if name.startswith("timm/")}
    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module) if name not in tried]
        sizes = {name: size for name in sorted(names, key=len)[:5] if (size := parameters(name)) <= LARGEST}
        if sizes:
            yield f"timm/{min(sizes, key=lambda name: sizes[name])}"


def parameters(name: str) -> float:
    """How many, infinite where the network cannot be built without memory."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name).parameters())
    except Exception:
        return math.inf


def training(network: str) -> list[str]:
    return [
        *("train", "--method", "ffl", "--peers", f"resnet8,{network}", "--data", "folder:photographs"),
        *("--epochs", "1", "--batch-size", "4", "--device", "cpu", "--run", "run", "--quiet"),
    ]


def judged(outcome: Outcome, folder: Path) -> tuple[str, str]:
    """The kind of the case, and what was wrong with it."""
    if outcome.status == 0:
        return "trained", OK if (folder / "run/result.json").exists() else "no result"
    wrong = sentence_fault(outcome, folder)
    if "no longer finite" in outcome.errors:  # it trained, and its run is kept
        return "diverged", wrong or OK
    if not wrong and (folder / "run").exists():
        wrong = "left a folder of a run behind"
    return "refused", wrong or OK


def main() -> None:
    made = parser(__doc__ or "", 500)
    made.add_argument("--minutes", type=float, default=1e9, help="no network is tried after so many")
    options = made.parse_args()
    end = time.monotonic() + 60 * options.minutes
    warm()
    record = Record("networks", options.out, goes_on=True)
    record.keep(lambda case: case.outcome == OK)
    known = {case.what.partition(": ")[0] for case in record.cases}
    left = (name for name in chain(NAMES, one_more_of_each_family(NAMES)) if name not in known)
    try:
        for number, name in enumerate(islice(left, options.count), start=record.next_number):
            if time.monotonic() > end:
                break
            record.add(tried(number, name))
    except BaseException:  # an interruption keeps what was tried
        record.write(options)
        raise
    finish(record, options)


def tried(number: int, name: str) -> Case:
    """One network."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "work"
        folder.mkdir()
        photographs(folder / "photographs")
        outcome = trial(command(*training(name)), folder, seconds=SECONDS)
        kind, found = judged(outcome, folder)
    print(f"{name}: {kind}, {outcome.seconds:.0f} s, {outcome.peak / 2**30:.1f} GiB", flush=True)
    said = outcome.errors.strip().rpartition("\n")[2].removeprefix("collegium: ") if kind != "trained" else ""
    return Case(number, kind, f"{name}: {said}" if said else name, found, outcome.seconds)


if __name__ == "__main__":
    main()
