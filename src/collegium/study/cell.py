"""One run of a study."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from collegium import methods
from collegium.training.experiment import resolve
from collegium.training.recipe import Recipe
from collegium.user_code import PREFIX, consent

ELSEWHERE = ("device",)
"""What a recipe says of where it is computed, which is no part of what is computed; of data, ``workers`` too."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        label: the name of its row in tables, the same for all seeds: "ffl · 2xresnet20".
        recipe: the run, but for its teacher where that is another cell.
        teacher: the label of the cell whose first peer, of the same seed, is the frozen teacher.
        known_key: the key, as a study has it: a later version may have other defaults, and a method of the user's own
            may not be imported to compute it.

    Raises:
        UsageError: the recipe names a method or data set that does not exist.
    """

    label: str
    recipe: Recipe
    teacher: str | None = None
    known_key: str | None = field(default=None, compare=False)

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def name(self) -> str:
        """How messages call it: "ffl · 2xresnet20, seed 0"."""
        return f"{self.label}, seed {self.seed}"

    @cached_property
    def key(self) -> str:
        """The name of its folder: a readable slug and a hash of what is computed.

        Entries at their default are left out of the hash, so that it stays as it is when the library gains an
        option; a study compares whole recipes besides.
        """
        if self.known_key is not None:
            return self.known_key
        if self.of_user:
            with consent():
                methods.get(self.recipe.method_name)  # whose defaults are needed
        canonical = json.dumps([_changed_entries(self.recipe), self.teacher], sort_keys=True, separators=(",", ":"))
        return f"{self.slug}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"

    @property
    def slug(self) -> str:
        """How the key begins."""
        words = f"{self.label} {self.recipe.data_name} seed{self.seed}"
        return re.sub(r"[^a-z0-9_.]+", "-", words.lower()).strip("-.")[:80]

    @property
    def of_user(self) -> bool:
        """Whether its method is the user's own."""
        return self.recipe.method_name.startswith(PREFIX)


def _changed_entries(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says that is not a default, without where it is computed."""
    usual = Recipe(method={"name": recipe.method_name}, data={"name": recipe.data_name})
    plain, defaults = resolve(recipe).to_dict(), resolve(usual).to_dict()
    plain["data"].pop("workers", None)
    differing = {name: changed(value, defaults[name]) for name, value in plain.items() if value != defaults[name]}
    named = {"method": recipe.method_name, "data": recipe.data_name, "peers": recipe.peers}
    return {**{name: value for name, value in differing.items() if name not in ELSEWHERE}, "named": named}


def changed(value: Any, default: Any) -> Any:
    """A recipe's entry, of one that has options those that are not their defaults; equal numbers look alike."""
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        return {key: _one_form(item) for key, item in value.items() if key not in default or default[key] != item}
    return _one_form(value)


def _one_form(value: Any) -> Any:
    """4 for 4.0, which are the same recipe."""
    if isinstance(value, list):
        return [_one_form(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
