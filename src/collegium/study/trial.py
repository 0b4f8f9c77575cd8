"""Whether a run can be built, found out before anything trains."""

from pathlib import Path
from typing import Any

import torch

from collegium import data as datasets
from collegium import methods, networks
from collegium.data import ClassificationData
from collegium.options import check_options
from collegium.training.experiment import Experiment, build
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder
from collegium.user_code import consents


class Trial:
    """Builds runs in order to see whether they can be; each data set is loaded once. Nothing is written."""

    def __init__(self) -> None:
        self._loaded: dict[str, ClassificationData[Any]] = {}

    @consents()
    def names(self, recipe: Recipe) -> None:
        """Whether method, options and networks exist; no data are loaded.

        Raises:
            UsageError: one does not.
        """
        method = methods.get(recipe.method_name)
        check_options(method.__name__, method, recipe.method_options, skip="spec")
        datasets.loader(recipe.data_name)
        for name in set(networks.parse_peers(recipe.peers)):
            networks.check(name)

    @consents()
    def build(self, recipe: Recipe, teacher: str | None = None) -> Experiment:
        """The run, ready to train.

        Args:
            recipe: what to build.
            teacher: the name of the network that will be its teacher, where that is not trained yet.

        Raises:
            UsageError: it does not fit together.
            DataError: the data cannot be read.
        """
        self.names(recipe)
        place = repr(sorted(recipe.data.items()))
        if place not in self._loaded:
            self._loaded[place] = datasets.load(recipe.data_name, **recipe.data_options)
        data = self._loaded[place]
        network = None
        if teacher is not None:
            network = networks.build(
                networks.untrained(teacher),
                num_classes=data.num_classes,
                in_channels=data.in_channels,
                image_size=data.image_size,
                mean=data.mean,
                std=data.std,
            )
        experiment = build(recipe, data=data, teacher=network)
        if recipe.device == "cpu" or not torch.cuda.is_available():  # a GPU is left to the runs
            from collegium.training.engine import make_fabric
            from collegium.training.loop import Run

            Run(experiment, RunFolder(Path()), make_fabric(recipe), quiet=True)
        return experiment
