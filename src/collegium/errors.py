"""The errors that end in one sentence for the user instead of a traceback."""


class CollegiumError(Exception):
    """Something the user can act on: the message says what is wrong, where, and what to do."""

    exit_status = 1


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


def nearest(name: str, known: list[str]) -> str:
    """``"; did you mean 'resnet20' or 'resnet32'?"``, or the whole list where nothing is near."""
    import difflib

    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "; known are: " + ", ".join(sorted(known))
