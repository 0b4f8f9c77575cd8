"""Sums and means in float64, which Apple's GPUs do not have."""

from torch import Tensor


def in_double(x: Tensor) -> Tensor:
    """The tensor in float64, on the CPU where its device has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()
