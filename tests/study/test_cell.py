import pytest

from collegium.errors import UsageError
from collegium.study.cell import Cell
from collegium.training.recipe import Recipe
from helpers_study import cell


def test_the_key_is_readable_and_says_what_is_computed() -> None:
    key = cell("ffl", 3).key
    assert key.startswith("ffl-2xresnet8-digits-seed3-")
    assert len({cell("ffl", 3).key, cell("ffl", 4).key, cell("dml", 3).key, cell("ffl", 3, epochs=2).key, key}) == 4
    options = {"name": "ffl", "temperature": 4.0}
    assert Cell("a", Recipe(method=options)).key != Cell("a", Recipe(method={"name": "ffl"})).key


def test_the_key_is_the_same_however_and_wherever_the_recipe_is_said() -> None:
    plain = cell("ffl").key
    assert cell("ffl", device="auto").key == plain
    assert Cell(cell("ffl").label, cell("ffl").recipe).key == plain
    resolved = {"name": "ffl", "temperature": 3.0, "ekd": True}
    a, b = (Cell("x", Recipe(method=m)).key for m in (resolved, {"name": "ffl"}))
    assert a == b, "an option at its default says nothing"
    ints, floats = ({"name": "ffl", "temperature": t} for t in (4, 4.0))
    assert Cell("x", Recipe(method=ints)).key == Cell("x", Recipe(method=floats)).key


def test_the_key_stays_as_it_is() -> None:
    """In every process and version: a change here leaves every study that exists without its runs."""
    assert cell("dml", 1).key == "dml-2xresnet8-digits-seed1-17c946fca9"


def test_the_teacher_is_part_of_the_key() -> None:
    assert cell("kd", teacher="teacher · resnet20").key != cell("kd", teacher="teacher · resnet56").key


def test_an_unknown_method_has_no_key() -> None:
    with pytest.raises(UsageError, match="no method is called"):
        _ = Cell("x", Recipe(method={"name": "ffx"})).key
