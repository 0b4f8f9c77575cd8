"""What is about to be trained, in a few lines."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collegium.data import ClassificationData
from collegium.formatting import count, plural
from collegium.training.cost import Cost
from collegium.training.experiment import Experiment
from collegium.training.fabric import Fabric
from collegium.training.provenance import device_name
from collegium.training.recipe import Recipe


def overview(experiment: Experiment, fabric: Fabric, folder: Path, costs: Mapping[str, Cost]) -> list[tuple[str, str]]:
    """Names, and what is to be said of them: data, peers with parameters and FLOPs, method, device, training, folder.

    Args:
        experiment: what is trained.
        fabric: device and precision.
        folder: the run's.
        costs: of the peers, see :func:`collegium.training.cost.peer_costs`.
    """
    recipe = experiment.recipe
    return [
        ("data", _data(experiment.data)),
        *zip(["peers", *[""] * experiment.spec.num_peers], _peers(experiment, costs), strict=False),
        ("method", _method(experiment)),
        ("device", _device(recipe, fabric)),
        ("training", _training(recipe, len(experiment.data.train))),
        ("folder", str(folder)),
    ]


def _data(data: ClassificationData[Any]) -> str:
    validation = 0 if data.validation is None else len(data.validation)
    size = "x".join(map(str, data.image_shape))
    return (
        f"{data.name}: {len(data.train):,} training, {validation:,} validation and {len(data.test):,} test images "
        f"of {size}, {data.num_classes:,} classes"
    )


def _peers(experiment: Experiment, costs: Mapping[str, Cost]) -> list[str]:
    """A line for each kind of peer."""
    kinds = Counter(
        (name, cost["parameters"], cost["flops"])
        for name, cost in zip(experiment.spec.names, costs.values(), strict=True)
    )
    return [
        f"{f'{n} x ' if n > 1 else ''}{name}: {count(parameters)} parameters, {count(flops)} FLOPs{' each' * (n > 1)}"
        for (name, parameters, flops), n in kinds.items()
    ]


def _method(experiment: Experiment) -> str:
    text = experiment.recipe.method_name
    if experiment.recipe.share_until is not None:
        text += f", peers share the layers up to {experiment.recipe.share_until}"
    if experiment.spec.num_peers > 1:
        text += f"; {experiment.learner.deployed_peer} is deployed"
    return text


def _device(recipe: Recipe, fabric: Fabric) -> str:
    processes = f"{fabric.world_size} x " if fabric.world_size > 1 else ""
    words = [f"{processes}{device_name(fabric.device)}", recipe.precision]
    words += ["compiled"] * recipe.compile + ["CUDA graphs"] * recipe.cuda_graphs
    return ", ".join(words)


def _training(recipe: Recipe, images: int) -> str:
    return (
        f"{plural(recipe.epochs, 'epoch')}, batches of {min(recipe.batch_size, images):,} images, "
        f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}"
    )
