"""Runs small enough to be made many times."""

from pathlib import Path
from typing import Any

import pytest
import torch

from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run import train
from collegium.training.run_folder import RunFolder


def tiny(**changes: Any) -> Recipe:
    """Four steps an epoch on 80 digits."""
    values: dict[str, Any] = dict(
        method={"name": "ffl"},
        peers="2xresnet8",
        share_until="stage2",
        data={"name": "digits", "per_class": 8},
        epochs=3,
        batch_size=20,
        device="cpu",
    )
    return Recipe.from_dict(values | changes)


def run(folder: Path, **changes: Any) -> dict[str, Any]:
    return train(tiny(**changes), folder, quiet=True)


class Killed(BaseException):
    """The process is gone: no handler may do anything about it."""


def killed(folder: Path, at: tuple[int, int], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """A run that ends as if killed before a step, at (epochs, steps of the next one) that are complete."""
    original = Run.train_step

    def step(self: Run, *arguments: Any) -> None:
        if (self.epoch, self.step) == at:
            raise Killed
        original(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Run, "train_step", step)
        run(folder, **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that the last checkpoint holds of networks, method and optimizer, by name."""
    newest = sorted((folder / "checkpoints").glob("*.pt"))[-1]
    state = torch.load(newest, weights_only=True)
    optimizer = {
        f"optimizer/{player}/{k}/{key}": value
        for player, saved in state["optimizers"].items()
        for k, entry in saved["state"].items()
        for key, value in entry.items()
        if isinstance(value, torch.Tensor)
    }
    return {**state["learner"], **optimizer}


def assert_same_run(first: Path, second: Path) -> None:
    """Weights and optimizer bit for bit, and all measured rows but the clock."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and len(a) > 50
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert [timeless(row) for row in RunFolder(first).metrics()] == [
        timeless(row) for row in RunFolder(second).metrics()
    ]


def timeless(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "seconds"}
