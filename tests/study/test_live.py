import dataclasses
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from collegium.study.executors.local import Event
from collegium.study.live import LiveView
from collegium.study.study import Study
from collegium.training.run_folder import RunFolder
from helpers_study import cell, finish, made_up


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two runs done, four to go."""
    study = made_up(tmp_path / "s", {"independent": [0.9, 0.91]}, epochs=4)
    return Study(study.folder, [cell("ffl", seed, epochs=4) for seed in range(4)])


def view(study: Study) -> LiveView:
    made = LiveView(study)
    made.console = Console(file=io.StringIO(), width=150, color_system=None)
    return made


def drawn(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=150, color_system=None)
    console.print(view.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def said(view: LiveView) -> list[str]:
    assert isinstance(view.console.file, io.StringIO)
    return [" ".join(line.split()) for line in view.console.file.getvalue().splitlines()]


def test_a_running_run_shows_its_progress_its_best_and_the_time_left(study: Study) -> None:
    shown = view(study)
    running = study.cells[2]
    shown.happened(running, Event(running.key, "started"))
    assert "0/4 epochs" in drawn(shown)
    folder = RunFolder(study.run_folder(running).path)
    folder.path.mkdir(parents=True)
    rows = [{"epoch": k + 1, "test/mean_peer/top1_error": e, "seconds": 9.0 * k} for k, e in enumerate([0.4, 0.5])]
    folder.write_metrics(rows)
    shown.running[running.key].began -= 20
    text = drawn(shown)
    assert "ffl · 2xresnet8, seed 0" in text and "2/4 epochs" in text and "best 60.00 %" in text
    assert "20 s left" in text or "19 s left" in text  # 10 s an epoch
    assert "2 done · 1 running · 3 waiting" in text
    assert "best 91.00 % independent · 2xresnet8, seed 1" in text


def test_what_happens_is_said_line_by_line_without_a_terminal(study: Study) -> None:
    with view(study) as shown:
        first, second = study.cells[2:4]
        shown.happened(first, Event(first.key, "started"))
        finish(study, first, 0.95)
        shown.happened(first, Event(first.key, "done"))
        shown.happened(second, Event(second.key, "started"))
        shown.happened(second, Event(second.key, "failed", "the loss is not finite"))
    assert said(shown) == [
        "2 of 6 runs are done already",
        "started ffl · 2xresnet8, seed 0",
        "done [3/6] ffl · 2xresnet8, seed 0 95.00 % 11 s",
        "started ffl · 2xresnet8, seed 1",
        "failed [3/6] ffl · 2xresnet8, seed 1: the loss is not finite",
    ]
    assert "3 done · 1 failed · 2 waiting" in drawn(shown)
    assert "about" in drawn(shown), "the rows that are done tell how long the others take"


def test_a_run_that_goes_on_counts_the_time_of_its_new_epochs_alone(study: Study) -> None:
    shown = view(study)
    running = study.cells[2]
    folder = RunFolder(study.run_folder(running).path)
    folder.path.mkdir(parents=True)
    folder.write_metrics([{"epoch": 1, "test/mean_peer/top1_error": 0.4, "seconds": 1000.0}])
    time.sleep(0.02)
    shown.happened(running, Event(running.key, "started"))
    text = drawn(shown)
    assert "1/4 epochs" in text and "best 60.00 %" in text
    assert shown.running[running.key].pace is None


def test_names_and_errors_control_no_terminal(study: Study) -> None:
    wicked = dataclasses.replace(study.cells[2], label="a\x1b]0;T\x07[/bold]")
    study.cells[2] = wicked
    with view(study) as shown:
        shown.happened(wicked, Event(wicked.key, "started"))
        assert "\x1b" not in drawn(shown) and "a]0;T[/bold]" in drawn(shown)
        shown.happened(wicked, Event(wicked.key, "failed", "no\x1b[2J\nmore [red]"))
    assert said(shown)[-1] == "failed [2/6] a]0;T[/bold], seed 0: no[2J more [red]"
