"""Optimizers and learning rate schedules. A schedule is a function of progress alone and has no state."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from collegium.errors import UsageError, nearest
from collegium.training.recipe import Recipe

_TORCH: Mapping[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
"""What timm's factory would make too; without it a run need not wait until timm is imported."""

_OWN = frozenset({"params", "lr", "weight_decay", "momentum", "nesterov", "fused"})
"""What the recipe and this library set themselves, and ``optimizer_options`` may not."""


def optimizer_names() -> dict[str, str]:
    """The optimizers of timm that runs can use, with a description of each."""
    return {name: text for name, text in _timm().list_optimizers(with_description=True) if _refusal(name) is None}


def _timm() -> Any:
    import timm.optim

    return timm.optim


def _refusal(name: str) -> str | None:
    """Why an optimizer of timm cannot be used; None where it can."""
    info = _timm().get_optimizer_info(name)
    if info.second_order:
        return "needs second derivatives, which training steps do not compute"
    if isinstance(info.opt_class, str):
        return f"is part of {info.opt_class.partition('.')[0]}, with which runs have not been tested"
    if info.opt_class.__name__ == "Kron":
        return "draws random numbers in its steps, so that a run could not go on exactly"
    return None


def clips_together(recipe: Recipe) -> bool:
    """Whether a step depends on the norm of all gradients of a player, so that peers in one do not learn as if alone.

    So it is where gradients are clipped, and with optimizers of timm that clip by themselves, such as lamb.
    """
    if recipe.gradient_clip is not None:
        return True
    return "max_grad_norm" in inspect.signature(_kind(recipe.optimizer)).parameters


def _kind(name: str) -> type[Optimizer]:
    """The class of an optimizer.

    Raises:
        UsageError: timm has none of this name, or runs cannot use it.
    """
    if name in _TORCH:
        return _TORCH[name]
    if name not in _timm().list_optimizers():
        raise UsageError(f"there is no optimizer {name!r} in timm{nearest(name, list(optimizer_names()))}")
    reason = _refusal(name)
    if reason is not None:
        raise UsageError(f"the optimizer {name} {reason}; take another of `collegium list optimizers`")
    return cast(type[Optimizer], _timm().get_optimizer_class(name, bind_defaults=False))


def check_optimizer(recipe: Recipe) -> None:
    """Whether a run can use the recipe's optimizer, with its options.

    Raises:
        UsageError: it cannot.
    """
    make_optimizer(recipe, [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], "lr": recipe.learning_rate}])


def make_optimizer(recipe: Recipe, groups: Sequence[Mapping[str, Any]], kind: str | None = None) -> Optimizer:
    """One player's optimizer, of the recipe's kind and with its options where ``kind`` is None.

    The learning rate of a group is its highest, which is kept as its entry "base"; "milestones" are where that rate
    drops by itself.

    Raises:
        UsageError: timm has no such optimizer, runs cannot use it, or it does not take the options.
    """
    name, options = (recipe.optimizer, dict(recipe.optimizer_options)) if kind is None else (kind, {})
    known = inspect.signature(_kind(name)).parameters
    for option in options:
        if option in _OWN or option not in known:
            able = [other for other in known if other not in _OWN]
            own = "; the recipe has an entry of its own for it" if option in _OWN else nearest(option, able)
            raise UsageError(f"optimizer_options: the optimizer {name} has no option {option!r}{own}")
    if name == "sgd":
        options["nesterov"] = recipe.nesterov and recipe.momentum > 0
    if "fused" in known:
        # One kernel for all parameters, where torch has it; with fp16 it would unscale gradients too late for
        # clipping. None lets torch choose; False would update one parameter at a time.
        fused = recipe.precision != "fp16" and groups[0]["params"][0].device.type in ("cpu", "cuda")
        options["fused"] = fused or None
    resolved: list[Any] = [{**group, "base": group["lr"]} for group in groups]
    options["lr"] = recipe.learning_rate
    try:
        if name in _TORCH:
            momentum = {"momentum": recipe.momentum} if "momentum" in known else {}
            return cast(Any, _TORCH[name])(resolved, **momentum, **options)  # type: ignore[no-any-return]
        return cast(Optimizer, _timm().create_optimizer_v2(resolved, name, momentum=recipe.momentum, **options))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"the optimizer {name} cannot be made with these options: {reason}") from error


def learning_rate_factor(recipe: Recipe, fraction: float) -> float:
    """The factor of the highest learning rate after a share ``fraction`` of all steps.

    one_cycle follows Smith, "Super-Convergence", https://arxiv.org/abs/1708.07120, with cosine annealing: up from
    1/25 over the first 30 %, then down to 1/250000 (the values of torch.optim.lr_scheduler.OneCycleLR).
    """
    factor = {
        "constant": lambda: 1.0,
        "step": lambda: recipe.decay ** sum(fraction >= milestone for milestone in recipe.milestones),
        "cosine": lambda: _anneal(1.0, recipe.min_learning_rate / recipe.learning_rate, fraction),
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
