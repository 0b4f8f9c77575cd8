"""Methods, networks and entries of recipes as readers see them."""

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from collegium import methods
from collegium.errors import UsageError
from collegium.formatting import MISSING
from collegium.method import Method
from collegium.user_code import consent


def networks(names: Sequence[str]) -> str:
    """``["resnet8", "resnet8", "wrn"]`` -> ``"2 × resnet8, wrn"``."""
    return ", ".join(name if n == 1 else f"{n} × {name}" for name, n in Counter(names).items())


def shared(share_until: str | None) -> str:
    """``"stage1,stage2"`` -> ``"all up to stage1, halves up to stage2"``."""
    if share_until is None:
        return "nothing"
    stages = [stage.strip() for stage in share_until.split(",")]
    whose = ["all", "halves", *["halves of those"] * len(stages)]
    return ", ".join(f"{who} up to {stage}" for who, stage in zip(whose, stages, strict=False))


def entry(value: object) -> str:
    """A recipe's value as one line."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{k} {entry(v)}" for k, v in value.items() if k != "name" and v is not None)
        if "name" not in value:
            return options or MISSING
        return f"{value['name']}" + (f" ({options})" if options else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(entry, value))
    return MISSING if value is None else str(value)


def method_title(name: str) -> str:
    """The method's name as its paper writes it."""
    method = _method(name)
    return name if method is None else method.__name__


def about_method(name: str) -> tuple[str, list[str]]:
    """The first sentence of a method's docstring, and the links to paper and code in it."""
    method = _method(name)
    text = "" if method is None else inspect.getdoc(method) or ""
    first = " ".join(text.partition("\n\n")[0].split()).replace("`", "")
    return first, list(dict.fromkeys(link.rstrip(".,;)") for link in re.findall(r"https://[^\s<>\"']+", text)))


def _method(name: str) -> type[Method] | None:
    """The method called so; None where it is the user's own and cannot be imported, or may not."""
    try:
        with consent():  # the name is from a file
            return methods.get(name)
    except UsageError:
        return None
