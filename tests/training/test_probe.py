"""Precision and layout are those of the fastest step, and the run is as if they had been said."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers import assert_same_run, tiny

from collegium.errors import UsageError
from collegium.training import probe
from collegium.training import run as running
from collegium.training.experiment import Experiment, build
from collegium.training.loop import Interrupted, Run
from collegium.training.run import train
from collegium.training.run_folder import RunFolder


def pretend(seconds: dict[tuple[str, bool], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled steps take half of that, those replayed as CUDA graphs a quarter."""

    def step(experiment: Experiment) -> float:
        recipe = experiment.recipe
        return seconds[recipe.precision, recipe.channels_last] / 2 ** (recipe.compile + recipe.cuda_graphs)

    monkeypatch.setattr(probe, "_step_seconds", step)


def test_the_fastest_wins_and_all_that_was_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("fp32", True): 0.3, ("fp32", False): 0.5, ("bf16", True): 0.2, ("bf16", False): 0.1}
    pretend(seconds, monkeypatch)
    recipe, verdict = probe.fastest(tiny(precision="fp32"))
    assert recipe == tiny(precision="bf16", channels_last=False)
    assert verdict == (
        "Fastest configuration: bf16, channels first: 100 ms per step (others: bf16, channels last: 200 ms, "
        "fp32, channels last: 300 ms, fp32, channels first: 500 ms)."
    )


def test_what_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(experiment: Experiment) -> float:
        if experiment.recipe.precision == "fp32":
            raise torch.OutOfMemoryError("full")
        return 0.1 + experiment.recipe.channels_last

    monkeypatch.setattr(probe, "_step_seconds", step)
    recipe, verdict = probe.fastest(tiny())
    assert (recipe.precision, recipe.channels_last) == ("bf16", False)
    assert verdict.endswith("fp32, channels last: failed, fp32, channels first: failed).")
    monkeypatch.setattr(probe, "_precisions", lambda recipe: ["fp32"])
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        probe.fastest(tiny())


def test_on_a_gpu_compiled_steps_are_tried_in_what_is_fastest_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend({("fp32", True): 0.3, ("fp32", False): 0.5, ("bf16", True): 0.08, ("bf16", False): 0.1}, monkeypatch)
    monkeypatch.setattr(probe, "_on_gpu", lambda recipe: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    recipe, verdict = probe.fastest(tiny())
    assert recipe == tiny(precision="bf16", compile=True, cuda_graphs=True)
    assert verdict.startswith(
        "Fastest configuration: bf16, channels last, compiled, CUDA graphs: 20 ms per step (others: "
        "bf16, channels last, compiled: 40 ms, bf16, channels last: 80 ms, bf16, channels first: 100 ms, "
    )
    for stays in (probe.fastest(tiny(), compiling=False), probe.fastest(tiny(activation_checkpointing=True))):
        assert stays[0].precision == "bf16" and not stays[0].compile


def test_a_compiled_step_is_timed_once_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def step(self: Run, *_: object) -> None:
        made.append(self.recipe.compile)

    monkeypatch.setattr(Run, "train_step", step)
    for compiled, steps in ((False, 1 + probe.STEPS), (True, 4 + probe.STEPS)):
        made.clear()
        probe._step_seconds(build(tiny(compile=compiled)))
        assert made == [compiled] * steps


def test_measuring_leaves_networks_and_random_state_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 10))
    peers = [module, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))]
    before = [p.clone() for peer in peers for p in peer.parameters()]
    random = torch.get_rng_state()
    recipe = tiny(method={"name": "dml"}, peers="python:own", share_until=None)
    found, _ = probe.fastest(recipe, peers=peers)
    assert found.precision in ("fp32", "bf16")
    assert dataclasses.replace(found, precision="fp32", channels_last=True) == recipe
    assert torch.equal(torch.get_rng_state(), random)
    for old, new in zip(before, [p for peer in peers for p in peer.parameters()], strict=True):
        assert torch.equal(old, new) and new.grad is None


def test_a_run_is_as_if_it_had_been_said_and_goes_on_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend({("fp32", True): 2, ("fp32", False): 1, ("bf16", True): 3, ("bf16", False): 4}, monkeypatch)
    train(tiny(channels_last=False), tmp_path / "said", quiet=True)
    end_epoch = Run.end_epoch

    def stop(self: Run, *arguments: object) -> None:
        self.stop_requested = self.epoch == 1
        end_epoch(self, *arguments)

    monkeypatch.setattr(Run, "end_epoch", stop)
    with pytest.raises(Interrupted):
        train(tiny(), tmp_path / "found", fastest=True)
    assert "Fastest configuration: fp32, channels first" in capsys.readouterr().err
    monkeypatch.setattr(Run, "end_epoch", end_epoch)
    monkeypatch.setattr(probe, "fastest", None)  # nothing is measured again
    train(tiny(), tmp_path / "found", fastest=True, quiet=True)
    assert_same_run(tmp_path / "said", tmp_path / "found")
    assert RunFolder(tmp_path / "found").recipe() == RunFolder(tmp_path / "said").recipe()


def test_for_several_devices_it_measures_in_a_process_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "_step_seconds", None)  # nothing is measured here
    launched = []
    monkeypatch.setattr(running, "launch", lambda call, devices: launched.append((call.args[0], devices)))
    train(tiny(channels_last=True), tmp_path / "run", fastest=True, devices=2)
    verdict = capsys.readouterr().err
    ((recipe, devices),) = launched
    assert devices == 2 and not recipe.compile
    assert (
        f"Fastest configuration: {recipe.precision}, channels {'last' if recipe.channels_last else 'first'}" in verdict
    )


def test_it_is_refused_where_processes_run_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--fastest measures in one process"):
        train(tiny(), tmp_path / "run", fastest=True)
    assert not (tmp_path / "run").exists()
