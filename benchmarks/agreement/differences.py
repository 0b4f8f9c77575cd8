"""How far two computations of one loss are apart, in float64."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

AGREES = 1e-10  # the largest relative difference that is called agreement


class Row(NamedTuple):
    """One comparison."""

    method: str
    repository: str
    commit: str
    compared: str
    changed: str  # what is not as it is in the repository, or not as it is by default in Collegium
    value: str  # relative difference
    gradient: str  # the same of the gradient
    verdict: str


def relative(theirs: Sequence[Tensor], ours: Sequence[Tensor]) -> float:
    """The largest difference of any tensor, relative to its largest entry; 0 where all are 0.

    Of a tensor with entries below a thousandth of the largest entry of all it is relative to that thousandth, so that
    round-off in a gradient that is 0 by theory is no difference.
    """
    pairs = [(a.detach(), b.detach()) for a, b in zip(theirs, ours, strict=True) if a.numel()]
    largest = [float(torch.maximum(a.abs().max(), b.abs().max())) for a, b in pairs]
    if not max(largest, default=0.0):
        return 0.0
    scales = [max(own, max(largest) / 1000) for own in largest]
    return max(float((a - b).abs().max()) / scale for (a, b), scale in zip(pairs, scales, strict=True))


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(loss, list(leaves), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def rounded(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}"


def verdict(*differences: float | None) -> str:
    return "agrees" if all(d <= AGREES for d in differences if d is not None) else "differs"


@contextmanager
def float64() -> Iterator[None]:
    """All that asks for float32 or a GPU gets float64 on the CPU: Collegium's losses, and the code of the clones."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)

    def stays(x: Any, *_: Any, **__: Any) -> Any:
        return x

    try:
        with (
            patch.object(Tensor, "float", Tensor.double),
            patch.object(Tensor, "cuda", stays),
            patch.object(nn.Module, "cuda", stays),
        ):
            yield
    finally:
        torch.set_default_dtype(before)


def write(rows: Sequence[Row], file: Path) -> None:
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(Row._fields)
        lines.writerows(rows)


def read(file: Path) -> list[Row]:
    with file.open(newline="") as stream:
        return [Row(**line) for line in csv.DictReader(stream)]
