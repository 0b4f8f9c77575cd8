import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, tiny

import collegium
from collegium import Callbacks, TrainingView
from collegium.errors import Interrupted, TrainingError, UsageError
from collegium.training.run import train
from collegium.training.run_folder import RunFolder


def test_they_are_called_in_order_with_how_far_the_run_is(tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    def noted(name: str) -> Any:
        return lambda view: calls.append((name, view.epoch, view.step, dict(view.metrics)))

    names = ("on_train_start", "on_step_end", "on_evaluate_end", "on_epoch_end", "on_train_end")
    callbacks = Callbacks(**{name: noted(name) for name in names})
    recipe = tiny(epochs=2, evaluate_every=2)
    result = train(recipe, tmp_path / "run", quiet=True, callbacks=callbacks)
    steps = [("on_step_end", 0, k) for k in (1, 2, 3, 4)]
    later = [("on_step_end", 1, k) for k in (1, 2, 3, 4)]
    assert [call[:3] for call in calls] == [
        ("on_train_start", 0, 0), *steps, ("on_epoch_end", 1, 0), *later,
        ("on_evaluate_end", 2, 0), ("on_epoch_end", 2, 0), ("on_train_end", 2, 0),
    ]  # fmt: skip
    metrics = {call[:2]: call[3] for call in calls}
    rows = RunFolder(tmp_path / "run").metrics()
    error = result["predictors"]["peer0"]["last"]["top1_error"]
    assert metrics["on_evaluate_end", 2]["test/peer0/top1_error"] == error
    assert metrics["on_epoch_end", 1] == pytest.approx(rows[0])
    assert metrics["on_train_end", 2] == pytest.approx(rows[1])
    assert metrics["on_step_end", 0]["train/peers/ce"] == pytest.approx(rows[0]["train/peers/ce"])


def test_they_leave_the_run_s_numbers_as_they_are(tmp_path: Path) -> None:
    def evaluates_and_draws(view: TrainingView) -> None:
        assert not torch.is_grad_enabled()
        view.cohort.eval()
        view.cohort.forward_peers(torch.rand(2, 1, 16, 16))

    recipe = tiny(epochs=2, peers="2xwrn_10_1", share_until=None)
    train(recipe, tmp_path / "with", quiet=True, callbacks=Callbacks(on_step_end=evaluates_and_draws))
    train(recipe, tmp_path / "without", quiet=True)
    assert_same_run(tmp_path / "with", tmp_path / "without")


def test_the_view_can_only_be_read(tmp_path: Path) -> None:
    def writes(view: TrainingView) -> None:
        with pytest.raises(AttributeError):
            view.epoch = 7  # type: ignore[misc]
        with pytest.raises(TypeError):
            view.metrics["epoch"] = 7.0  # type: ignore[index]

    train(tiny(epochs=1), tmp_path / "run", quiet=True, callbacks=Callbacks(on_epoch_end=writes))


@pytest.mark.parametrize("name", ("on_step_end", "on_epoch_end"))
def test_false_stops_the_run_which_goes_on_to_the_same_end(name: str, tmp_path: Path) -> None:
    def stops(view: TrainingView) -> bool:
        return (view.epoch, view.step) != (1, 2 if name == "on_step_end" else 0)

    with pytest.raises(Interrupted, match="stopped after epoch 1"):
        train(tiny(), tmp_path / "run", quiet=True, callbacks=Callbacks(**{name: stops}))
    assert RunFolder(tmp_path / "run").result() is None
    train(tiny(), tmp_path / "run", quiet=True)
    train(tiny(), tmp_path / "whole", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_an_error_of_theirs_names_the_place_and_leaves_the_run_whole(tmp_path: Path) -> None:
    def fails(view: TrainingView) -> None:
        if view.epoch == 2:
            raise KeyError("wrong")

    message = (
        r"the callback on_epoch_end failed after epoch 2, step 0 \(KeyError: 'wrong'\); the last saved state is .*04.pt"
    )
    with pytest.raises(TrainingError, match=message) as caught:
        train(tiny(), tmp_path / "run", quiet=True, callbacks=Callbacks(on_epoch_end=fails))
    assert isinstance(caught.value.__cause__, KeyError)
    train(tiny(), tmp_path / "run", quiet=True)
    train(tiny(), tmp_path / "whole", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_an_error_after_the_end_leaves_a_complete_run(tmp_path: Path) -> None:
    def fails(view: TrainingView) -> None:
        raise ValueError

    with pytest.raises(TrainingError, match="the callback on_train_end failed after epoch 1"):
        train(tiny(epochs=1), tmp_path / "run", quiet=True, callbacks=Callbacks(on_train_end=fails))
    result = RunFolder(tmp_path / "run").result()
    assert result is not None and result["complete"]


def write_where(view: TrainingView) -> bool:
    """With several processes it must be found in a module."""
    with (view.run / "called.txt").open("a") as file:
        print(os.environ.get("RANK"), view.epoch, view.step, file=file)
    return (view.epoch, view.step) != (1, 0)


def test_with_several_devices_the_first_process_calls_them(tmp_path: Path) -> None:
    recipe = tiny(epochs=2)
    with pytest.raises(Interrupted, match="stopped after epoch 1"):
        train(recipe, tmp_path / "run", quiet=True, devices=2, callbacks=Callbacks(on_epoch_end=write_where))
    assert (tmp_path / "run" / "called.txt").read_text() == "0 1 0\n"
    with pytest.raises(UsageError, match="cannot be sent to another process"):
        train(recipe, tmp_path / "run", quiet=True, devices=2, callbacks=Callbacks(on_epoch_end=lambda view: None))


def test_what_are_no_callbacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on_epoch_end must be a function of one argument, not 3"):
        Callbacks(on_epoch_end=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"given as collegium.Callbacks\(on_epoch_end=...\), not list"):
        collegium.train(callbacks=[print], run=tmp_path / "run")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
