"""Code of the user's own, named ``module:package.function``, and the user's consent to import it.

A name that the user writes, in a call or on the command line, is consent to import it. A name that comes from a file (a
recipe, a run, a study, a peer) is not: it is refused unless the call says ``trust=True``, the command ``--trust``.

What the user wrote is known where the call begins. There :func:`consent` is entered; within it :func:`find` imports
what it covers and nothing else, and calls within the call change nothing.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from collegium.errors import UsageError

PREFIX = "module:"

P = ParamSpec("P")
T = TypeVar("T")


class Untrusted(UsageError):
    """A file names code that the user has not consented to run."""


@dataclass(frozen=True)
class Consent:
    """What may be imported.

    Args:
        paths: of functions and classes.
        everything: whatever a file names.
    """

    paths: frozenset[str] = frozenset()
    everything: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"paths": sorted(self.paths), "everything": self.everything}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Consent":
        return cls(frozenset(plain["paths"]), plain["everything"])


_current: ContextVar[Consent | None] = ContextVar("consent", default=None)


def current() -> Consent:
    """The consent that holds here, to be handed to another process."""
    return _current.get() or Consent()


@contextmanager
def consent(*written: object, trust: bool = False) -> Iterator[None]:
    """Within it what the user wrote may be imported. Within another consent it does nothing: that one holds.

    Args:
        written: by the user: texts, and mappings and lists of them.
        trust: whether what files name may be imported too.
    """
    if _current.get() is not None:
        yield
    else:
        with given(Consent(frozenset(_named(written)), trust)):
            yield


@contextmanager
def given(consent: Consent) -> Iterator[None]:
    """Within it this consent holds, which another process handed on."""
    before = _current.set(consent)
    try:
        yield
    finally:
        _current.reset(before)


def never() -> Any:
    """Within it nothing is imported, whatever consent holds around it."""
    return given(Consent())


def consents(*parameters: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates what begins a call: the arguments named here are what the user wrote, and ``trust`` is his trust.

    Without names it decorates what reads files: called by itself it imports nothing.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            if _current.get() is not None:
                return function(*arguments, **keywords)
            try:
                bound = signature.bind(*arguments, **keywords).arguments
            except TypeError:
                return function(*arguments, **keywords)  # whose error says what is wrong
            for p in signature.parameters.values():
                if p.kind is p.VAR_KEYWORD:
                    bound |= bound.pop(p.name, {})
            written = [bound[name] for name in parameters if name in bound]
            with consent(*written, trust=bound.get("trust") is True):
                return function(*arguments, **keywords)

        return call

    return decorate


def _named(written: object) -> Iterator[str]:
    """The paths that texts name, each at the beginning of an entry: ``"dml,2xmodule:my.net:width=4"``."""
    if isinstance(written, str):
        yield from re.findall(rf"(?:^|[=,;\s]|(?<!\w)\d+x){PREFIX}([\w.]+)", written)
    elif isinstance(written, Mapping):
        yield from _named(list(written.values()))
    elif isinstance(written, list | tuple):
        for part in written:
            yield from _named(part)


def find(path: str, kind: type[T] | None = None) -> Any:
    """The function at ``package.function``, or the class, looked for from the current folder on.

    Args:
        path: where it is.
        kind: what a class must be derived from; None for functions alone.

    Raises:
        Untrusted: a file names it, and the user has not consented to import it.
        UsageError: there is none, importing it fails, or it is something else.
    """
    place, _, name = path.rpartition(".")
    if not place:
        raise UsageError(f"cannot find {path!r}: write module:package.function, for example module:my_code.build")
    allowed = current()
    if not allowed.everything and path not in allowed.paths:
        raise Untrusted(
            f"{PREFIX}{path[:80]} is code that a file names and you do not: to use it, Python would run {place[:60]} "
            f"as found from here; if you trust it, add --trust (trust=True)"
        )
    try:
        with _current_folder():
            found = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot find {path!r} from {os.getcwd()}: {error}") from error
    if isinstance(found, type) and kind is not None and issubclass(found, kind):
        return found
    if inspect.isfunction(found):
        return found
    wanted = "a function" if kind is None else f"a function or a class derived from {kind.__module__}.{kind.__name__}"
    raise UsageError(f"{path} is a {type(found).__name__}, not {wanted}")


@contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder can be imported, as `python` itself allows and an installed command does not."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
