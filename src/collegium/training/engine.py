"""Where a run computes: device, precision, and a random state of its own."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.fabric import Fabric

from collegium.errors import UsageError
from collegium.training.recipe import Recipe

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(recipe: Recipe) -> Fabric:
    """Device and precision of a recipe.

    Raises:
        UsageError: this machine lacks the device, or the device the precision.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("the recipe asks for device cuda, and torch finds no GPU here; take --device auto or cpu")
    gpu = torch.cuda.is_available() and recipe.device != "cpu"
    if recipe.precision == "fp16" and not gpu:
        raise UsageError("fp16 needs a GPU; take --precision bf16 or fp32")
    with _silent_lightning():
        return Fabric(
            accelerator="cuda" if gpu else "cpu",
            devices=1,
            precision=cast(Any, PRECISIONS[recipe.precision]),
        )


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Lightning announces the precision, and GPUs that are not used: the recipe says both."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logging.disable(before)


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Puts torch's random state, the CPU's and the device's, back as the user had it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
