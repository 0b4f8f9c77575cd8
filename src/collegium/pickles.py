"""What reading a pickle would take, found without reading it: a few bytes may stand for endless work."""

import pickletools
import re
from functools import cache
from typing import IO

_MOST_VALUES = 10**7
_ALLOCATES = re.compile(r"\w+ bytearray|torch(?:\.\w+)* \w*Tensor")  # what may be called with a size


class Refused(Exception):
    """A pickle of somebody who had something else in mind than weights."""


def check_pickle(stream: IO[bytes], most: int | None = None) -> None:
    """Follows the next pickle of a stream, of which nothing is made.

    The values that a tuple stands for are counted with those of its parts: a tuple of two references to another, and so
    on, has 2^n, which all are visited where it is the key of a dictionary.

    Args:
        stream: is read up to the pickle's end.
        most: operations that it may have.

    Raises:
        Refused: it has more operations, stands for more than ten million values, or calls what takes
            memory by a size alone.
        ValueError, IndexError, KeyError: it is none.
    """
    stack: list[int] = []  # of values that each stands for; a mark is a 0
    memo: dict[object, int] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if most is not None and number > most:
            raise Refused(f"it has more than {most:,} operations")
        name = operation.name
        if name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL" and _ALLOCATES.fullmatch(str(argument)):
            raise Refused(f"it calls {str(argument)[:40]}")
        else:
            to_mark, taken, given = _effect(operation)
            values = 1
            while to_mark and (top := stack.pop()):
                values += top
            values += sum(stack.pop() for _ in range(taken))
            if values > _MOST_VALUES:
                raise Refused(f"it stands for more than {_MOST_VALUES:,} values")
            stack += [values * (not mark) for mark in given]


@cache
def _effect(operation: pickletools.OpcodeInfo) -> tuple[bool, int, tuple[bool, ...]]:
    """Whether an operation takes all down to a mark, how many more it takes; and of what it gives, which are marks."""
    before, after = operation.stack_before, operation.stack_after
    to_mark = pickletools.markobject in before
    taken = before.index(pickletools.markobject) if to_mark else len(before)
    return to_mark, taken, tuple(each is pickletools.markobject for each in after)
