"""The device, precision and random state that a run computes with."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from torch import nn

from collegium.data.decoding.workers import cpus
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.logs import no_logging
from collegium.training.devices import Devices
from collegium.training.fabric import DDPStrategy, Fabric, LightningEnvironment, MixedPrecision
from collegium.training.recipe import Recipe

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

ONE_DEVICE = Devices()

PATIENCE = timedelta(hours=3)
"""How long processes wait for each other: one may have to download data, or to decode all images into memory."""


def make_fabric(recipe: Recipe, devices: Devices = ONE_DEVICE) -> Fabric:
    """Devices and precision of a recipe; several processes are connected to each other.

    Raises:
        UsageError: this machine does not have the devices, or the device does not support the precision.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("the recipe asks for device cuda, and torch finds no GPU here; use --device auto or cpu")
    gpu = on_cuda(recipe)
    if recipe.device == "mps":
        _check_mps(recipe, devices)
    if recipe.precision == "fp16" and not gpu:
        raise UsageError("fp16 needs a GPU; use --precision bf16 or fp32")
    if recipe.cuda_graphs and not gpu:
        raise UsageError("CUDA graphs need a GPU; leave --cuda-graphs out")
    if gpu and devices.devices > torch.cuda.device_count():
        if devices.started:
            raise UsageError(
                f"{devices.devices} processes were started on this machine, where {torch.cuda.device_count()} GPUs are "
                "visible; start one process per GPU, and make all GPUs visible to each "
                "(with SLURM --gpus-per-node, not --gpus-per-task)"
            )
        raise UsageError(
            f"this machine has {torch.cuda.device_count()} of {devices.devices} GPUs; "
            "use fewer --devices, or --device cpu"
        )
    if gpu:
        torch.backends.cudnn.benchmark = True  # shapes do not change, so that a search for the fastest kernels pays
    several = devices.processes > 1
    plugins: list[Any] = []
    if several and "LOCAL_RANK" in os.environ:
        # Without it Fabric would take SLURM for what started these processes, wherever a SLURM job runs.
        plugins.append(LightningEnvironment())
    if recipe.device == "mps" and recipe.precision == "bf16":
        plugins.append(MixedPrecision("bf16-mixed", "mps"))  # Fabric's own would be of CUDA
    with _silent_lightning():
        fabric = Fabric(
            accelerator="cuda" if gpu else "mps" if recipe.device == "mps" else "cpu",
            devices=devices.devices,
            num_nodes=devices.nodes,
            strategy=DDPStrategy(timeout=PATIENCE) if several else "auto",
            precision=None if plugins and recipe.device == "mps" else cast(Any, PRECISIONS[recipe.precision]),
            plugins=plugins or None,
        )
        if several:
            if "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(max(1, cpus() // devices.devices))
            fabric.launch()
    return fabric


def on_cuda(recipe: Recipe) -> bool:
    """Whether a recipe is trained on a CUDA GPU here."""
    return torch.cuda.is_available() and recipe.device in ("auto", "cuda")


def _check_mps(recipe: Recipe, devices: Devices) -> None:
    """Raises UsageError where a recipe cannot be trained on the GPU of an Apple computer, or there is none."""
    if not torch.backends.mps.is_available():
        raise UsageError("the recipe asks for device mps, and torch finds none here; use --device auto or cpu")
    if devices.processes > 1:
        raise UsageError("an Apple computer has one GPU: leave --devices and --num-nodes out, or use --device cpu")
    if recipe.precision == "bf16" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UsageError("bf16 on device mps needs macOS 14; use --precision fp32")
    if recipe.precision == "fp16":
        raise UsageError("fp16 needs a CUDA GPU, whose gradients are scaled; use --precision bf16 or fp32")
    if recipe.compile:
        raise UsageError("steps are compiled for CPUs and CUDA GPUs alone; leave --compile out with --device mps")


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Without Lightning's messages on the precision and on unused GPUs, which the recipe states."""
    with no_logging(logging.INFO), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        yield


def move(
    learner: Distiller, device: torch.device, peers: range | None = None, *, channels_last: bool = False
) -> Distiller:
    """The learner on a device; where ``peers`` are given, the others stay on the CPU.

    Args:
        learner: it is changed in place.
        device: where it computes.
        peers: those that this process trains; None for all.
        channels_last: whether the weights of 2-D convolutions get this memory layout.
    """
    learner.to(device)
    if peers not in (None, learner.cohort.local_peers):
        learner.keep(peers)
    if channels_last:
        for tensor in (*learner.parameters(), *learner.buffers()):
            if tensor.ndim == 4:  # Module.to(memory_format=...) refuses the 5-D weights of 3-D convolutions
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return learner


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Restores torch's random state, of the CPU and of the device, at the end."""
    kept = random_state(device)
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            set_random_state(device, kept)


def random_state(device: torch.device) -> torch.Tensor | None:
    """That of the device; None for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_random_state(device: torch.device, state: torch.Tensor | None) -> None:
    """The opposite of :func:`random_state`; nothing for a CPU, or without a state."""
    if device.type == "cuda" and state is not None:
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps" and state is not None:
        torch.mps.set_rng_state(state)


@contextmanager
def given_back(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Restores mode, device, memory layout and what is frozen of modules at the end; their weights stay as they are."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    places = [(t, t.device, t.stride()) for module in modules for t in (*module.parameters(), *module.buffers())]
    trained = [(p, p.requires_grad) for module in modules for p in module.parameters()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for tensor, device, stride in places:
            if (tensor.device, tensor.stride()) != (device, stride):
                old = tensor.data
                tensor.data = torch.empty_strided(old.shape, stride, dtype=old.dtype, device=device).copy_(old)
