"""Which precision and memory layout train fastest on this machine, found by a few steps of each."""

import copy
import dataclasses
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

STEPS = 3  # that are timed, after one that is not; the fastest counts, for whatever else runs only slows


def fastest(
    recipe: Recipe,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
) -> tuple[Recipe, str]:
    """The recipe in the precision (fp32 or bf16) and memory layout whose training step is fastest here.

    Args:
        recipe: the run; everything else in it stays as it is.
        peers: as for :func:`collegium.training.loop.train`, and left as they are.
        data: likewise.
        teacher: likewise.

    Returns:
        The recipe, and a sentence with all that was measured.

    Raises:
        UsageError: the recipe cannot be built.
        DataError: the data cannot be read.
    """
    experiment = build(recipe, peers=peers, data=data, teacher=teacher)
    candidates: dict[tuple[str, bool], Recipe] = {}
    seconds: dict[tuple[str, bool], float] = {}
    precisions: list[Literal["fp32", "bf16"]] = ["fp32", "bf16"] if _has_bf16(recipe) else ["fp32"]
    for precision in precisions:
        for channels_last in (True, False):
            candidate = dataclasses.replace(recipe, precision=precision, channels_last=channels_last)
            candidates[precision, channels_last] = candidate
            seconds[precision, channels_last] = _step_seconds(dataclasses.replace(experiment, recipe=candidate))
    order = sorted(seconds, key=lambda key: seconds[key])
    told = [f"{_words(*key)} {seconds[key] * 1000:,.0f} ms" for key in order]
    verdict = f"Fastest here is {told[0]} a step (against {', '.join(told[1:])})."
    return candidates[order[0]], verdict


def _words(precision: str, channels_last: bool) -> str:
    return f"{precision}, channels {'last' if channels_last else 'first'}:"


def _has_bf16(recipe: Recipe) -> bool:
    """A GPU that emulates bf16 is spared; a CPU that does so loses the race."""
    gpu = torch.cuda.is_available() and recipe.device != "cpu"
    return not gpu or torch.cuda.is_bf16_supported(including_emulation=False)


def _step_seconds(experiment: Experiment) -> float:
    """A training step of a copy."""
    fabric = make_fabric(experiment.recipe)
    with own_random_state(fabric.device):
        learner = copy.deepcopy(experiment.learner)
        run = Run(dataclasses.replace(experiment, learner=learner), RunFolder(Path()), fabric, quiet=True)
        run.learner.train()
        images, target = next(iter(run.training_batches.epoch(0)))
        seconds = []
        for _ in range(1 + STEPS):
            begun = time.perf_counter()
            run._one_step(images, target, 0.0)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])
