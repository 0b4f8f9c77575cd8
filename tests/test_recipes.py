"""Every recipe that comes with the library can be read and built."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.data import ClassificationData, ImageData, Split, from_scene
from collegium.data.batches import NO_AUGMENTATION
from collegium.training.experiment import build
from collegium.training.recipe import Recipe

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))


def stand_in(name: str) -> ClassificationData[Any]:
    """Blank images in the shape of a data set that may not be here."""
    if name == "salinas_a":
        cube = np.random.default_rng(0).normal(size=(83, 86, 204))
        return from_scene(cube, np.arange(83 * 86).reshape(83, 86) % 7, patch=7, pca=15, block=16, per_class=10)
    if name == "indian_pines":
        cube = np.random.default_rng(0).normal(size=(40, 60, 200))
        return from_scene(cube, np.arange(60) // 5 + np.ones((40, 1)), patch=5, pca=15, block=8, per_class=5)
    classes, channels, side = {
        "digits": (10, 1, 16),
        "cifar100": (100, 3, 32),
        "spectra:Houston13_train.mat": (15, 144, 1),
    }[name]
    split = Split(torch.zeros(classes, channels, side, side, dtype=torch.uint8), torch.arange(classes))
    names, ones = tuple(map(str, range(classes))), (1.0,) * channels
    return ImageData(
        name=name, train=split, test=split, class_names=names, mean=ones, std=ones, augmentation=NO_AUGMENTATION
    )


def test_all_recipes_are_looked_at() -> None:
    assert len(RECIPES) == 14
    assert {file.suffix for file in FOLDER.rglob("*") if file.is_file()} == {".yaml"}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_builds_and_says_what_it_is_for(file: Path) -> None:
    recipe = Recipe.read(file)
    experiment = build(recipe, data=stand_in(recipe.data_name))
    assert experiment.spec.num_peers >= 2
    assert file.read_text().startswith("# ")
