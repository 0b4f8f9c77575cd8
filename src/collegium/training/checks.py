"""What cannot be trained, and why. Each check raises one sentence before anything is written."""

from collegium import methods
from collegium.data import Share
from collegium.errors import UsageError
from collegium.training.devices import Layout
from collegium.training.experiment import Experiment
from collegium.training.optimizers import clips_together
from collegium.training.recipe import Recipe


def check_run(experiment: Experiment, processes: int, layout: Layout) -> None:
    """Whether so many processes can train an experiment in a layout.

    Raises:
        UsageError: they cannot.
    """
    batch_processes = processes  # that share every batch
    if layout == "peers":
        check_peer_layout(experiment, processes)
        batch_processes //= peer_groups(experiment, processes)
    _check_steps(experiment.recipe, processes)
    _check_micro_batches(experiment, batch_processes)
    _check_batches(experiment, batch_processes)
    _check_mixing(experiment)
    if experiment.recipe.patience is not None and experiment.data.validation is None:
        raise UsageError(
            f"--patience asks for validation images, and {experiment.data.name} has none: hold some out with "
            "--data.validation 0.1"
        )
    _check_scoring(experiment, batch_processes)


def peer_groups(experiment: Experiment, processes: int) -> int:
    """How many groups of processes train the peers in the layout "peers", each group as many of them."""
    return min(experiment.spec.num_peers, processes)


def check_peer_layout(experiment: Experiment, processes: int) -> None:
    """Whether the peers can be trained in different processes.

    Raises:
        UsageError: the method reads more of its peers than their logits, peers and processes do not divide evenly,
            or the recipe has an option that this layout does not support.
    """
    recipe, cohort, peers = experiment.recipe, experiment.learner.cohort, experiment.spec.num_peers
    if not experiment.learner.method.logits_only:
        able = ", ".join(name for name in methods.names() if methods.get(name).logits_only)
        raise UsageError(
            f"{recipe.method_name} reads more of its peers than their logits, so --layout peers cannot separate them; "
            f"use --layout data, or one of the methods {able}"
        )
    if recipe.gradient_clip is None and clips_together(recipe):
        raise UsageError(
            f"the optimizer {recipe.optimizer} clips by the norm of all peers' gradients, which --layout peers trains "
            "in different processes; use --layout data, or another optimizer"
        )
    if cohort.trunk:
        raise UsageError(
            "peers that share stages cannot be trained in different processes; "
            "leave out --share-until, or use --layout data"
        )
    if processes == 1:
        raise UsageError("--layout peers needs several processes; give --devices too")
    if max(peers, processes) % min(peers, processes) or peers == 1:
        raise UsageError(
            f"{peers} peer{'s' * (peers > 1)} cannot be divided evenly among {processes} processes; "
            "use as many processes as peers, a divisor, or a multiple"
        )
    if recipe.compile or recipe.precision == "fp16":
        raise UsageError("--layout peers supports neither --compile nor fp16; use bf16 or fp32, uncompiled")


def check_players(recipe: Recipe, players: int) -> None:
    """Whether so many players can be trained.

    Raises:
        UsageError: the precision does not support several.
    """
    if players > 1 and recipe.precision == "fp16":
        raise UsageError(f"{recipe.method_name} has several players, which fp16 does not support; use bf16")


def _check_steps(recipe: Recipe, processes: int) -> None:
    if recipe.compile and recipe.sync_batchnorm and processes > 1:
        raise UsageError("a compiled step cannot synchronise batch norm; leave out --compile or --sync-batchnorm")
    if recipe.activation_checkpointing and recipe.compile:
        raise UsageError(
            "a compiled step chooses itself which activations it keeps; "
            "leave out --compile or --activation-checkpointing"
        )
    if recipe.activation_checkpointing and recipe.sync_batchnorm and processes > 1:
        raise UsageError(
            "stages that are computed again cannot synchronise batch norm; "
            "leave out --activation-checkpointing or --sync-batchnorm"
        )


def _check_micro_batches(experiment: Experiment, batch_processes: int) -> None:
    recipe, parts = experiment.recipe, experiment.recipe.micro_batches
    if parts == 1:
        return
    group = experiment.learner.method.images_per_class
    own = Share(ranks=batch_processes).size(min(recipe.batch_size, len(experiment.data.train)))
    if own % (parts * group):
        where = " of each process" if batch_processes > 1 else ""
        pairs = f" with {group} images of every class in it, as {recipe.method_name} needs" if group > 1 else ""
        raise UsageError(
            f"a batch of {own} images{where} cannot be divided into {parts} equal micro-batches{pairs}; "
            "change --batch-size or --micro-batches"
        )
    if recipe.cuda_graphs:
        raise UsageError("CUDA graphs overwrite the gradients of the micro-batch before; leave out --cuda-graphs")


def _check_batches(experiment: Experiment, batch_processes: int) -> None:
    recipe = experiment.recipe
    whole = min(recipe.batch_size, len(experiment.data.train))
    own = Share(ranks=batch_processes).size(whole)
    if (whole if recipe.sync_batchnorm else own) // recipe.micro_batches < 2:
        micro = "micro-" * (recipe.micro_batches > 1)
        raise UsageError(
            f"batch norm needs {micro}batches of 2 images or more"
            + (" on each device; use a larger batch, or --sync-batchnorm true" if batch_processes > 1 else "")
        )


def _check_mixing(experiment: Experiment) -> None:
    if experiment.recipe.cutmix and not experiment.data.labels_areas:
        raise UsageError(
            f"a label of {experiment.data.name} is that of the centre pixel, which CutMix may paste over; use mixup"
        )


def _check_scoring(experiment: Experiment, batch_processes: int) -> None:
    for split in (experiment.data.test, experiment.data.validation):
        if split is not None and len(split) < batch_processes:
            what = f"{len(split)} images cannot be scored by {batch_processes} processes"
            raise UsageError(f"{what}; use fewer --devices")
