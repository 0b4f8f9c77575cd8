"""The methods, one paper a file. The folder is the registry: ``name.py`` holds one ``Method``, called ``name``.

A method of the user's own is called ``module:package.Class``, and found from the current folder.
"""

import importlib
import pkgutil
from functools import cache

from collegium.errors import UsageError, nearest
from collegium.method import Method
from collegium.user_code import PREFIX, consents, find


def names() -> list[str]:
    """The names of all methods."""
    return list(_names())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@consents("name")
def get(name: str) -> type[Method]:
    """The method called ``name``, or the user's own called ``module:package.Class``.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name.startswith(PREFIX):
        return _own(name.removeprefix(PREFIX))
    if name not in _names():
        raise UsageError(f"no method is called {name!r}{nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one Method, found {found}"
    return found[0]


def _own(path: str) -> type[Method]:
    found = find(path, Method)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UsageError(f"{path} is no method: derive a class from collegium.method.Method")
    return found
