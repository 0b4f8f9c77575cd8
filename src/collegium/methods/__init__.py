"""The methods, one paper a file. The folder is the registry: ``name.py`` holds one ``Method``, called ``name``."""

import importlib
import pkgutil

from collegium.errors import UsageError, nearest
from collegium.method import Method


def names() -> list[str]:
    """The names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> type[Method]:
    """The method called ``name``.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name not in names():
        raise UsageError(f"no method is called {name!r}{nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one Method, found {found}"
    return found[0]
