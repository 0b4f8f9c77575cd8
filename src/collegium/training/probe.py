"""Measures which precision and memory layout train fastest on this machine, and whether compiled steps pay."""

import copy
import dataclasses
import gc
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from collegium.data import ClassificationData
from collegium.errors import UsageError
from collegium.training.engine import make_fabric, on_cuda, own_random_state
from collegium.training.experiment import Experiment, build
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

CHOSEN = ("precision", "channels_last", "compile", "cuda_graphs")  # the entries of a recipe that are chosen
STEPS = 3  # that are timed; the fastest one counts, as other load can only slow a step down
WARMUP_STEPS = {False: 1, True: 4}  # by whether steps are compiled: kernels are first compiled, then recorded
GPU_STEPS, GPU_WARMUP = 20, 0.5  # on a GPU: steps timed together, and seconds before them, in which its clock rises


def fastest(
    recipe: Recipe,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
    compiling: bool = True,
) -> tuple[Recipe, str]:
    """The recipe with the precision (fp32 or bf16) and memory layout of the fastest training step on this machine.

    On a GPU it then tries compiled steps in that precision and layout, without and with CUDA graphs.

    Args:
        recipe: the run; its other entries do not change.
        peers: as for :func:`collegium.training.run.train`; they are not trained.
        data: as for :func:`collegium.training.run.train`.
        teacher: as for :func:`collegium.training.run.train`.
        compiling: whether to try compiled steps. They are never tried with activation checkpointing.

    Returns:
        The recipe, and a sentence with all measurements.

    Raises:
        UsageError: the recipe cannot be built.
        DataError: the data cannot be read.
        RuntimeError: every candidate failed.
    """
    if recipe.device == "mps":
        raise UsageError("--fastest measures CPUs and CUDA GPUs; leave it out with --device mps")
    experiment = build(recipe, peers=peers, data=data, teacher=teacher)

    failures: list[RuntimeError] = []

    def measured(candidate: Recipe) -> tuple[float, Recipe]:
        try:
            return _step_seconds(dataclasses.replace(experiment, recipe=candidate)), candidate
        except RuntimeError as error:  # too little memory, or no compiler: another candidate may do without
            failures.append(error.with_traceback(None))  # its frames would keep the memory
            return math.inf, candidate
        finally:
            if _on_gpu(recipe):  # a run refers to itself; the next candidate needs its memory
                gc.collect()
                torch.cuda.empty_cache()

    found = [
        measured(dataclasses.replace(recipe, precision=precision, channels_last=channels_last))
        for precision in _precisions(recipe)
        for channels_last in (True, False)
    ]
    if compiling and _on_gpu(recipe) and not (recipe.compile or recipe.activation_checkpointing):
        _, eager = min(found, key=_seconds)
        replayed = (False, True) if recipe.micro_batches == 1 else (False,)
        found += [measured(dataclasses.replace(eager, compile=True, cuda_graphs=graphs)) for graphs in replayed]
    found.sort(key=_seconds)
    if not math.isfinite(found[0][0]):
        raise failures[0]
    best, *others = [f"{_describe(candidate)}: {_milliseconds(seconds)}" for seconds, candidate in found]
    return found[0][1], f"Fastest configuration: {best} per step (others: {', '.join(others)})."


def _seconds(measured: tuple[float, Recipe]) -> float:
    return measured[0]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if math.isfinite(seconds) else "failed"


def _describe(recipe: Recipe) -> str:
    words = [recipe.precision, f"channels {'last' if recipe.channels_last else 'first'}"]
    words += ["compiled"] * recipe.compile + ["CUDA graphs"] * recipe.cuda_graphs
    return ", ".join(words)


def _on_gpu(recipe: Recipe) -> bool:
    return on_cuda(recipe)


def _precisions(recipe: Recipe) -> list[Literal["fp32", "bf16"]]:
    """Without bf16 on a GPU that only emulates it; on a CPU that does so bf16 is measured and loses."""
    has_bf16 = not _on_gpu(recipe) or torch.cuda.is_bf16_supported(including_emulation=False)
    return ["fp32", "bf16"] if has_bf16 else ["fp32"]


def _step_seconds(experiment: Experiment) -> float:
    """The time of a training step of a copy."""
    fabric = make_fabric(experiment.recipe)
    with own_random_state(fabric.device):
        learner = copy.deepcopy(experiment.learner)
        run = Run(dataclasses.replace(experiment, learner=learner), RunFolder(Path()), fabric, quiet=True)
        run.learner.train()
        images, target = next(iter(run.training_batches.epoch(0)))

        def seconds(steps: int) -> float:
            begun = time.perf_counter()
            for _ in range(steps):
                run.train_step(images, target, 0.0)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - begun) / steps

        seconds(WARMUP_STEPS[experiment.recipe.compile])
        if fabric.device.type != "cuda":
            return min(seconds(1) for _ in range(STEPS))
        until = time.perf_counter() + GPU_WARMUP
        while time.perf_counter() < until:
            seconds(1)
        return seconds(GPU_STEPS)
