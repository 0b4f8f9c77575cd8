"""Steps that compute their batch in parts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, killed, run, tiny, weights
from many import CASES, gradients, in_float64, on_ranks
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.training.devices import Devices
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

ALONE = Devices()
MEANS = ["dml", "ffl", "afd", "afd mutual", "dml mixed", "pcl", "codistillation"]  # whose terms are means over images


def _gradients(devices: Devices, cases: list[str], parts: int) -> dict[str, dict[str, Tensor]]:
    with in_float64():
        return {case: gradients(case, devices, synchronised=False, micro_batches=parts) for case in cases}


def _assert_equal(found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> None:
    for case, wanted in expected.items():
        assert found[case].keys() == wanted.keys() and len(wanted) > 20
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[case][name], gradient, rtol=1e-8, atol=1e-10, msg=f"{case}: {name}")


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Tensor]]:
    return _gradients(ALONE, MEANS, 1)


def test_gradients_are_those_of_the_batch_in_one_go_where_norms_are_frozen(whole: dict[str, Any]) -> None:
    """A batch of 20 images in parts of 5, for one player and for several."""
    _assert_equal(_gradients(ALONE, MEANS, 4), whole)


def test_so_they_are_where_processes_share_the_batch(whole: dict[str, Any]) -> None:
    for found in on_ranks(2, _gradients, ["dml mixed", "afd"], 5):
        _assert_equal(found, {case: whole[case] for case in ("dml mixed", "afd")})


class Plain(nn.Module):
    """Without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.head = nn.Conv2d(1, 8, 3, 2), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.low(x).relu().mean((2, 3)))
        return y


def test_a_run_without_batch_norm_ends_like_that_in_one_go(tmp_path: Path) -> None:
    results = {}
    for parts in (1, 4):
        torch.manual_seed(0)
        peers = [Plain(), Plain()]
        recipe = tiny(method={"name": "dml"}, share_until=None, peers="python:x,python:y", micro_batches=parts)
        results[parts] = train(recipe, tmp_path / str(parts), peers=peers, quiet=True)
    ended = weights(tmp_path / "4")
    for name, tensor in weights(tmp_path / "1").items():
        torch.testing.assert_close(ended[name], tensor, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(RunFolder(tmp_path / str(parts)).metrics() for parts in (1, 4)), strict=True):
        assert a["train/peers/ce"] == pytest.approx(b["train/peers/ce"], rel=1e-5)
        assert a["train/accuracy/peer0"] == b["train/accuracy/peer0"]
        assert a["learning_rate"] == b["learning_rate"]
    images = {parts: result["images_per_second"] * result["training_seconds"] for parts, result in results.items()}
    assert images[1] == pytest.approx(images[4]) == pytest.approx(3 * 80)


def test_a_killed_run_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[str, Any] = dict(method={"name": "afd"}, share_until=None, micro_batches=2, mixup=0.4)
    run(tmp_path / "whole", **entries)
    killed(tmp_path / "run", (1, 1), monkeypatch, **entries)
    run(tmp_path / "run", **entries)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_compiled_micro_batches_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients("dml", ALONE, synchronised=False, micro_batches=2)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    found = gradients("dml", ALONE, synchronised=False, micro_batches=2, compile=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            {"micro_batches": 3},
            "a batch of 20 images cannot be divided into 3 equal micro-batches; change --batch-size",
        ),
        ({"micro_batches": 20}, "batch norm needs micro-batches of 2 images or more"),
        (
            {"micro_batches": 4, "method": {"name": "mcl"}},
            "micro-batches with 2 images of every class in it, as mcl needs",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(entries: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(tmp_path / "run", share_until=None, **{"method": {"name": "dml"}, **entries})
    assert not (tmp_path / "run" / "recipe.yaml").exists() and "dml" in CASES
