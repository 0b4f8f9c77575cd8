"""What the campaign of hostile files is made of: its folders, its cases, and what several of them do."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from trials import TINY

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
