"""Communication between the processes of a run. In a single process every function does nothing, or the same alone.

Each *rank* has an equal share of every batch, in the order of the ranks. It computes a loss on its share, and the run
descends the mean of these losses. Most losses are means over images, for which this is the loss of the whole batch.
Any other must be computed on the whole batch, with :func:`gather_batch` or :func:`mean_over_ranks`; their gradients
are such that the mean over the ranks is the gradient that one process would compute.

All processes share one batch, unless :func:`make_peer_groups` has distributed the peers over groups of processes: then
the processes of a group share the batches of its peers, and :func:`gather_peers` exchanges logits between groups.
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
    """The groups that a process belongs to; None stands for all processes."""

    batch: dist.ProcessGroup | None = None  # the same peers, different shares of the batch
    peers: dist.ProcessGroup | None = None  # the same share of the batch, different peers


_groups = _Groups()


def make_peer_groups(groups: int) -> int:
    """Makes groups of processes that train different peers, of equal size and in the order of the processes.

    Returns:
        The index of this process's group.
    """
    global _groups
    table = torch.arange(processes()).view(groups, -1)  # (groups of peers, ranks of a batch)
    own = [dist.new_subgroups_by_enumeration(rows.tolist())[0] for rows in (table, table.T)]
    _groups = _Groups(*cast(list[dist.ProcessGroup], own))
    return dist.get_rank(_groups.peers)


def batch_group() -> dist.ProcessGroup | None:
    """The processes that share a batch; None for all."""
    return _groups.batch


def rank() -> int:
    """The index of this process's share of a batch."""
    return dist.get_rank(batch_group()) if dist.is_initialized() else 0


def count() -> int:
    """The number of processes that share a batch."""
    return dist.get_world_size(batch_group()) if dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """A tensor of every rank: (...) -> (ranks, ...). Its gradient is the sum of all ranks' gradients of its part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()[None]  # compiled collectives refuse 0-d tensors
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
    """The shares of all ranks concatenated along ``dim``: the whole batch; differentiable."""
    return torch.cat(list(gather(x)), dim) if count() > 1 else x


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, bit for bit the same on each; differentiable."""
    return gather(x).mean(0) if count() > 1 else x


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, without gradient."""
    if count() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total, group=batch_group())
    return total


def gather_peers(own: Tensor) -> Tensor:
    """Tensors of this group's peers, (m, ...), joined with those of all others, (M, ...), which carry no gradient."""
    constant = own.detach().contiguous()
    parts = [torch.empty_like(constant) for _ in range(dist.get_world_size(_groups.peers))]
    dist.all_gather(parts, constant, group=_groups.peers)
    parts[dist.get_rank(_groups.peers)] = own
    return torch.cat(parts)


def norm_over_peers(own: Tensor) -> Tensor:
    """The norm () of a vector of which each group of peers has a part with the norm ``own`` ()."""
    square = own.square()
    dist.all_reduce(square, group=_groups.peers)
    return square.sqrt()


def exchange(means: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
    """Replaces tensors by their means, and others by their sums, over the ranks, in one message.

    The result is bit for bit the same on every rank. Whole numbers among the sums are exact up to 2^24.
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
    """The number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce_sum(tensor: Tensor) -> None:
    """Replaces a tensor by its sum over all processes."""
    dist.all_reduce(tensor)


def any_process(value: bool, device: torch.device) -> bool:
    """Whether the value is true in any process."""
    if processes() == 1:
        return value
    count = torch.tensor(float(value), device=device)
    dist.all_reduce(count)
    return bool(count > 0)


def broadcast(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Replaces tensors by rank 0's, in every process."""
    if processes() > 1:
        for tensor in tensors:
            # Through a contiguous copy, as gloo and NCCL refuse channels-last tensors.
            value = tensor.detach().to(device).contiguous()
            dist.broadcast(value, 0)
            with torch.no_grad():
                tensor.copy_(value)


def on_rank0(action: Callable[[], T]) -> T:
    """Calls an action on rank 0 alone and returns its result in every process.

    Raises:
        ProcessLost: in the other processes, where the action raised an error.
    """
    if processes() == 1:
        return action()
    outcome: list[Any] = [False, None]  # whether the action succeeded, and its result
    if dist.get_rank() > 0:
        dist.broadcast_object_list(outcome, 0)
        if not outcome[0]:
            raise ProcessLost
        return cast(T, outcome[1])
    try:
        outcome = [True, action()]
    finally:
        dist.broadcast_object_list(outcome, 0)
    return cast(T, outcome[1])


def gather_objects(value: T) -> list[T]:
    """The values of all processes, in their order, on rank 0; elsewhere an empty list."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.gather_object(value, values if dist.get_rank() == 0 else None)
    return values if dist.get_rank() == 0 else []


def rank0_first(action: Callable[[], T], *, local_rank0: bool, device: torch.device) -> T:
    """Calls an action on rank 0, then in the first process of every other machine, then in the rest.

    So files that the action leaves for later calls (downloads, caches) are made once, whether machines share a disk or
    not.

    Args:
        action: what to call.
        local_rank0: whether this is the first process of its machine.
        device: a device for the messages.

    Raises:
        ProcessLost: the action raised an error in another process.
    """
    if processes() == 1:
        return action()
    turn = 0 if dist.get_rank() == 0 else 1 if local_rank0 else 2
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
def process_group() -> Iterator[None]:
    """Turns torch's errors after the loss of another process into ProcessLost, and leaves the group at the end."""
    completed = False
    try:
        yield
        completed = True
    except RuntimeError as error:
        if not isinstance(error, CollegiumError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise ProcessLost from error
        raise
    finally:
        global _groups
        _groups = _Groups()
        # After an error NCCL would wait for the others, which wait for this process; its end releases them.
        if dist.is_initialized() and (completed or dist.get_backend() != "nccl"):
            dist.destroy_process_group()
