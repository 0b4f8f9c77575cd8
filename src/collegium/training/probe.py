"""Which precision and memory layout train fastest on this machine, and whether compiling pays: found by a few steps."""

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
from collegium.training.engine import make_fabric, own_random_state
from collegium.training.experiment import Experiment, build
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

FOUND = ("precision", "channels_last", "compile", "cuda_graphs")  # what of a recipe is found
STEPS = 3  # that are timed; the fastest counts, for whatever else runs only slows
WARMING = {False: 1, True: 4}  # steps before them, compiled or not: kernels are compiled first, then recorded
GPU_STEPS, GPU_WARMING = 20, 0.5  # on a GPU: steps that are timed together, and seconds in which its clock rises before


def fastest(
    recipe: Recipe,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
    compiling: bool = True,
) -> tuple[Recipe, str]:
    """The recipe in the precision (fp32 or bf16) and memory layout whose training step is fastest here.

    On a GPU compiled steps, without and with CUDA graphs, are tried besides in that precision and layout.

    Args:
        recipe: the run; everything else in it stays as it is.
        peers: as for :func:`collegium.training.loop.train`, and left as they are.
        data: likewise.
        teacher: likewise.
        compiling: whether compiled steps may be tried at all; where activations are recomputed they never are.

    Returns:
        The recipe, and a sentence with all that was measured.

    Raises:
        UsageError: the recipe cannot be built.
        DataError: the data cannot be read.
        RuntimeError: no candidate can make a step.
    """
    experiment = build(recipe, peers=peers, data=data, teacher=teacher)

    failures: list[RuntimeError] = []

    def measured(candidate: Recipe) -> tuple[float, Recipe]:
        try:
            return _step_seconds(dataclasses.replace(experiment, recipe=candidate)), candidate
        except RuntimeError as error:  # memory or a compiler is missing: another candidate may do without
            failures.append(error.with_traceback(None))  # whose frames would hold the memory that was too little
            return math.inf, candidate
        finally:
            if _on_gpu(recipe):  # a run refers to itself, and what it held is wanted by the next
                gc.collect()
                torch.cuda.empty_cache()

    found = [
        measured(dataclasses.replace(recipe, precision=precision, channels_last=channels_last))
        for precision in _precisions(recipe)
        for channels_last in (True, False)
    ]
    if compiling and _on_gpu(recipe) and not (recipe.compile or recipe.activation_checkpointing):
        _, eager = min(found, key=_seconds)
        found += [measured(dataclasses.replace(eager, compile=True, cuda_graphs=graphs)) for graphs in (False, True)]
    found.sort(key=_seconds)
    if not math.isfinite(found[0][0]):
        raise failures[0]
    told = [f"{_words(candidate)}: {_milliseconds(seconds)}" for seconds, candidate in found]
    return found[0][1], f"Fastest here is {told[0]} a step (against {', '.join(told[1:])})."


def _seconds(measured: tuple[float, Recipe]) -> float:
    return measured[0]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if math.isfinite(seconds) else "fails"


def _words(recipe: Recipe) -> str:
    words = [recipe.precision, f"channels {'last' if recipe.channels_last else 'first'}"]
    words += ["compiled"] * recipe.compile + ["CUDA graphs"] * recipe.cuda_graphs
    return ", ".join(words)


def _on_gpu(recipe: Recipe) -> bool:
    return torch.cuda.is_available() and recipe.device != "cpu"


def _precisions(recipe: Recipe) -> list[Literal["fp32", "bf16"]]:
    """A GPU that emulates bf16 is spared; a CPU that does so loses the race."""
    has_bf16 = not _on_gpu(recipe) or torch.cuda.is_bf16_supported(including_emulation=False)
    return ["fp32", "bf16"] if has_bf16 else ["fp32"]


def _step_seconds(experiment: Experiment) -> float:
    """A training step of a copy."""
    fabric = make_fabric(experiment.recipe)
    with own_random_state(fabric.device):
        learner = copy.deepcopy(experiment.learner)
        run = Run(dataclasses.replace(experiment, learner=learner), RunFolder(Path()), fabric, quiet=True)
        run.learner.train()
        images, target = next(iter(run.training_batches.epoch(0)))

        def seconds(steps: int) -> float:
            begun = time.perf_counter()
            for _ in range(steps):
                run._one_step(images, target, 0.0)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - begun) / steps

        seconds(WARMING[experiment.recipe.compile])
        if fabric.device.type != "cuda":
            return min(seconds(1) for _ in range(STEPS))
        until = time.perf_counter() + GPU_WARMING
        while time.perf_counter() < until:
            seconds(1)
        return seconds(GPU_STEPS)
