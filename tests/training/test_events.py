import os
import shutil
from pathlib import Path

import pytest
from helpers import run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from collegium.training.events import Events


def test_every_epoch_is_written_at_once(tmp_path: Path) -> None:
    with Events(tmp_path, 1) as events:
        events.add({"loss": 0.5}, 1)
        found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 0.5)]


def test_nothing_is_written_where_nothing_is_wanted(tmp_path: Path) -> None:
    with Events(tmp_path, 1, write=False) as events:
        events.add({"loss": 0.5}, 1)
    assert not list(tmp_path.iterdir())


def test_a_link_is_not_followed_and_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="tensorboard is a link.*training goes on without it") as warned:
        with Events(tmp_path / "run", 1) as events:
            events.add({"loss": 0.5}, 1)
            events.add({"loss": 0.5}, 2)
    assert len(warned) == 1 and not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_goes_away_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="cannot write .*tensorboard: .*full") as warned:
        with Events(tmp_path, 1) as events:
            assert events.writer is not None

            def full(*_: object) -> None:
                raise OSError("the disk is full")

            monkeypatch.setattr(events.writer, "flush", full)
            for epoch in (1, 2, 3):
                events.add({"loss": 0.5}, epoch)
    assert len(warned) == 1


def test_a_full_disk_is_told_by_a_warning_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="cannot write .*tensorboard: .*No space left") as warned:
        with Events(tmp_path, 1) as events:
            assert events.writer is not None
            os.dup2(os.open("/dev/full", os.O_WRONLY), events.writer._writer.fileno())
            for epoch in (1, 2, 3):
                events.add({"loss": 0.5}, epoch)
    assert len(warned) == 1 and capfd.readouterr() == ("", "")


def test_what_a_killed_process_wrote_of_later_epochs_is_replaced(tmp_path: Path) -> None:
    for first, value in ((1, 0.5), (2, 0.25)):
        with Events(tmp_path, first) as events:
            for epoch in (first, first + 1):
                events.add({"loss": value}, epoch)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 0.5), (2, 0.25), (3, 0.25)]


def test_a_run_whose_tensorboard_is_a_file_is_trained(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / "tensorboard").write_text("?")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.warns(UserWarning, match="training goes on without it"):
        assert run(tmp_path / "run", epochs=1)["complete"]
