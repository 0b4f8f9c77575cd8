"""Activation checkpointing: the inside of a stage is computed again for the backward pass instead of being kept."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


class _Repetition:
    """While a module runs again, its running statistics and counters stay as the first time left them."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.left: list[Tensor] = []

    def __enter__(self) -> None:
        self.left = [buffer.clone() for buffer in self.module.buffers()]

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for buffer, left in zip(self.module.buffers(), self.left, strict=True):
            buffer.copy_(left)


def recomputed(module: nn.Module, forward: Callable[[Tensor], T], x: Tensor) -> T:
    """``forward(x)``, a run of the module, of which the backward pass keeps input and output alone.

    Random numbers (dropout) are drawn alike the second time. Chen, Xu, Zhang and Guestrin, "Training Deep Nets with
    Sublinear Memory Cost", https://arxiv.org/abs/1604.06174.
    """
    if not torch.is_grad_enabled():
        return forward(x)
    repetition = _Repetition(module)
    return checkpoint(forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), repetition))
