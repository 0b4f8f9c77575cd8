"""YAML as people write it."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 and everybody who writes a recipe does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The values that a text holds; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)
