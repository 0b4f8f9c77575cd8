import json
import os
from pathlib import Path
from typing import Any

import pytest

from collegium.errors import DataError
from collegium.schemas import Between, Record, fault, read_result
from collegium.training.recipe import Recipe
from made_up_runs import result_of

GOOD = result_of(
    Recipe(method={"name": "dml"}, peers="2xresnet8"), dict.fromkeys(("peer0", "peer1", "ensemble", "mean_peer"), 0.5)
)


@pytest.mark.parametrize(
    ("value", "shape", "wrong"),
    [
        (3, int, None),
        (True, int, "x must be a whole number, not True"),
        (2**63, int, "x must be a whole number"),
        (3, float, None),
        (float("inf"), float, "x must be a number, not inf"),
        ("3", float, "x must be a number, not '3'"),
        (None, (int, None), None),
        ([1, "a"], [int], r"x\[1\] must be a whole number, not 'a'"),
        ({1: 2}, {str: int}, "x must be a mapping"),
        ({"a": 1}, Record({"a": int, "b": int}), "x.b is missing"),
        ({"a": 1, "c": "?"}, Record({"a": int}, {"b": int}), None),
        ({"a": 1, "b": []}, Record({"a": int}, {"b": int}), "x.b must be a whole number, not a list"),
        (2, Between(0.0, 1.0), "x must be a number from 0.0 to 1.0, not 2"),
        (0.5, Between(0, 1), "x must be a whole number from 0 to 1, not 0.5"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(value: object, shape: Any, wrong: str | None) -> None:
    found = fault(value, shape, "x")
    assert found is None if wrong is None else found is not None and found.startswith(wrong.replace("\\", ""))


def change(path: str, value: object) -> dict[str, Any]:
    """The result with another value at a path, without it where that is ``...``."""
    result: dict[str, Any] = json.loads(json.dumps(GOOD))
    *places, last = path.split("/")
    inner = result
    for place in places:
        inner = inner[place]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return result


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(GOOD))
    assert read_result(tmp_path / "result.json") == GOOD


@pytest.mark.parametrize("key", GOOD)
def test_a_result_needs_every_entry(key: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(change(key, ...)))
    with pytest.raises(DataError, match=f"result.json is not as it was written: {key} is missing"):
        read_result(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ([], "the whole must be a mapping"),
        (None, "the whole must be a mapping"),
        (change("predictors/peer0/last/top1_error", "0.5"), "predictors.peer0.last.top1_error must be a number"),
        (change("predictors/peer0/last/top1_error", 50), "must be a number from 0.0 to 1.0, not 50"),
        (change("predictors/peer1", ...), "it scores other peers than the 2"),
        (change("predictors/peer7", GOOD["predictors"]["peer0"]), "it scores other peers than the 2"),
        (change("predictors/ensemble", ...), "predictors.ensemble is missing"),
        (change("deployed_peer", "../../other"), "deployed_peer must be one of 2 peers"),
        (change("cost/ensemble", ...), "cost.ensemble is missing"),
        (change("class_accuracy/peer0", [0.5]), "class_accuracy.peer0 has another number of classes"),
        (change("test_images_per_class", [1]), "another number of classes"),
        (change("epochs", 10**400), "epochs must be a whole number"),
        (change("peers", []), "it scores other peers"),
    ],
)
def test_a_result_that_cannot_be_is_named(content: object, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"result.json is not as it was written: .*{wrong}") as refused:
        read_result(tmp_path / "result.json")
    assert len(str(refused.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, '{"a": ' * 10**5, "\x00", '"\\ud800"', "1" * 5000, "\ufeff{}"])
def test_what_is_no_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match="result.json"):
        read_result(tmp_path / "result.json")


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(DataError, match="it is not a file"):
        read_result(tmp_path / "result.json")
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 2**30)
    with pytest.raises(DataError, match="more than the 67,108,864 bytes"):
        read_result(tmp_path / "large.json")
