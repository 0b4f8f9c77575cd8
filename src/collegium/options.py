"""Checks of option values against the types that their signatures declare."""

import inspect
import os
import types
from collections.abc import Callable, Collection, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from collegium.errors import UsageError, nearest

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

_LARGEST = 1e15


def keywords(function: Callable[..., object], *, skip: str) -> dict[str, inspect.Parameter]:
    """The options of a class or function: its parameters but ``skip``."""
    return {name: p for name, p in _signature(function).parameters.items() if name != skip}


@cache
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def options_from(source: Callable[..., object], *, skip: Collection[str] = (), **defaults: Any) -> Callable[[F], F]:
    """Puts the keywords of ``source`` into a function's signature in place of its ``**keywords``.

    So `inspect.signature` and `get_type_hints` find them, and :func:`described_in` finds who describes them.

    Args:
        source: a class or function with keyword-only parameters.
        skip: those that the function does not take.
        **defaults: those of the function, where they differ.
    """
    hints = get_type_hints(source.__init__ if inspect.isclass(source) else source)

    def put(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = []
        for name, p in inspect.signature(source).parameters.items():
            if p.kind is not p.KEYWORD_ONLY or name in skip:
                continue
            default = defaults.get(name, p.default)
            kind = hints[name] | None if default is None else hints[name]
            taken.append(p.replace(default=default, annotation=kind))
        keywords = [name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD]
        for name in keywords:
            del function.__annotations__[name]
        function.__annotations__ |= {p.name: p.annotation for p in taken}
        function.__signature__ = signature.replace(parameters=[*own, *taken])  # type: ignore[attr-defined]
        function.__options_from__ = source  # type: ignore[attr-defined]
        return function

    return put


def described_in(function: Callable[..., object]) -> list[Callable[..., object]]:
    """Whose docstrings describe a function's options: its own, and of that which it takes options from."""
    source = getattr(function, "__options_from__", None)
    return [function] if source is None else [*described_in(source), function]


def check_options(owner: str, function: Callable[..., object], options: Mapping[str, Any], *, skip: str) -> None:
    """Whether options exist and have values of the declared kinds.

    Raises:
        UsageError: one does not; the sentence begins with ``owner``.
    """
    known = keywords(function, skip=skip)
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for name, value in options.items():
        if name not in known:
            hint = nearest(name, list(known)) if known else "; it has no options"
            raise UsageError(f"{owner} has no option {name!r}{hint}")
        check_kind(f"{owner}'s {name}", value, hints[name])


def check_kind(what: str, value: Any, hint: Any) -> None:
    """Raises UsageError where a value is not of the annotated kind; an int may stand for a float."""
    if not _fits(value, hint):
        beyond = isinstance(value, int | float) and _LARGEST < abs(value) < float("inf")
        most = ", and smaller" if beyond else ""
        raise UsageError(f"{what} must be {kind_in_words(hint)}{most}, not {_shown(value)}")


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a call: arguments that are plain by their annotations, texts, numbers, paths, must be of their kinds.

    Raises:
        UsageError: one is not, before the call begins.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            given = signature.bind(*arguments, **keywords).arguments
        except TypeError:
            return function(*arguments, **keywords)  # whose error says what is wrong
        for name, value in given.items():
            if _is_plain(hint := signature.parameters[name].annotation):
                check_kind(name, value, hint)
        return function(*arguments, **keywords)

    return call


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return all(map(_is_plain, get_args(hint)))
    return get_origin(hint) is Literal or hint in (str, int, float, bool, Path, types.NoneType)


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 1e100:  # Python does not write all of its digits
        return "one of more than 100 digits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_fits(item, arguments[0]) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is float:  # neither NaN nor one whose square is infinite
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if hint is Path:
        return isinstance(value, os.PathLike)
    return hint is Any or isinstance(value, hint)


def kind_in_words(hint: Any) -> str:
    """``int | None`` -> ``"a whole number or nothing"``"""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(kind_in_words(argument) for argument in arguments)
    if origin is tuple:
        plural = {float: "numbers", int: "whole numbers", str: "texts"}
        return f"a list of {plural.get(arguments[0], kind_in_words(arguments[0]))}"
    if origin is Mapping:
        return "a mapping of names to values"
    if hint is types.NoneType:
        return "nothing"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(hint, str(getattr(hint, "__name__", hint)))
