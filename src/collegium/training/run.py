"""Training a recipe in a folder, and opening what has been trained."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from collegium import ranks
from collegium.data import ClassificationData
from collegium.errors import DataError, UsageError
from collegium.training import probe
from collegium.training.callbacks import Callbacks
from collegium.training.devices import Devices, Layout, detect_devices
from collegium.training.engine import given_back, make_fabric, move
from collegium.training.evaluation import Evaluator
from collegium.training.experiment import Experiment, build
from collegium.training.fabric import Fabric
from collegium.training.launch import call_in_subprocess, launch
from collegium.training.loop import Run
from collegium.training.memory import keep_freed_memory
from collegium.training.provenance import provenance
from collegium.training.recipe import Recipe
from collegium.training.result import check_fits
from collegium.training.run_folder import RunFolder
from collegium.user_code import consents


@consents()
def train(
    recipe: Recipe,
    run: str | Path,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    devices: int | None = None,
    num_nodes: int | None = None,
    layout: Layout = "data",
    fastest: bool = False,
    callbacks: Callbacks | None = None,
    loggers: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains a recipe in a folder, or goes on where the same call was interrupted, and returns the result.

    Args:
        recipe: what to train.
        run: its folder, see :mod:`collegium.training.run_folder`.
        peers: networks from Python in place of those that the recipe names; so for ``data`` and ``teacher``.

    The other options are described at :func:`collegium.train`.

    Returns:
        The content of result.json.

    Raises:
        UsageError: the recipe cannot be built, or the folder holds something else; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: a loss is not finite, or a checkpoint is damaged.
        Interrupted: SIGINT, SIGTERM or SIGUSR1 came; the state is saved, and the same call goes on from there.
        ProcessLost: another process of this run ended.
    """
    folder, found = RunFolder(run), detect_devices(devices, num_nodes)
    given: dict[str, Any] = dict(peers=peers, data=data, teacher=teacher)
    if fastest:
        recipe = _fastest_recipe(recipe, folder, found, overwrite=overwrite, quiet=quiet, **given)
    options: dict[str, Any] = dict(
        **given, overwrite=overwrite, quiet=quiet, layout=layout, callbacks=callbacks, loggers=loggers
    )
    if found.devices > 1 and not found.started:
        return launch(partial(train, recipe, run, **options), found.devices)
    own = [*(peers or ()), *([teacher] if teacher is not None else [])]
    with given_back(own), ranks.process_group() if found.processes > 1 else nullcontext():
        return _train_in_this_process(recipe, folder, found, **options)


def _fastest_recipe(
    recipe: Recipe, folder: RunFolder, found: Devices, *, overwrite: bool, quiet: bool, **given: Any
) -> Recipe:
    if found.started and found.processes > 1:
        raise UsageError(
            "--fastest measures in one process, before others are started; "
            "give --precision and --channels-last where torchrun or SLURM starts them"
        )
    if folder.recipe_file.exists() and not overwrite:
        known = folder.recipe()
        return dataclasses.replace(recipe, **{name: getattr(known, name) for name in probe.CHOSEN})
    folder.check(recipe, overwrite=overwrite)
    if found.devices == 1:
        chosen, verdict = probe.fastest(recipe, **given)
    else:  # whose processes need the memory that measuring would keep here
        chosen, verdict = call_in_subprocess(partial(probe.fastest, recipe, compiling=False, **given))
    Console(stderr=True, quiet=quiet).print(verdict, highlight=False, soft_wrap=True)
    return chosen


