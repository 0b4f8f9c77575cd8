"""The errors that end in one sentence for the user instead of a traceback."""

import re

_LONGEST = 1000
_LONGEST_WORD = 160
_LONGEST_LIST = 100


class CollegiumError(Exception):
    """Something the user can act on: the message says what is wrong, where, and what to do."""

    exit_status = 1

    def __str__(self) -> str:
        """The message, without what is too long to be read: names from files may be of any length."""
        text = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", _cut, super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _cut(word: re.Match[str]) -> str:
    return f"{word[0][: _LONGEST_WORD // 2]}...{word[0][-_LONGEST_WORD // 4 :]}"


class UsageError(CollegiumError, ValueError):
    """Wrong use, found before any work was done: an option, a name, a shape, a combination."""

    exit_status = 2


class DataError(CollegiumError, RuntimeError):
    """A file that cannot be read, is truncated, or fails its checksum."""


class TrainingError(CollegiumError, RuntimeError):
    """Training cannot go on: a loss that is not finite, a checkpoint that cannot be read."""


class StorageError(CollegiumError, OSError):
    """A file or folder that cannot be written: the disk is full, or permission is lacking."""


class Interrupted(TrainingError):
    """A signal stopped training; its state is saved, and the same call goes on from there."""

    exit_status = 130


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is lacking, as torch and ONNX Runtime do by a RuntimeError."""
    said = str(error)
    return isinstance(error, MemoryError) or any(
        words in said for words in ("allocate memory", "out of memory", "Failed to allocate")
    )


def brief(value: object) -> str:
    """A value in a message: the first 80 characters of what is longer, as a list may be."""
    said = str(value)
    return said if len(said) <= 80 else f"{said[:80]}..."


def nearest(name: str, known: list[str]) -> str:
    """``"; did you mean 'resnet20' or 'resnet32'?"``, or where nothing is near the beginning of the list."""
    import difflib

    close = difflib.get_close_matches(name[:_LONGEST_WORD], known, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    told: list[str] = []
    for one in sorted(known):
        if told and len(", ".join([*told, one])) > _LONGEST_LIST:
            return f"; known are: {', '.join(told)} and {len(known) - len(told)} more"
        told.append(one)
    return f"; known are: {', '.join(told)}"
