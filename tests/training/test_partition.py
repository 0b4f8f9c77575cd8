"""Peers trained in processes of their own learn what they learn together."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, run, weights
from many import CASES, GENTLE, PARTED, in_float64, on_ranks, parted, running, stopped_and_repeated, whole_gradients
from torch import Tensor

from collegium import methods
from collegium.method import Progress
from collegium.training.devices import Devices
from collegium.training.run_folder import RunFolder

ALONE = Devices()
LOGITS_ONLY = [name for name in methods.names() if methods.get(name).logits_only]


def test_some_methods_may_be_parted_and_others_not() -> None:
    assert {"dml", "independent", "kdcl"} <= set(LOGITS_ONLY) and not {"ffl", "afd"} & set(LOGITS_ONLY)


@pytest.mark.parametrize("name", LOGITS_ONLY)
def test_a_method_that_may_be_parted_reads_logits_alone(name: str) -> None:
    run = running(name, ALONE, share_until=None)
    method = run.learner.method
    images, target = next(run.training_batches.epoch(0))
    with torch.no_grad():
        out = run.learner._outputs(images, copies=True)
        nothing = dataclasses.replace(out, features=((), ()), trunk=None)
        progress = Progress(*(torch.tensor(x) for x in (2.0, 3.0, 0.7)))
        state = {key: value.clone() for key, value in method.state_dict().items()}
        expected = method(out, target, progress)
        method.load_state_dict(state)
        found = method(nothing, target, progress)
    assert found.keys() == expected.keys()
    for player, terms in expected.items():
        for term, value in terms.items():
            assert torch.equal(found[player][term], value), term
    assert not list(method.parameters()) and (method.shadow is None or not method.shadow.hybrid)


def assert_union(found: list[dict[str, Tensor]], expected: dict[str, Tensor]) -> None:
    """What all processes have found of their peers is what one process found of all."""
    assert {name for rank in found for name in rank} == expected.keys()
    for rank in found:
        for name, gradient in rank.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Tensor]]:
    """The gradients of one process."""
    known = dict(CASES)
    try:
        with in_float64():
            return {case: whole_gradients(case, ALONE, "data") for case in PARTED}
    finally:
        CASES.clear()
        CASES.update(known)


@pytest.mark.parametrize(
    ("processes", "cases"),
    [(2, list(PARTED)), (4, ["kdcl general", "switokd", "codistillation", "dml clipped", "four peers"])],
)
def test_gradients_and_statistics_are_those_of_one_process(
    processes: int, cases: list[str], expected: dict[str, dict[str, Tensor]]
) -> None:
    # Two processes have a peer each, or two; of four each has one, or two share the batches of one peer.
    found = on_ranks(processes, parted, cases)
    for case in cases:
        assert_union([rank[case] for rank in found], expected[case])
        own = [frozenset(rank[case]) for rank in found]
        assert len(set(own)) == (processes if case == "four peers" else 2)


def test_a_run_is_that_of_one_process_and_goes_on_anywhere(tmp_path: Path) -> None:
    whole, stopped, alone = tmp_path / "whole", tmp_path / "stopped", tmp_path / "alone"
    changes: dict[str, Any] = dict(method={"name": "codistillation", "every": 3}, share_until=None)
    messages = on_ranks(2, stopped_and_repeated, whole, stopped, "peers", changes)
    assert all("stopped after epoch 1, step 4" in message for message in messages), messages
    assert_same_run(whole, stopped)
    run(alone, **GENTLE, **changes, sync_batchnorm=True)
    run(tmp_path / "copy", **GENTLE, **changes, sync_batchnorm=True)  # what two processes began one may end
    for other in (alone, tmp_path / "copy"):
        ended = weights(other)
        assert ended.keys() == weights(whole).keys()
        for name, tensor in weights(whole).items():
            torch.testing.assert_close(ended[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    result, one = RunFolder(whole).result(), RunFolder(alone).result()
    assert result is not None and one is not None and (result["processes"], one["processes"]) == (2, 1)
    assert result["predictors"].keys() == one["predictors"].keys() and result["cost"] == one["cost"]
    for predictor, scores in one["predictors"].items():
        found = result["predictors"][predictor]["last"]["nll"]
        assert found == pytest.approx(scores["last"]["nll"], rel=1e-4), predictor
    assert "layout: peers" in (whole / "recipe.yaml").read_text()
