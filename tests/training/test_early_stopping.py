"""Runs that end where validation no longer gains."""

from pathlib import Path
from typing import Any

import pytest
from helpers import assert_same_run, run, tiny

from collegium.errors import UsageError
from collegium.pages.run_page import write_report
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.result import check_fits, early_stop, trained_epochs
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

WAITING: dict[str, Any] = dict(
    method={"name": "dml"},
    share_until=None,
    epochs=9,
    patience=2,
    data={"name": "digits", "per_class": 8, "validation": 0.1},
    learning_rate=1e-7,  # which changes no answer, so that nothing is better than the first evaluation
    schedule="constant",
)


def rows(*errors: float | None) -> list[dict[str, float]]:
    """An epoch for each error; None where it was not evaluated."""
    column = "validation/mean_peer/top1_error"
    return [{"epoch": k + 1} | ({} if e is None else {column: e}) for k, e in enumerate(errors)]


@pytest.mark.parametrize(
    ("errors", "epoch"),
    [
        ((), None),
        ((0.5, 0.4, 0.3, 0.2), None),
        ((0.5, 0.4, 0.4), None),
        ((0.5, 0.4, 0.4, 0.45), 4),
        ((0.5, 0.6, 0.4, 0.5), None),  # a gain starts the count again
        ((0.5, 0.6, 0.7), 3),
        ((None, 0.5, None, 0.6, None), None),  # evaluations count, not epochs
        ((None, 0.5, None, 0.6, None, 0.5), 6),
    ],
)
def test_patience_counts_evaluations_since_the_best(errors: tuple[float | None, ...], epoch: int | None) -> None:
    found = early_stop(rows(*errors), Recipe(patience=2, epochs=20))
    assert (None if found is None else found["epoch"]) == epoch
    assert early_stop(rows(*errors), Recipe(epochs=20)) is None


def test_the_last_epoch_is_no_early_stop() -> None:
    assert early_stop(rows(0.5, 0.6, 0.7), Recipe(patience=2, epochs=3)) is None


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run(folder, **WAITING)
    return folder


def test_a_stopped_run_is_complete_and_says_why(stopped: Path) -> None:
    folder = RunFolder(stopped)
    result = folder.result()
    assert result is not None and result["complete"] and result["epochs"] == 9
    assert result["stopped"]["epoch"] == trained_epochs(result) == len(folder.metrics()) == 3
    assert "Training stopped after epoch 3 of 9" in result["stopped"]["reason"]
    assert "that of epoch 1, in 2 evaluations" in result["stopped"]["reason"]
    assert result["images_per_second"] * result["training_seconds"] == pytest.approx(3 * 80)
    check_fits(result, folder.recipe(), folder.result_file)
    page = write_report(stopped).read_text()
    assert "Training stopped after epoch 3 of 9" in page and "After 3 epochs on" in page


def test_a_run_that_is_not_stopped_says_so(tmp_path: Path) -> None:
    result = run(tmp_path / "run", **WAITING | {"epochs": 2})
    assert result["stopped"] is None and trained_epochs(result) == 2


@pytest.mark.parametrize("at", [(1, 2), (2, 4)])
def test_a_killed_run_stops_at_the_same_epoch(
    at: tuple[int, int],
    stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed in the middle, and after its last checkpoint but before its result."""
    step, finish = Run.train_step, Run._finish

    def killed_step(self: Run, *arguments: object) -> None:
        if (self.epoch, self.step) == at:
            raise KeyboardInterrupt
        step(self, *arguments)  # type: ignore[arg-type]

    def killed_finish(self: Run) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train_step", killed_step)
    monkeypatch.setattr(Run, "_finish", killed_finish)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", **WAITING)
    monkeypatch.undo()
    monkeypatch.setattr(Run, "_finish", finish)
    assert train(tiny(**WAITING), tmp_path / "run")["stopped"]["epoch"] == 3
    said = capsys.readouterr().err
    assert ("stopped   early, after epoch 3 of 9" in said) == ("goes on" not in said) == (at == (2, 4))
    assert_same_run(stopped, tmp_path / "run")


def test_without_validation_images_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--patience asks for validation images, and digits has none"):
        run(tmp_path / "run", patience=2)
    assert not (tmp_path / "run").exists()
