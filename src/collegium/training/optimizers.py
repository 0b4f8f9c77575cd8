"""Optimizers and learning rate schedules. A schedule is a function of progress alone and has no state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from collegium.training.recipe import Recipe


def make_optimizer(recipe: Recipe, groups: Sequence[Mapping[str, Any]], kind: str | None = None) -> Optimizer:
    """One player's optimizer, of the recipe's kind where ``kind`` is None.

    The learning rate of a group is its highest, which is kept as its entry "base"; "milestones" are where that rate
    drops by itself.
    """
    kind = kind or recipe.optimizer
    # One kernel for all parameters, where torch has it; with fp16 it would unscale gradients too late for clipping.
    # None lets torch choose; False would update one parameter at a time.
    fused = (recipe.precision != "fp16" and groups[0]["params"][0].device.type in ("cpu", "cuda")) or None
    resolved = [{**group, "base": group["lr"]} for group in groups]
    if kind == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return SGD(resolved, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    adam: type[Adam] = {"adam": Adam, "adamw": AdamW}[kind]
    return adam(resolved, lr=recipe.learning_rate, fused=fused)


def learning_rate_factor(recipe: Recipe, fraction: float) -> float:
    """The factor of the highest learning rate after a share ``fraction`` of all steps.

    one_cycle follows Smith, "Super-Convergence", https://arxiv.org/abs/1708.07120, with cosine annealing: up from
    1/25 over the first 30 %, then down to 1/250000 (the values of torch.optim.lr_scheduler.OneCycleLR).
    """
    factor = {
        "constant": lambda: 1.0,
        "step": lambda: recipe.decay ** sum(fraction >= milestone for milestone in recipe.milestones),
        "cosine": lambda: _anneal(1.0, 0.0, fraction),
        "one_cycle": lambda: (
            _anneal(1 / 25, 1.0, fraction / 0.3)
            if fraction < 0.3
            else _anneal(1.0, 1 / 250_000, (fraction - 0.3) / 0.7)
        ),
    }[recipe.schedule]()
    if fraction < recipe.warmup:
        factor *= fraction / recipe.warmup
    return factor


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizers: Mapping[str, Optimizer], recipe: Recipe, fraction: float) -> None:
    """Sets the rates after a share ``fraction`` of all steps: by the recipe's schedule, or a group's own milestones."""
    factor = learning_rate_factor(recipe, fraction)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            own = group.get("milestones")
            drops = factor if own is None else 0.1 ** sum(fraction >= milestone for milestone in own)
            group["lr"] = group["base"] * drops


def soften(target: torch.Tensor, num_classes: int, label_smoothing: float) -> torch.Tensor:
    """(B,) class indices, or (B, C) probabilities mixed with the uniform distribution where smoothing is on."""
    if label_smoothing == 0:
        return target
    one_hot = torch.nn.functional.one_hot(target, num_classes).float()
    return one_hot * (1 - label_smoothing) + label_smoothing / num_classes
