from pathlib import Path

import pytest
import yaml

from collegium.errors import UsageError
from collegium.yaml_text import parse_yaml, read_yaml, write_yaml


def test_a_number_may_be_written_with_an_exponent() -> None:
    assert parse_yaml("1e-4") == 1e-4 and parse_yaml("1.5e3") == 1500


BOMB = "a: &a [x, x]\n" + "\n".join(f"b{k}: &b{k} [*{'a' if k == 0 else f'b{k - 1}'}, *a]" for k in range(30))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (BOMB, "an alias"),
        ("a: &a [*a]", "an alias"),
        ("a: " + "[" * 200 + "]" * 200, "levels within each other"),
        ("{a: " * 200 + "1" + "}" * 200, "levels within each other"),
        ("a: 2024-99-99", "month must be in"),
        ("a: !!python/object/apply:os.system ['touch PWNED']", "could not determine a constructor"),
        ("a: \x1b[31m", "control characters are not allowed|special characters are not allowed"),
        ("1: 2", "must hold 'name: value' lines"),
        ("- 1", "must hold 'name: value' lines"),
        ("", "must hold 'name: value' lines"),
    ],
)
def test_what_cannot_be_a_recipe_is_named(text: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=wrong) as refused:
        read_yaml(tmp_path / "recipe.yaml")
    assert "recipe.yaml" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("#" * (2**21 + 1))
    with pytest.raises(UsageError, match="more than the 2,097,152 bytes"):
        read_yaml(tmp_path / "recipe.yaml")


def test_what_stands_twice_is_written_twice_and_read_again() -> None:
    shared = {"name": "digits", "bands": [1, 2]}
    content = {"a": shared, "b": [shared, shared], "c": "grün"}
    assert "&" in yaml.safe_dump(content) and "&" not in write_yaml(content)
    assert parse_yaml(write_yaml(content)) == content
