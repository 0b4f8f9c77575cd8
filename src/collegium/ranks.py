"""What a process of a run must hear from the others; each sees its share of every batch. In one process: nothing.

The shares of a batch are equal, in the order of the *ranks* that have them. Every rank computes a loss of its own, and
the run descends their mean. Most losses are means over images, so that this is the loss of the whole batch; one that is
not must be made of the whole batch by :func:`gather_batch` or :func:`mean_over_ranks`, whose gradients are such that
the mean over the ranks is that of one process.

Processes are ranks of one batch, unless :func:`lay_out` has put the peers on several groups of them: then every group
sees whole batches, which its own processes share, and hears of the others' peers by :func:`gather_peers`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from collegium.errors import CollegiumError, TrainingError

T = TypeVar("T")


class ProcessLost(TrainingError):
    """Another process of the run ended."""

    def __init__(self) -> None:
        super().__init__("another process of this run ended; repeat the command to go on from the newest checkpoint")

    def __reduce__(self) -> tuple[type["ProcessLost"], tuple[()]]:
        return type(self), ()


class _Groups(NamedTuple):
    """Who a process hears from where the peers are on several groups; None stands for all."""

    batch: dist.ProcessGroup | None = None  # those that have the same peers, each another share of the batch
    peers: dist.ProcessGroup | None = None  # those that have the same share of the batch, each other peers


_groups = _Groups()


def lay_out(groups: int) -> int:
    """Makes groups of processes for the peers, equally large and in the order of the processes.

    Returns:
        The group of this process.
    """
    global _groups
    table = torch.arange(processes()).view(groups, -1)  # (groups of peers, ranks of a batch)
    own = [dist.new_subgroups_by_enumeration(rows.tolist())[0] for rows in (table, table.T)]
    _groups = _Groups(*cast(list[dist.ProcessGroup], own))
    return dist.get_rank(_groups.peers)


def batch_group() -> dist.ProcessGroup | None:
    """The processes that share a batch, None for all."""
    return _groups.batch


def rank() -> int:
    """Which share of a batch this process sees, from 0."""
    return dist.get_rank(batch_group()) if dist.is_initialized() else 0


def count() -> int:
    """How many processes share a batch."""
    return dist.get_world_size(batch_group()) if dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """A tensor of every rank: (...) -> (ranks, ...). A rank's gradient is the sum of what all ranks ask of its part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()[None]  # compiled collectives take no tensor without dimensions
        parts = [torch.empty_like(x) for _ in range(count())]
        dist.all_gather(parts, x, group=batch_group())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return cast(Tensor, _SumOfOwnPart.apply(gradients[0]))


class _SumOfOwnPart(torch.autograd.Function):
    """The sum over ranks of this rank's part: (ranks, ...) -> (...). The transpose of :class:`_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=batch_group())
        return total[rank()]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return cast(Tensor, _Gather.apply(gradients[0]))


def gather(x: Tensor) -> Tensor:
    """A tensor of every rank, of one shape: (...) -> (ranks, ...), differentiable any number of times."""
    return cast(Tensor, _Gather.apply(x)) if count() > 1 else x[None]


def gather_batch(x: Tensor, dim: int = 0) -> Tensor:
    """Shares of a batch put together along ``dim``, as one process would hold it; differentiable."""
    return torch.cat(list(gather(x)), dim) if count() > 1 else x


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, the same bits on each; differentiable."""
    return gather(x).mean(0) if count() > 1 else x


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, a constant."""
    if count() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total, group=batch_group())
    return total


def gather_peers(own: Tensor) -> Tensor:
    """What this group's peers say, (m, ...), with that of all others, (M, ...); theirs are constants."""
    said = own.detach().contiguous()
    parts = [torch.empty_like(said) for _ in range(dist.get_world_size(_groups.peers))]
    dist.all_gather(parts, said, group=_groups.peers)
    parts[dist.get_rank(_groups.peers)] = own
    return torch.cat(parts)


def norm_over_peers(own: Tensor) -> Tensor:
    """The norm () of a vector whose parts on the groups of peers have these norms ()."""
    square = own.square()
    dist.all_reduce(square, group=_groups.peers)
    return square.sqrt()


def exchange(means: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
    """Replaces tensors by their means, and others by their sums, over the ranks, by one message.

    The result is the same bits on every rank. Whole numbers among the sums stay exact up to 2^24.
    """
    tensors = [*means, *sums]
    sizes = [t.numel() for t in tensors]
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    dist.all_reduce(flat, group=batch_group())
    flat[: sum(sizes[: len(means)])] /= count()
    with torch.no_grad():
        for tensor, part in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(part.view(tensor.shape))


def processes() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def add_up(counts: Tensor) -> None:
    """Replaces a tensor by its sum over all processes."""
    dist.all_reduce(counts)


def any_process(said: bool, device: torch.device) -> bool:
    """Whether any process says so."""
    if processes() == 1:
        return said
    wish = torch.tensor(float(said), device=device)
    dist.all_reduce(wish)
    return bool(wish > 0)


def follow_first(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Gives every process the first one's values."""
    if processes() > 1:
        for tensor in tensors:
            # Not in place: gloo and NCCL take dense memory alone, which a channels-last tensor is only in its own way.
            value = tensor.detach().to(device).contiguous()
            dist.broadcast(value, 0)
            with torch.no_grad():
                tensor.copy_(value)


def by_first(action: Callable[[], T]) -> T:
    """What an action of the first process alone returns, on every one.

    Raises:
        ProcessLost: on the others, where the action raised something on the first.
    """
    if processes() == 1:
        return action()
    told: list[Any] = [False, None]
    if dist.get_rank() > 0:
        dist.broadcast_object_list(told, 0)
        if not told[0]:
            raise ProcessLost
        return cast(T, told[1])
    try:
        told = [True, action()]
    finally:
        dist.broadcast_object_list(told, 0)
    return cast(T, told[1])


def tell_first(word: T) -> list[T]:
    """What every process says, on the first; on the others nothing."""
    if processes() == 1:
        return [word]
    said: list[Any] = [None] * processes()
    dist.gather_object(word, said if dist.get_rank() == 0 else None)
    return said if dist.get_rank() == 0 else []


def in_turn(action: Callable[[], T], *, first_here: bool, device: torch.device) -> T:
    """The first process acts before all others, then the first of every other machine, then the rest.

    So what an action leaves on disk for the next time (downloads, caches) is made once, wherever the disk is.

    Raises:
        ProcessLost: the action raised something in another process.
    """
    if processes() == 1:
        return action()
    turn = 0 if dist.get_rank() == 0 else 1 if first_here else 2
    results: list[T] = []
    for now in range(3):
        failed = True
        try:
            if now == turn:
                results.append(action())
            failed = False
        finally:
            anywhere = any_process(failed, device)
        if anywhere:
            raise ProcessLost
    return results[0]


@contextmanager
def together() -> Iterator[None]:
    """Turns what a library says when another process is gone into ProcessLost, and parts from the others at the end."""
    ended = False
    try:
        yield
        ended = True
    except RuntimeError as error:
        if not isinstance(error, CollegiumError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise ProcessLost from error
        raise
    finally:
        global _groups
        _groups = _Groups()
        # After an error NCCL would wait for the others, who wait for this process: it parts from them by ending.
        if dist.is_initialized() and (ended or dist.get_backend() != "nccl"):
            dist.destroy_process_group()
