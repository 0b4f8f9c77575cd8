"""The GPU of an Apple computer, which tests do not have: what is chosen and refused, and that no float64 is needed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import run, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collegium import distiller, methods
from collegium.errors import UsageError
from collegium.networks import build as network
from collegium.training import engine, metrics, probe
from collegium.training.devices import Devices
from collegium.training.engine import make_fabric, random_state, set_random_state
from collegium.training.experiment import build
from collegium.training.loop import Run
from collegium.training.run_folder import RunFolder


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A machine that seems to have it; what Fabric is asked for."""
    asked: list[dict[str, Any]] = []

    def fabric(**given: Any) -> SimpleNamespace:
        asked.append(given)
        return SimpleNamespace(device=torch.device("mps:0"))

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (14, 0))
    monkeypatch.setattr(engine, "Fabric", fabric)
    yield asked


def test_it_is_chosen_where_it_is_asked_for_alone(mps: list[dict[str, Any]]) -> None:
    make_fabric(tiny(device="mps"))
    make_fabric(tiny(device="cpu"))
    assert [given["accelerator"] for given in mps] == ["mps", "cpu"]
    assert mps[0]["precision"] == "32-true" and mps[0]["plugins"] is None


def test_bf16_is_autocast_on_it(mps: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    make_fabric(tiny(device="mps", precision="bf16"))
    (plugin,) = mps[0]["plugins"]
    assert (plugin.device, plugin.precision) == ("mps", "bf16-mixed") and mps[0]["precision"] is None
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    with pytest.raises(UsageError, match="bf16 on device mps needs macOS 14"):
        make_fabric(tiny(device="mps", precision="bf16"))


@pytest.mark.parametrize(
    ("changes", "devices", "sentence"),
    [
        ({"precision": "fp16"}, Devices(), "fp16 needs a CUDA GPU"),
        ({"compile": True}, Devices(), "leave --compile out with --device mps"),
        ({}, Devices(2), "an Apple computer has one GPU"),
    ],
)
def test_what_it_cannot_do_is_refused(
    mps: list[dict[str, Any]], changes: dict[str, Any], devices: Devices, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_fabric(tiny(device="mps", **changes), devices)
    with pytest.raises(UsageError, match="leave it out with --device mps"):
        probe.fastest(tiny(device="mps"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is there")
def test_where_it_is_absent_one_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks for device mps, and torch finds none here; use --device auto or cpu"):
        run(tmp_path / "run", device="mps")
    assert not (tmp_path / "run").exists()


def test_a_note_says_that_bits_may_differ() -> None:
    assert any("does not promise the same bits" in note for note in build(tiny(device="mps")).notes)


def test_its_random_state_is_saved_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    state = [torch.tensor([1], dtype=torch.uint8)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", state.append)
    device = torch.device("mps")
    with engine.own_random_state(device):
        state.append(torch.tensor([2], dtype=torch.uint8))
    assert random_state(device).tolist() == [1]
    set_random_state(device, torch.tensor([3], dtype=torch.uint8))
    assert state[-1].tolist() == [3]
    assert random_state(torch.device("cpu")) is None


class Float64(TorchDispatchMode):
    """Notes the operations that give tensors of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        if any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves(result)):
            self.found.add(str(function))
        return result


@pytest.mark.parametrize(
    ("method", "optimizer"), [*((name, "sgd") for name in methods.names()), ("dml", "adam"), ("dml", "adamw")]
)
def test_no_step_and_no_evaluation_needs_float64_on_the_device(
    method: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is used, :func:`collegium.wide.in_double` moves to the CPU; here that is away."""
    for module in (distiller, metrics):
        monkeypatch.setattr(module, "in_double", torch.Tensor.float)
    kind = methods.get(method)
    teacher = network("resnet8", num_classes=10, in_channels=1) if kind.needs_teacher else None
    changes = dict(method={"name": method}, peers=f"{max(2, kind.min_peers)}xresnet8", cutmix=1.0)
    changes["share_until"] = "stage2" if method == "one" else None
    changes |= dict(optimizer=optimizer, label_smoothing=0.1, class_weights="balanced", gradient_clip=1.0)
    experiment = build(tiny(**changes), teacher=teacher)
    running = Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)
    running.learner.train()
    with Float64() as mode:
        for images, target in list(running.training_batches.epoch(0))[:2]:
            running.train_step(images, target, 0.5)
            running.step += 1
        batches = running.evaluator.scored["test"]
        images, target = next(iter(batches.epoch(0)))
        for found in metrics.score(running.evaluator.predict, [(images, target)], 10).values():
            assert found._bins.dtype == torch.float32
    assert mode.found == set()


def test_the_mode_sees_float64() -> None:
    with Float64() as mode:
        torch.ones(2).double()
    assert len(mode.found) == 1
