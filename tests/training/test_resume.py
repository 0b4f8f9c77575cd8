"""A run that is stopped at any moment and repeated ends like the undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import Killed, assert_same_run, killed, run, tiny

from collegium.training import loop
from collegium.training.loop import Interrupted, Run
from collegium.training.run import train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(folder)
    return folder


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 6, 11])
def test_a_run_killed_after_some_steps_ends_in_the_same_weights(
    steps: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, done = Run.train_step, []

    def step(self: Run, *arguments: object) -> None:
        if len(done) == steps:
            raise Killed
        original(self, *arguments)  # type: ignore[arg-type]
        done.append(1)

    monkeypatch.setattr(Run, "train_step", step)
    with pytest.raises(Killed):
        run(tmp_path / "run")
    monkeypatch.undo()
    run(tmp_path / "run")
    assert_same_run(undisturbed, tmp_path / "run")


def test_a_run_killed_while_writing_a_checkpoint_goes_on_from_the_one_before(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, written = torch.save, []

    def half(state: object, file: object) -> None:
        written.append(1)
        if len(written) == 2:
            file.write(b"half a checkpoint")  # type: ignore[attr-defined]
            raise Killed
        save(state, file)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        run(tmp_path / "run")
    monkeypatch.undo()
    run(tmp_path / "run")
    assert_same_run(undisturbed, tmp_path / "run")


def test_a_run_killed_before_its_result_is_written_trains_no_more(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(loop, "save_peer", die)
    with pytest.raises(Killed):
        run(tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(Run, "train_step", die)
    result = run(tmp_path / "run")
    assert result["complete"]
    assert_same_run(undisturbed, tmp_path / "run")


def test_a_run_with_mixed_images_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = {"mixup": 0.8, "cutmix": 1.0}
    run(tmp_path / "whole", **mixed)
    killed(tmp_path / "run", (1, 1), monkeypatch, **mixed)
    run(tmp_path / "run", **mixed)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("stop_after", [2, 4, 7])
def test_a_stop_in_the_middle_of_an_epoch_saves_and_goes_on_exactly(
    stop_after: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, done = Run.train_step, []

    def step(self: Run, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        done.append(1)
        if len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "train_step", step)
    with pytest.raises(Interrupted, match="Repeat the command to go on"):
        run(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / f"step_{stop_after:09d}.pt").exists()
    assert not (tmp_path / "run" / "result.json").exists()
    run(tmp_path / "run")
    assert len(done) == 12, "steps that were taken are not taken again"
    assert_same_run(undisturbed, tmp_path / "run")


def test_the_signal_handlers_of_the_user_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path / "run", epochs=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_process_that_is_really_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL twice at whatever moment it hits, then to the end; the same command each time."""
    command = [sys.executable, "-m", "collegium.cli", "train", "--config", "digits", "--epochs", "40", "--quiet"]
    command += ["--device", "cpu", "--data.per_class", "8", "--batch_size", "20", "--evaluate_every", "40"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = tmp_path / "killed"
    for checkpoints in (2, 12):
        process = subprocess.Popen([*command, "--run", str(killed)], env=environment)
        deadline = time.monotonic() + 120
        while _newest_step(killed) < 4 * checkpoints and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "result.json").exists()
    for folder in (killed, tmp_path / "undisturbed"):
        subprocess.run([*command, "--run", str(folder)], env=environment, check=True, capture_output=True)
    assert_same_run(tmp_path / "undisturbed", killed)


def _newest_step(folder: Path) -> int:
    return max((int(p.stem.removeprefix("step_")) for p in folder.glob("checkpoints/step_*.pt")), default=0)


def test_a_finished_run_is_left_as_it_is(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file() and p.name != ".lock"}
    monkeypatch.setattr(Run, "train_step", None)
    result = run(undisturbed)
    assert result["complete"]
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file() and p.name != ".lock"}


def test_overwrite_starts_over(undisturbed: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", seed=5)
    train(tiny(), tmp_path / "run", overwrite=True, quiet=True)
    assert_same_run(undisturbed, tmp_path / "run")


def test_seeds_of_weights_and_data_act_separately(tmp_path: Path) -> None:
    def start(**seeds: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        from collegium.training.engine import make_fabric
        from collegium.training.experiment import build

        experiment = build(tiny(**seeds))
        trained = Run(experiment, loop.RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)
        images, _ = next(iter(trained.training_batches.epoch(0)))
        return [p.detach().clone() for p in experiment.learner.parameters()], images

    weights_a, images_a = start(weight_seed=1, data_seed=2)
    weights_b, images_b = start(weight_seed=1, data_seed=3)
    weights_c, images_c = start(weight_seed=4, data_seed=2)
    assert all(torch.equal(a, b) for a, b in zip(weights_a, weights_b, strict=True))
    assert not all(torch.equal(a, c) for a, c in zip(weights_a, weights_c, strict=True))
    assert torch.equal(images_a, images_c) and not torch.equal(images_a, images_b)
