"""Properties that hold for any content: of readers, of recipes, of splits."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.data import Split, splits
from collegium.errors import CollegiumError, DataError, UsageError
from collegium.options import check_kind
from collegium.schemas import read_config, read_metrics, read_result
from collegium.study.study import Study
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder
from collegium.yaml_text import parse_yaml, read_yaml, write_yaml
from made_up_runs import result_of

light = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBERS = st.integers() | st.floats() | st.integers(min_value=10**300)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

RESULT = result_of(
    Recipe(method={"name": "dml"}, peers="2xresnet8"), dict.fromkeys(("peer0", "peer1", "ensemble", "mean_peer"), 0.5)
)
CONFIG = {
    "network": "resnet8",
    "num_classes": 10,
    "in_channels": 1,
    "image_size": [16, 16],
    "mean": [0.1],
    "std": [0.3],
}
STUDY: dict[str, Any] = {
    "common": Recipe(method={"name": "dml"}, data={"name": "digits"}).to_dict(),
    "cells": [{"label": "dml", "seed": 0}, {"label": "dml", "seed": 1}],
    "reference": {},
    "left_out": {},
    "provenance": {"commit": "0"},
}
del STUDY["common"]["seed"]


@st.composite
def damaged(draw: st.DrawFn, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file in which one to three values, at any depth, are others or missing."""
    content: dict[str, Any] = copy.deepcopy(dict(whole))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = content
        while True:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            inner = place[key]
            if not (isinstance(inner, dict | list) and inner and draw(st.booleans())):
                break
            place = inner
        if isinstance(place, dict) and len(place) > 1 and draw(st.integers(0, 3)) == 0:
            del place[key]
        else:
            place[key] = draw(PLAIN)
    return content


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "file"


@light
@given(content=PLAIN | damaged(RESULT) | damaged(CONFIG))
def test_any_json_is_read_or_refused_in_a_sentence(content: Any, file: Path) -> None:
    file.write_text(json.dumps(content))
    for read in (read_result, read_config):
        try:
            read(file)
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 600


@light
@given(text=st.binary(max_size=200) | TEXTS.map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes, file: Path) -> None:
    file.write_bytes(text)
    for read, kind in (
        (read_result, DataError),
        (read_config, DataError),
        (read_metrics, DataError),
        (read_yaml, UsageError),
    ):
        try:
            read(file)
        except kind:
            pass


@light
@given(text=st.text('epoch,1.\n"x 0e-nai', max_size=60))
def test_any_table_is_read_or_refused(text: str, file: Path) -> None:
    file.write_text("epoch,loss\n" + text)
    try:
        rows = read_metrics(file)
    except DataError:
        return
    assert all(row["epoch"] > 0 for row in rows)


@light
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["loss", 'a "name"', "peer0, last"]), st.floats(allow_nan=False)), max_size=5
    )
)
def test_metrics_are_read_as_they_were_written(rows: list[dict[str, float]], tmp_path_factory: Any) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    history = [{"epoch": float(k + 1), **row} for k, row in enumerate(rows)] or [{"epoch": 1.0}]
    folder.write_metrics(history)
    assert folder.metrics() == history


@light
@given(content=damaged(STUDY))
def test_any_study_is_opened_or_refused_in_a_sentence(content: dict[str, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("study")
    try:
        (folder / "study.yaml").write_text(write_yaml(content))
        study = Study.open(folder)
        study.outcomes()
        study.write()
    except CollegiumError as error:
        assert "\n" not in str(error)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated kind."""
    if get_origin(hint) is tuple:
        return st.lists(st.floats(0.01, 0.99), max_size=3).map(tuple)
    if get_args(hint) and get_origin(hint) is not Mapping:
        parts = [part for part in get_args(hint)]
        return st.sampled_from(parts) if all(isinstance(p, str) for p in parts) else st.one_of(*map(values, parts))
    plain = {
        str: TEXTS,
        int: st.integers(1, 2**62),
        float: st.floats(0, 0.99),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return plain.get(hint, st.none())


HINTS = {name: hint for name, hint in get_type_hints(Recipe).items() if name not in ("method", "data")}
PARTS = st.builds(
    lambda name, rest: {**rest, "name": name}, TEXTS, st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=3)
)


@light
@given(entries=st.fixed_dictionaries({}, optional={name: values(hint) for name, hint in HINTS.items()}), method=PARTS)
def test_a_recipe_is_read_as_it_was_written(entries: dict[str, Any], method: dict[str, Any]) -> None:
    try:
        recipe = Recipe.from_dict({**entries, "method": method})
    except UsageError:
        return
    text = write_yaml(recipe.to_dict())
    again = Recipe.from_dict(parse_yaml(text))
    assert again == recipe and not again.differences(recipe) and write_yaml(again.to_dict()) == text


@light
@given(entries=st.dictionaries(st.sampled_from(sorted(HINTS)) | TEXTS, PLAIN, max_size=5))
def test_any_recipe_is_made_or_refused_in_a_sentence(entries: dict[str, Any]) -> None:
    try:
        Recipe.from_dict(entries)
    except UsageError as error:
        assert len(str(error)) <= 600


@light
@given(value=PLAIN, hint=st.sampled_from([int, float, bool, str, int | None, tuple[float, ...]]))
def test_any_value_is_of_a_kind_or_not(value: Any, hint: Any) -> None:
    try:
        check_kind("it", value, hint)
    except UsageError as error:
        assert str(error).startswith("it must be")


def split_of(labels: list[int]) -> Split:
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Split(images, torch.tensor(labels))


LABELS = st.lists(st.integers(0, 4), min_size=4, max_size=120)


def members(split: Split) -> list[int]:
    return [int(image) for image in split.images.flatten()]


@light
@given(labels=LABELS, share=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
def test_what_is_held_out_is_a_share_of_every_class(labels: list[int], share: float, seed: int) -> None:
    whole = split_of(labels)
    try:
        train, held = splits.hold_out(whole, share, seed)
    except UsageError:
        assert any(int(share * labels.count(c) + 0.5) in (0, labels.count(c)) for c in set(labels))
        return
    assert sorted(members(train) + members(held)) == list(range(len(labels)))
    for label in set(labels):
        assert abs(held.targets.tolist().count(label) - share * labels.count(label)) <= 0.5 + 1e-9
    assert members(splits.hold_out(whole, share, seed)[1]) == members(held)


@light
@given(labels=LABELS, count=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_so_many_of_each_class_are_taken(labels: list[int], count: int, seed: int) -> None:
    whole = split_of(labels)
    try:
        taken = splits.per_class(whole, count, seed)
    except UsageError:
        assert any(labels.count(label) < count for label in set(labels))
        return
    assert all(taken.targets.tolist().count(label) == count for label in set(labels))
    assert set(members(splits.per_class(whole, max(1, count - 1), seed))) <= set(members(taken))
