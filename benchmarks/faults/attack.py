"""What the campaign of hostile files is made of: its folders, its cases, and what several of them do."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from trials import GIB, TINY

GO_ON = ("train", *TINY, "--run", "part", "--quiet")
ELSE = ("train", *TINY, "--run", "new", "--quiet")
USES = {
    "evaluate": ("evaluate", "run"),
    "report": ("report", "run"),
    "export": ("export", "run"),
    "ensemble": ("export", "run", "--predictor", "ensemble"),
    "repeat": ("train", *TINY, "--run", "run"),
    "go on": GO_ON,
    "config": ("train", "--config", "run/recipe.yaml", "--run", "new", "--quiet"),
    "teacher": ("train", *TINY, "--method", "kd", "--teacher", "run", "--run", "new", "--quiet"),
    "start": ("train", *TINY, "--start-from", "run", "--run", "new", "--quiet"),
    "rank": ("rank", "."),
    "compare": ("compare", "study"),
    "add": ("compare", "--methods", "dml", *TINY[2:], "--seeds", "0", "--study", "study", "--quiet"),
}


@dataclass(frozen=True)
class Place:
    """The folders of a case."""

    work: Path  # with run, part and study in it: the current folder
    outside: Path

    @property
    def touch(self) -> str:
        """The command that would betray that something ran."""
        return f"touch {self.outside}/EXECUTED"


@dataclass(frozen=True)
class Attack:
    """One case: what is done to the folder, and which command then meets it.

    Args:
        kind: of attack.
        what: in words.
        make: changes the folder.
        use: the command.
        refused: it must end in a sentence; else it may go well too.
        prepare: is called in the command's process before.
    """

    kind: str
    what: str
    make: Callable[[Place], object]
    use: tuple[str, ...]
    refused: bool = True
    prepare: Callable[[Place], object] | None = None


class Runs:
    """What a pickle runs when it is read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.text,)


def change_json(file: Path, **entries: Any) -> None:
    file.with_name(file.name + ".sha256").unlink(missing_ok=True)  # the attacker writes no checksum
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def change_yaml(file: Path, **entries: Any) -> None:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | entries))