def _train_in_this_process(
    recipe: Recipe,
    folder: RunFolder,
    found: Devices,
    *,
    peers: Sequence[nn.Module] | None,
    data: ClassificationData[Any] | None,
    teacher: nn.Module | None,
    overwrite: bool,
    quiet: bool,
    layout: Layout,
    callbacks: Callbacks | None,
    loggers: Sequence[str],
) -> dict[str, Any]:
    fabric = make_fabric(recipe, found)
    begun = ranks.on_rank0(lambda: bool(folder.saved_checkpoints()) and not overwrite)

    def prepare() -> Experiment:
        known = teacher or (folder.teacher() if begun else None)
        experiment = build(recipe, peers=peers, data=data, teacher=known, begun=begun)
        if begun:
            loaded = folder.loaded_weights()
            notes = (*experiment.notes, *(weights["note"] for weights in loaded.values()))
            experiment = dataclasses.replace(experiment, notes=notes, weights=loaded)
        if fabric.is_global_zero:
            folder.check(experiment.recipe, overwrite=overwrite)
            folder.check_data(experiment.data.fingerprint(), overwrite=overwrite)
            folder.check_weights(experiment.weights, overwrite=overwrite)
        return experiment

    experiment = ranks.rank0_first(prepare, local_rank0=fabric.local_rank == 0, device=fabric.device)
    training = Run(experiment, folder, fabric, quiet=quiet, callbacks=callbacks, loggers=loggers, layout=layout)
    with ExitStack() as held:
        if fabric.device.type == "cpu":
            held.enter_context(keep_freed_memory())

        def begin() -> dict[str, Any] | None:
            held.enter_context(folder.locked())
            folder.check(experiment.recipe, overwrite=overwrite)  # another process may have been here since
            where = provenance(fabric.device, found.devices, found.nodes) | {"layout": layout}
            where["data_fingerprint"] = experiment.data.fingerprint()
            where |= {"weights": experiment.weights} if experiment.weights else {}
            folder.open(experiment.recipe, where, overwrite=overwrite)
            if recipe.teacher is not None and not recipe.teacher.startswith("python:"):
                folder.keep_teacher(recipe.teacher)
            return folder.result()

        result = ranks.on_rank0(begin)
        if result is not None and peers is not None:
            training.load_trained_weights()
        result = result or training.complete()
        for k, peer in enumerate(peers or ()):  # the cohort's trunk is the first peer's; the others get its weights
            peer.load_state_dict(training.learner.cohort.peer(k).plain().state_dict())
        return result


class RestoredRun(Evaluator):
    """A run with the weights of its newest checkpoint, which predicts and scores."""

    def __init__(self, experiment: Experiment, fabric: Fabric, epoch: int) -> None:
        super().__init__(experiment, fabric)
        self.epoch = epoch  # epochs that were complete


@consents()
def restore(
    run: str | Path,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
) -> RestoredRun:
    """Opens a run for prediction, from its newest checkpoint; ``peers``, ``data``, ``teacher`` as for :func:`train`.

    Data given here are normalised as the run's own were. A run that was trained on a GPU is restored on the CPU where
    there is none, in fp32 if its precision was fp16.

    Raises:
        UsageError: there is no run, or nothing has been saved yet.
        DataError: its result is that of another recipe.
        TrainingError: the newest checkpoint is damaged, or is that of other networks.
    """
    folder = RunFolder(run)
    recipe = folder.recipe()
    result = folder.result()
    if result is not None:  # before networks are made, of which a recipe may ask for hundreds
        check_fits(result, recipe, folder.result_file)
    state = folder.load_checkpoint()
    if state is None:
        raise UsageError(f"{folder.path} cannot be restored: it has no checkpoint")
    if not (torch.cuda.is_available() if recipe.device != "mps" else torch.backends.mps.is_available()):
        precision = "fp32" if recipe.precision == "fp16" else recipe.precision
        recipe = dataclasses.replace(recipe, device="cpu", precision=precision, cuda_graphs=False)
    if data is not None:
        data = data.normalised_like(tuple(state["mean"]), tuple(state["std"]))
    teacher = teacher or folder.teacher()
    if teacher is None and recipe.teacher is not None and not recipe.teacher.startswith("python:"):
        raise DataError(f"{folder.path} has lost its teacher/, the copy of its teacher: put it back")
    experiment = build(recipe, peers=peers, data=data, teacher=teacher, begun=True)
    if data is None and folder.fingerprint() not in (None, experiment.data.fingerprint()):
        warnings.warn(
            f"the data {recipe.data_name} are not those on which {folder.path} was trained: they have changed since, "
            "and so may the scores",
            stacklevel=3,
        )
    fabric = make_fabric(recipe)
    learner = move(experiment.learner, fabric.device, channels_last=experiment.channels_last)
    with folder.translate_misfit():
        learner.load_state_dict(state["learner"])
    return RestoredRun(experiment, fabric, state["epoch"])


@consents()
def restore_peer(peer: nn.Module, config: Mapping[str, Any], data: ClassificationData[Any]) -> RestoredRun:
    """A trained peer alone as a run of one, to score it on data, which are normalised as its own were.

    Args:
        peer: see :func:`collegium.load_peer`.
        config: its description, see :func:`collegium.student.read_config`.
        data: with its classes and channels.
    """
    if "mean" in config and "std" in config:
        data = data.normalised_like(tuple(config["mean"]), tuple(config["std"]))
    recipe = Recipe(
        method={"name": "independent"}, peers=f"python:{config['network']}", data={"name": f"python:{data.name}"}
    )
    experiment = build(recipe, peers=[peer], data=data, begun=True)
    fabric = make_fabric(recipe)
    move(experiment.learner, fabric.device, channels_last=experiment.channels_last)
    return RestoredRun(experiment, fabric, 0)
