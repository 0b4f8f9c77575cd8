"""Private names of torch that have no public counterpart, in one place."""

from pathlib import Path

from torch import Tensor
from torch._C import PyTorchFileReader


def writes(tensor: Tensor) -> int:
    """How often the memory of a tensor has been written in place, as autograd counts it to refuse stale values."""
    return tensor._version


def pickle_of(file: Path) -> bytes:
    """The pickle in a file of torch.save, found as torch finds it; RuntimeError where there is none."""
    content: bytes = PyTorchFileReader(str(file)).get_record("data.pkl")
    return content
