"""Numbers and text as people read them, the same in messages, tables and pages."""

import unicodedata

MISSING = "–"
"""Stands where there is no value."""

_JOINERS = "\u200c\u200d"  # parts of letters in several scripts, and harmless


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """``-1.5`` -> ``"−1.50"``; with ``sign`` numbers above 0 have one too."""
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """``0.0267`` -> ``"2.67"``; the unit is said beside it."""
    return number(100 * share)


def count(value: float) -> str:
    """``83892`` -> ``"83.9 k"``, in three digits and k, M, G or T."""
    for unit in ("", " k", " M", " G"):
        if abs(value) < 999.5:
            return f"{value:#.3g}".rstrip(".") + unit if unit else f"{value:.0f}"
        value /= 1000
    return f"{value:#.3g}".rstrip(".") + " T"


def duration(seconds: float) -> str:
    """``4000`` -> ``"1 h 7 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def plural(amount: int, noun: str) -> str:
    """``(2, "run")`` -> ``"2 runs"``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def printable(text: str) -> str:
    """The text in one line, without characters that control a terminal or the direction of writing.

    Names in files may hold any character; a terminal obeys some of them.
    """
    spaced = "".join(" " if c.isspace() and c != "\N{NO-BREAK SPACE}" else c for c in text)
    return "".join(c for c in spaced if unicodedata.category(c)[0] != "C" or c in _JOINERS)
