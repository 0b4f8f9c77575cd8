"""Private names of torch that have no public counterpart, in one place."""

from torch import Tensor


def writes(tensor: Tensor) -> int:
    """How often the memory of a tensor has been written in place, as autograd counts it to refuse stale values."""
    return tensor._version
