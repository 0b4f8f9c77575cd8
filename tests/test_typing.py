"""The types that checkers and editors see are those of what is checked and written at run time."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest

from collegium import api
from collegium.training.recipe import Recipe
from collegium.typing import PredictorResult, RunEntries, RunResult, StudyEntries

WIDER = {
    "method": str | Mapping[str, Any],  # a name alone too
    "start_from": str | PathLike[str] | None,
    "class_weights": Literal["balanced"] | Sequence[float] | None,
    **dict.fromkeys(("milestones", "peer_learning_rates", "peer_weight_decays"), Sequence[float]),
}


@pytest.mark.parametrize(("call", "entries"), [(api.train, RunEntries), (api.compare, StudyEntries)])
def test_every_entry_of_a_recipe_is_a_typed_keyword(call: Callable[..., object], entries: type) -> None:
    parameters = set(inspect.signature(call).parameters)
    expected = {name: WIDER.get(name, hint) for name, hint in get_type_hints(Recipe).items() if name not in parameters}
    if call is api.compare:
        del expected["seed"]  # seeds
    assert get_type_hints(entries) == expected


def test_a_result_has_the_keys_of_its_type(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert set(result) == set(get_type_hints(RunResult))
    for scores in (*result["predictors"].values(), result["mean_peer"]):
        assert set(PredictorResult.__required_keys__) <= set(scores) <= set(get_type_hints(PredictorResult))
