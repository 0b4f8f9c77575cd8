"""The library in three calls: train, evaluate, report."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from collegium.data import OwnData, as_data
from collegium.errors import UsageError
from collegium.networks import name_of
from collegium.training.recipe import Recipe


def train(
    *,
    run: str | Path | None = None,
    config: str | Path | None = None,
    peers: str | Sequence[nn.Module] | None = None,
    data: str | Mapping[str, Any] | OwnData | None = None,
    teacher: str | Path | nn.Module | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **recipe: Any,
) -> dict[str, Any]:
    """Trains a cohort, or goes on where the same call was interrupted.

    Args:
        run: the run's folder; by default ``runs/METHOD-DATA-seedSEED``.
        config: a recipe to start from: a YAML file, or the name of one that comes with the library.
        peers: names ("2xresnet20", "resnet32,timm/resnet18"), or networks of your own: any torch modules that map
            images to logits. They are trained in place.
        data: a name, a name with options ({"name": "cifar100", "per_class": 50}), or your own data: an
            ImageData; ((train_images, train_labels), (test_images, test_labels)), see :func:`from_arrays`; or
            (train_dataset, test_dataset), torch's or of that kind, see :func:`collegium.data.from_datasets`.
        teacher: for methods that need one: a finished run, a peer's folder, or a trained network of your own.
        overwrite: start over where the folder holds a run.
        quiet: show nothing.
        **recipe: everything else a :class:`Recipe` says: ``method`` (a name, or a name with options:
            {"name": "ffl", "temperature": 4}), ``epochs``, ``share_until`` and so on.

    Returns:
        The content of the run's result.json.

    Raises:
        UsageError: something does not exist or does not fit; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: training cannot go on.
    """
    from collegium.training.loop import train as run_training

    base = {} if config is None else Recipe.read(config).to_dict()
    values: dict[str, Any] = dict(base)
    values |= recipe
    own: dict[str, Any] = {}
    if isinstance(data, str | Mapping):
        values["data"] = data
    elif data is not None:
        own["data"] = as_data(data)
        values["data"] = {"name": f"python:{own['data'].name}", "fingerprint": own["data"].fingerprint()}
    if isinstance(peers, str):
        values["peers"] = peers
    elif peers is not None:
        own["peers"] = list(peers)
        values["peers"] = ",".join(_describe(peer) for peer in own["peers"])
    if isinstance(teacher, nn.Module):
        own["teacher"] = teacher
        values["teacher"] = _describe(teacher)
    elif teacher is not None:
        values["teacher"] = teacher
    for part in ("method", "data"):
        if part in base and values[part] == base[part]["name"]:
            values[part] = base[part]  # a name alone leaves the config's options for it
    resolved = Recipe.from_dict(values, "the call")
    return run_training(resolved, run or default_run(resolved), **own, overwrite=overwrite, quiet=quiet)


def _describe(network: object) -> str:
    """A network from Python as a word that differs where its parameters' names or shapes do."""
    if not isinstance(network, nn.Module):
        raise UsageError(f"peers and teachers given from Python are torch modules, not {type(network).__name__}")
    shapes = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    return f"python:{name_of(network)}#{hashlib.sha1(repr(shapes).encode()).hexdigest()[:8]}"


def default_run(recipe: Recipe) -> Path:
    """Where a run goes that was given no folder."""
    data = re.sub(r"[^\w.-]+", "-", recipe.data_name.removeprefix("python:"))
    return Path("runs") / f"{recipe.method_name}-{data}-seed{recipe.seed}"


def evaluate(run: str | Path, *, data: OwnData | None = None, **given: Any) -> dict[str, dict[str, float]]:
    """Scores every predictor of a trained run again on test images: predictor -> metric -> value.

    Args:
        run: the run's folder.
        data: the data, where the run was given data from Python; or other data of the same classes.
        **given: ``peers`` and ``teacher``, the untrained networks, where the run was given networks from Python.

    Raises:
        UsageError: there is no run, or it has not been trained yet.
    """
    from collegium.training.loop import restore

    trained = restore(run, data=None if data is None else as_data(data), **given)
    return trained.evaluate(trained.scored["test"])


def report(run: str | Path, *, data: OwnData | None = None, **given: Any) -> Path:
    """Writes the page of a finished run, RUN/report.html, and returns where it is. Arguments as :func:`evaluate`."""
    from collegium.reporting.page import write_report

    return write_report(run, data=None if data is None else as_data(data), **given)
