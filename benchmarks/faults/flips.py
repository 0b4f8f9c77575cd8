"""Changes a few bytes of a finished run's files: loading must notice.

python benchmarks/faults/flips.py [--count 500] [--seed 0] [--out FOLDER]

Each case copies one file aside, changes one bit, one byte or a block of it at a random place, or cuts it, and opens the
run. A damage is noticed where the file is refused, or passed over with a warning for the checkpoint before it; and
unnoticed where what is loaded differs from what was written, or nothing is said.
"""

import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trials import OK, Case, Record, finish, must, parser, tiny_run, trial, warm

UNNOTICED = "not noticed"


def flip_bit(content: bytearray, draw: random.Random) -> str:
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    return f"bit {bit} of byte {place}"


def change_byte(content: bytearray, draw: random.Random) -> str:
    place, by = draw.randrange(len(content)), draw.randrange(1, 256)
    content[place] ^= by
    return f"byte {place} by {by}"


def zero_block(content: bytearray, draw: random.Random) -> str:
    size = min(len(content), 4096)
    place = draw.randrange(max(1, len(content) - size))
    if not any(content[place : place + size]):
        return change_byte(content, draw)
    content[place : place + size] = bytes(size)
    return f"{size} bytes from {place} are zeros"


def cut(content: bytearray, draw: random.Random) -> str:
    length = draw.randrange(len(content))
    del content[length:]
    return f"cut after {length} bytes"


def lengthen(content: bytearray, draw: random.Random) -> str:
    added = draw.randbytes(draw.randrange(1, 4096))
    content += added
    return f"{len(added)} bytes more"


CHANGES: list[Callable[[bytearray, random.Random], str]] = [flip_bit, change_byte, zero_block, cut, lengthen]


def files(run: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Kind -> a file of the run, and what opens it."""
    newest = sorted((run / "checkpoints").glob("*.pt"))[-1]
    peer = run / "peers" / "peer0"
    return {
        "newest checkpoint": (newest, open_checkpoint),
        "its checksum": (Path(f"{newest}.sha256"), open_checkpoint),
        "a peer's weights": (peer / "model.safetensors", open_peer),
        "their checksum": (peer / "model.safetensors.sha256", open_peer),
        "a peer's config.json": (peer / "config.json", open_peer),
        "result.json": (run / "result.json", open_result),
    }


def open_checkpoint(run: Path) -> object:
    from collegium.training.run_folder import RunFolder

    return RunFolder(run).load_checkpoint()


def open_peer(run: Path) -> object:
    from collegium.student import load_peer

    return load_peer(run / "peers" / "peer0").state_dict()


def open_result(run: Path) -> object:
    from collegium.training.run_folder import RunFolder

    return RunFolder(run).result()


def equal(a: object, b: object) -> bool:
    """Whether two loaded things are the same, bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def outcome_of(opened: Callable[[Path], object], run: Path, whole: object) -> str:
    """How the run is opened: ``ok`` where the damage was noticed, or did none."""
    from collegium.errors import CollegiumError

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = opened(run)
        except CollegiumError as error:
            return OK if "\n" not in str(error) and len(str(error).replace(str(run), "")) <= 300 else f"said: {error}"
        except Exception as error:
            return f"raised {type(error).__name__}: {error}"
    if told:
        return OK
    return (
        f"{UNNOTICED}, and the same is loaded" if equal(found, whole) else f"{UNNOTICED}, and another thing is loaded"
    )


def campaign(run: Path, count: int, seed: int, record: Record) -> None:
    """Adds so many cases to the record; ``run`` is finished, and as it was at the end."""
    whole: dict[str, Any] = {kind: opened(run) for kind, (_, opened) in files(run).items()}
    for number in range(record.next_number, record.next_number + count):
        draw = random.Random(f"{seed} {number}")
        kind, (file, opened) = draw.choice(list(files(run).items()))
        before = file.read_bytes()
        content = bytearray(before)
        what = draw.choice(CHANGES)(content, draw)
        file.write_bytes(content)
        found = outcome_of(opened, run, whole[kind])
        file.write_bytes(before)
        record.add(Case(number, kind, what, ascii(found)[1:-1]))


def main() -> None:
    options = parser(__doc__ or "", 500).parse_args()
    warm()
    record = Record("flips", options.out, goes_on=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        must(trial(tiny_run(run), Path(scratch)), "training")
        campaign(run, options.count, options.seed, record)
    finish(record, options)


if __name__ == "__main__":
    main()
