"""Batch norm with the statistics of the whole batch, of which each process sees a part."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from collegium.ranks import gather


class SynchronisedBatchNorm(TorchFunctionMode):
    """Within it, batch norm in training mode uses the statistics of the batches of all ranks, on CPUs and GPUs.

    It replaces ``torch.nn.functional.batch_norm`` and so reaches every module that calls it, of whatever class;
    torch's SyncBatchNorm works on GPUs alone and replaces torch's own classes only. Other norms are unchanged. All
    ranks must have equally many images.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(B, D, ...) -> (B, D, ...), as F.batch_norm on the batches of all ranks together."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    dims = [0, *range(2, x.ndim)]
    moments = gather(torch.stack(torch.var_mean(wide, dims, correction=0)))  # (ranks, 2, D)
    mean = moments[:, 1].mean(0)
    variance = moments[:, 0].mean(0) + (moments[:, 1] - mean).square().mean(0)
    if running_mean is not None and running_var is not None:
        count = len(moments) * x.numel() // x.shape[1]
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *[1] * (x.ndim - 2))
    return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)
