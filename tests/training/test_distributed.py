"""Several processes train as one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, run, weights
from many import (
    CASES,
    GENTLE,
    WHATS,
    assert_same_gradients,
    compiled_gradients,
    everything,
    gradients,
    in_float64,
    on_ranks,
    one_of,
    scores,
    stopped_and_repeated,
)

from collegium.data.decoding.workers import cpus
from collegium.training.devices import Devices
from collegium.training.run_folder import RunFolder

ALONE = Devices()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradients and weights of one process."""
    path = tmp_path_factory.mktemp("reference") / "gradients.pt"
    with in_float64():
        torch.save({what: one_of(what, ALONE) for what in WHATS}, path)
    return path


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, reference: Path) -> list[dict[str, Any]]:
    """What each of 2 or 4 ranks finds."""
    if request.param > max(2, cpus()):
        pytest.skip(f"needs {request.param} cores, or it takes minutes")
    return on_ranks(request.param, everything, reference)


def test_gradients_are_those_of_one_process_for_every_method(found: list[dict[str, Any]]) -> None:
    assert [rank["different"] for rank in found] == [{}] * len(found)


def test_compiled_steps_have_the_same_gradients() -> None:
    cases = ["ffl", "mcl", "switokd", "kdcl linear", "kdcl general"]  # most of these gather within the step
    expected = {case: gradients(case, ALONE, synchronised=False) for case in cases}
    for found in on_ranks(2, compiled_gradients, cases):
        for case in cases:
            assert_same_gradients(found[case], expected[case])


def test_weights_and_statistics_are_the_same_bits_on_all_ranks(found: list[dict[str, Any]]) -> None:
    assert len(found[0]["digests"]) == len(CASES)
    assert all(rank["digests"] == found[0]["digests"] for rank in found)


def test_scores_count_every_image_once(found: list[dict[str, Any]]) -> None:
    # 450 images: of 4 ranks two have one more than the others.
    for rank in found:
        for predictor, values in scores(ALONE).items():
            for metric, value in values.items():
                expected = value if "error" in metric else pytest.approx(value, rel=1e-5)
                assert rank["scores"][predictor][metric] == expected, (predictor, metric)


def test_what_is_gathered_passes_gradients_on(found: list[dict[str, Any]]) -> None:
    parts = [torch.arange(6.0).reshape(3, 2) + r for r in range(len(found))]
    whole = torch.cat(parts).requires_grad_()
    mean = torch.stack(list(whole.split(3))).mean(0)
    # The sum of the ranks' losses: the run takes the mean of what each rank then holds.
    (sum(whole.square().sum() * (1 + r) + mean.pow(3).sum() for r in range(len(found)))).backward()
    assert whole.grad is not None
    for gradient, rank in zip(whole.grad.split(3), found, strict=True):
        gathered, found = rank["gathered"]
        assert torch.equal(gathered, whole.detach())
        torch.testing.assert_close(found, gradient)


def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    messages = on_ranks(2, stopped_and_repeated, whole, stopped, "data", {})
    # The votes after a step are counted, without a wait for a device, after the next one.
    assert all("stopped after epoch 1, step 4" in message for message in messages), messages
    assert_same_run(whole, stopped)
    # What two processes began one may end.
    run(tmp_path / "copy", **GENTLE, sync_batchnorm=True)
    ended = weights(tmp_path / "copy")
    for name, tensor in weights(whole).items():
        if not name.startswith("optimizer"):  # a last gradient, where units are about to switch
            torch.testing.assert_close(ended[name], tensor, rtol=1e-4, atol=1e-5)
    for a, b in zip(RunFolder(whole).metrics(), RunFolder(tmp_path / "copy").metrics(), strict=True):
        assert a["train/peers/ce"] == pytest.approx(b["train/peers/ce"], rel=1e-5)
