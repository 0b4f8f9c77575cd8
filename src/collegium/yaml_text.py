"""YAML as people write it, from text and from files."""

import re
from pathlib import Path
from typing import Any

import yaml

from collegium.errors import DataError, UsageError
from collegium.files import read_bounded

DEEPEST = 16
"""Levels of lists and mappings within each other that a text may have; a recipe has three."""
LARGEST = 2 * 2**20
"""Bytes that a file may have: the study.yaml of some ten thousand runs."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml, ten times as fast
    """Reads 1e-4 as a number, as YAML 1.2 and everybody who writes a recipe does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Writes out what stands in several places, so that there are no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, *, aliases: bool = False) -> Any:
    """The values that a text holds, which may have ``aliases`` if it is ours; raises yaml.YAMLError."""
    try:
        _check(text, aliases=aliases)
        return yaml.load(text, Loader=_Loader)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:  # a date or a number that cannot be
        raise yaml.YAMLError(str(error)) from error


def _check(text: str, *, aliases: bool) -> None:
    """Refuses aliases, by which a few lines can stand for gigabytes, and what is nested very deeply."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise yaml.YAMLError("an alias (*name): write out what it stands for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels within each other")


def write_yaml(content: Any) -> str:
    """The text that :func:`parse_yaml` reads."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path, *, aliases: bool = False) -> dict[str, Any]:
    """The mapping that a YAML file holds; ``aliases`` as for :func:`parse_yaml`.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        content = parse_yaml(read_bounded(path, LARGEST).decode(), aliases=aliases)
    except (OSError, DataError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UsageError(f"{path} must hold 'name: value' lines")
    return content
