"""The library in three calls: train, evaluate, report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collegium.data import ImageData, from_arrays
from collegium.networks import Network
from collegium.training.recipe import Recipe

Pair = tuple[Any, Any]
"""Images and labels, as arrays or tensors; see :func:`collegium.data.from_arrays`."""


def train(
    *,
    run: str | Path | None = None,
    peers: str | Sequence[Network] = "2xresnet20",
    data: str | Mapping[str, Any] | ImageData | tuple[Pair, Pair] = "digits",
    method: str | Mapping[str, Any] = "ffl",
    overwrite: bool = False,
    quiet: bool = False,
    **recipe: Any,
) -> dict[str, Any]:
    """Trains a cohort, or goes on where the same call was interrupted.

    Args:
        run: the run's folder; by default ``runs/METHOD-DATA-seedSEED``.
        peers: names ("2xresnet20", "resnet32,wrn_16_2"), or networks of your own.
        data: a name, a name with options ({"name": "cifar100", "per_class": 50}), or your own data: an
            ImageData, or ((train_images, train_labels), (test_images, test_labels)).
        method: a name, or a name with options ({"name": "ffl", "temperature": 4}).
        overwrite: start over where the folder holds a run.
        quiet: show nothing.
        **recipe: everything else a :class:`Recipe` says, such as ``epochs`` and ``share_until``.

    Returns:
        The content of the run's result.json.

    Raises:
        UsageError: something does not exist or does not fit; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: training cannot go on.
    """
    from collegium.training.loop import train as run_training

    values: dict[str, Any] = {**recipe, "method": method}
    own_peers = own_data = None
    if isinstance(peers, str):
        values["peers"] = peers
    else:
        own_peers = list(peers)
        values["peers"] = ",".join(f"python:{peer.name}" for peer in own_peers)
    if isinstance(data, str | Mapping):
        values["data"] = data
    else:
        own_data = data if isinstance(data, ImageData) else from_arrays(*data)
        values["data"] = f"python:{own_data.name}"
    resolved = Recipe.from_dict(values, "the call")
    return run_training(
        resolved,
        run or default_run(resolved),
        peers=own_peers,
        data=own_data,
        overwrite=overwrite,
        quiet=quiet,
    )


def default_run(recipe: Recipe) -> Path:
    """Where a run goes that was given no folder."""
    data = recipe.data_name.removeprefix("python:")
    return Path("runs") / f"{recipe.method_name}-{data}-seed{recipe.seed}"


def evaluate(
    run: str | Path, *, peers: Sequence[Network] | None = None, data: ImageData | None = None
) -> dict[str, dict[str, float]]:
    """Scores every predictor of a trained run again on its test images: predictor -> metric -> value.

    Args:
        run: the run's folder.
        peers: the untrained networks, where the run was given networks from Python.
        data: the data, where the run was given data from Python; or other data of the same classes.

    Raises:
        UsageError: there is no run, or it has not been trained yet.
    """
    from collegium.training.loop import restore

    trained = restore(run, peers=peers, data=data)
    return trained.evaluate(trained.scored["test"])


def report(run: str | Path, *, peers: Sequence[Network] | None = None, data: ImageData | None = None) -> Path:
    """Writes the page of a finished run, RUN/report.html, and returns where it is.

    Args as for :func:`evaluate`.
    """
    from collegium.report.page import write_report

    return write_report(run, peers=peers, data=data)
