"""YAML as people write it, from text and from files."""

import re
from pathlib import Path
from typing import Any

import yaml

from collegium.errors import UsageError


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 and everybody who writes a recipe does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The values that a text holds; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        content = parse_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold 'name: value' lines")
    return content