def replace(file: Path, content: bytes | str) -> None:
    file.with_name(file.name + ".sha256").unlink(missing_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def zip_bomb(name: str, first: bytes, gib: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, first)
        with archive.open("archive/data/0", "w", force_zip64=True) as file:
            packer = bytes(64 * 2**20)
            for _ in range(min(gib * 16, 4)):
                file.write(packer)
    return content.getvalue()


def pickle_bomb() -> bytes:
    """A list of lists of lists ..., each ten times the one before."""
    value: list[Any] = [b"x" * 100]
    for _ in range(30):
        value = [value] * 10
    return pickle.dumps(value)


STEERING = ["\x1b]0;TITLE\x07", "\x1b[2J", "\x9b31m", "[/bold]", "[link=file:///etc/passwd]x", "\u202egnp.exe", "\r\nX"]
MARKUP = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://x")'
NAMES = (*STEERING, MARKUP, FORMULA)
"""Names that steer a terminal, a page or a table."""


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind("bound")
        Path("bound").rename(path.name)
    finally:
        os.chdir(here)


Maker = Callable[[Path], object]
NO_FILES: dict[str, Maker] = {
    "a named pipe": os.mkfifo,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a folder": Path.mkdir,
    "a socket": bound_socket,
    "empty": Path.touch,
    "text": lambda path: path.write_text("hello\n" * 100),
    "100 GiB of nothing": lambda path: (path.touch(), os.truncate(path, 100 * GIB)),
}


def torch_saved(content: object, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old, pickle_protocol=2)
    return file.getvalue()


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def safetensors_files() -> dict[str, Callable[[], bytes]]:
    """Contents of .safetensors files that are none."""
    one = entry(0, 4, [1])
    twice = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": ' + json.dumps(one).encode() + b"}"
    return {
        "cut in its length": lambda: b"\0\0\0",
        "cut in its header": lambda: safetensors({"a": one})[:20],
        "cut in its data": lambda: safetensors({"a": entry(0, 4000, [1000])}, bytes(10)),
        "a header of 2^63 bytes": lambda: safetensors({"a": one}, bytes(4), 2**63),
        "a header of 2^64 - 1 bytes": lambda: safetensors({"a": one}, bytes(4), 2**64 - 1),
        "a header of 10^9 bytes": lambda: safetensors({"a": one}, bytes(4), 10**9),
        "a header of 50 MB of spaces": lambda: safetensors(
            json.dumps({"a": one}).encode() + b" " * 50_000_000, bytes(4)
        ),
        "no header": lambda: safetensors(b""),
        "a header that is a list": lambda: safetensors([1]),
        "a header of 100,000 lists": lambda: safetensors(b"[" * 100_000),
        "a header of 100,000 mappings": lambda: safetensors(b'{"a":' * 100_000),
        "a header that is not UTF-8": lambda: safetensors(b'{"\xff\xfe": 1}'),
        "no tensors": lambda: safetensors({}),
        "only metadata": lambda: safetensors({"__metadata__": {MARKUP: STEERING[0]}}),
        "a name twice": lambda: safetensors(twice, bytes(4)),
        "offsets that overlap": lambda: safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        "offsets beyond the file": lambda: safetensors({"a": entry(0, 4 * 10**12, [10**12])}, bytes(4)),
        "offsets that go back": lambda: safetensors({"a": entry(8, 4, [1])}, bytes(12)),
        "offsets of 2^64": lambda: safetensors({"a": entry(2**64 - 4, 2**64, [1])}, bytes(4)),
        "a hole": lambda: safetensors({"a": entry(4, 8, [1])}, bytes(8)),
        "10^18 values in no bytes": lambda: safetensors({"a": entry(0, 0, [10**9, 10**9])}),
        "sizes whose product is 2^64": lambda: safetensors({"a": entry(0, 0, [2**32, 2**32])}),
        "a size of 2^63": lambda: safetensors({"a": entry(0, 0, [2**63])}),
        "a size below 0": lambda: safetensors({"a": entry(0, 4, [-1])}, bytes(4)),
        "no values of 10^18 rows": lambda: safetensors({"a": entry(0, 0, [10**18, 0])}),
        "100,000 axes": lambda: safetensors({"a": entry(0, 4, [1] * 100_000)}, bytes(4)),
        "an unknown kind of numbers": lambda: safetensors({"a": entry(0, 4, [1], STEERING[0])}, bytes(4)),
        "200,000 tensors": lambda: safetensors({f"a{k}": entry(0, 0, [0]) for k in range(200_000)}),
        "a name of 10^6 characters": lambda: safetensors({"a" * 10**6: one}, bytes(4)),
    }


def picture(place: Place) -> Path:
    file = place.work / "image.png"
    Image.new("L", (16, 16), 90).save(file)
    return file


SHOWS = {
    "in words": ("--top", "3"),
    "as JSON": ("--json",),
    "as CSV": ("--out", "labels.csv"),
    "as JSON lines": ("--out", "labels.jsonl"),
}


def nested_folders(folder: Path, depth: int) -> None:
    """Folders in folders."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def archive(parts: dict[str, bytes]) -> bytes:
    """A file of torch.save whose parts are given."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in ({"archive/version": b"3\n", "archive/byteorder": b"little"} | parts).items():
            packed.writestr(name, content)
    return file.getvalue()


ENDLESS_KEY = b"\x80\x02}N\x85q\0" + b"h\0\x86q\0" * 60 + b"Ns."
"""A pickle of a dictionary whose key is a tuple of two references to a tuple of two references to ..., 60 times."""


def many_bytes(count: int, size: int) -> bytes:
    """The items of a dictionary in a pickle: so many arrays of so many bytes."""
    made = b"cbuiltins\nbytearray\nJ" + struct.pack("<i", size) + b"\x85R"
    return b"".join(b"K" + bytes([k]) + made for k in range(count))
