"""One tiny finished run for all tests of the page."""

from pathlib import Path

import pytest

from collegium.results.analysis import RunAnalysis, gather
from collegium.training.recipe import Recipe
from collegium.training.run import train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FFL with two peers, two epochs on 50 digits."""
    folder = tmp_path_factory.mktemp("report") / "ffl"
    recipe = Recipe(
        method={"name": "ffl"},
        peers="2xresnet8",
        share_until="stage2",
        epochs=2,
        batch_size=25,
        data={"name": "digits", "per_class": 5},
    )
    train(recipe, folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def analysis(run: Path) -> RunAnalysis:
    return gather(run)


@pytest.fixture(scope="session")
def lone_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One peer that nobody teaches, one epoch in bf16, with validation images."""
    folder = tmp_path_factory.mktemp("report") / "lone"
    recipe = Recipe(
        method={"name": "independent"},
        peers="resnet8",
        epochs=1,
        batch_size=25,
        precision="bf16",
        data={"name": "digits", "validation": 0.1, "per_class": 5},
    )
    train(recipe, folder, quiet=True)
    return folder
