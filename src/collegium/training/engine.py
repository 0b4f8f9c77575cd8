"""Where a run computes: devices, precision, and a random state of its own."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from collegium.data.decoding.workers import cpus
from collegium.errors import UsageError
from collegium.training.devices import Places
from collegium.training.recipe import Recipe

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

ALONE = Places()

PATIENCE = timedelta(hours=3)
"""How long processes wait for each other, for one may have to download data or decode all images into memory."""


def make_fabric(recipe: Recipe, places: Places = ALONE) -> Fabric:
    """Devices and precision of a recipe; where several processes were started, they have found each other.

    Raises:
        UsageError: this machine lacks the devices, or the device the precision.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("the recipe asks for device cuda, and torch finds no GPU here; take --device auto or cpu")
    gpu = torch.cuda.is_available() and recipe.device != "cpu"
    if recipe.precision == "fp16" and not gpu:
        raise UsageError("fp16 needs a GPU; take --precision bf16 or fp32")
    if recipe.cuda_graphs and not gpu:
        raise UsageError("CUDA graphs need a GPU; leave --cuda-graphs out")
    if gpu and places.devices > torch.cuda.device_count():
        if places.started:
            raise UsageError(
                f"{places.devices} processes were started on this machine, and {torch.cuda.device_count()} of its GPUs "
                "can be seen; start as many as there are GPUs, and let each see all of them "
                "(with SLURM --gpus-per-node, not --gpus-per-task)"
            )
        raise UsageError(
            f"this machine has {torch.cuda.device_count()} of {places.devices} GPUs; "
            "take fewer --devices, or --device cpu"
        )
    if gpu:
        torch.backends.cudnn.benchmark = True  # shapes stay as they are, so the fastest kernels are worth looking for
    many = places.processes > 1
    with _silent_lightning():
        fabric = Fabric(
            accelerator="cuda" if gpu else "cpu",
            devices=places.devices,
            num_nodes=places.nodes,
            strategy=DDPStrategy(timeout=PATIENCE) if many else "auto",
            precision=cast(Any, PRECISIONS[recipe.precision]),
            # Else Fabric would take a job of SLURM's for the one that started these processes.
            plugins=[LightningEnvironment()] if many and "LOCAL_RANK" in os.environ else None,
        )
        if many:
            if "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(max(1, cpus() // places.devices))
            fabric.launch()
    return fabric


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Lightning announces the precision, and GPUs that are not used: the recipe says both."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        logging.disable(before)


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Puts torch's random state, the CPU's and the device's, back as the user had it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
