"""Work shared out to other processes, with its results in order."""

import atexit
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from collegium.errors import CollegiumError, UsageError
from collegium.signals import STOP_SIGNALS

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST = 16


def default_workers() -> int:
    """One process for each CPU that this one may use but one, at least 1 and at most 16.

    Where several processes of a run share the machine, each has its part of the CPUs.
    """
    return min(_MOST, max(1, cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew(Generic[Task, Result]):
    """Processes that apply a function to tasks.

    A signal that is meant for the training process (Ctrl-C reaches the whole group) does not end the workers, so that
    training can still save its state. The global random state of the caller is left alone.

    Args:
        function: from a task to its result. A CollegiumError that it raises is raised again by `run`.
        workers: how many processes; with 0 the function is called in this one.
        pin_memory: results are tensors to be copied to a GPU.
        keep: the processes wait for the next `run`; otherwise each `run` starts its own.

    Raises:
        UsageError: `workers` is negative.
    """

    def __init__(
        self, function: Callable[[Task], Result], workers: int, *, pin_memory: bool = False, keep: bool = False
    ) -> None:
        if workers < 0:
            raise UsageError(f"workers is {workers}: give 0 (no other process) or more")
        self.workers, self.keep = workers, keep
        self._work, self._tasks = _Work(function), _Tasks()
        self._turn: object = None
        self._running: set[Any] = set()
        weakref.finalize(self, _end, self._running)
        self._loader: DataLoader[Any] | None = None
        if workers:
            with _accepted():
                self._loader = DataLoader(
                    self._work,
                    batch_size=None,
                    sampler=self._tasks,
                    num_workers=workers,
                    collate_fn=_unchanged,
                    pin_memory=pin_memory,
                    persistent_workers=keep,
                    prefetch_factor=max(2, 8 // workers),
                    worker_init_fn=_deaf,
                    # Forked workers share the list of images; others would each be sent a copy.
                    multiprocessing_context="fork" if sys.platform == "linux" else None,
                    generator=torch.Generator(),  # else it would draw from the global one
                )

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """The result of each task, in the order of the tasks."""
        if self._loader is None:
            yield from map(self._work.function, tasks)
            return
        self._tasks.waiting = tasks
        turn = self._turn = object()
        with _accepted():
            results = iter(self._loader)
        self._running.add(results)
        _running.add(results)
        try:
            for _ in tasks:
                if self.keep and self._turn is not turn:
                    raise RuntimeError("these batches were begun again before they had come to their end")
                yield _opened(next(results))
        finally:
            if not self.keep:
                _end({results})


class _Failure:
    """An error on its way from a worker: raised there, torch would bury it in a traceback."""

    def __init__(self, error: CollegiumError) -> None:
        self.error = error


def _opened(result: Any) -> Any:
    if not isinstance(result, _Failure):
        return result
    try:
        raise result.error
    finally:
        del result  # else the error, by its traceback, would hold itself


class _Work(Dataset[Any]):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, task: Any) -> Any:
        try:
            return self.function(task)
        except CollegiumError as error:
            return _Failure(error)


class _Tasks(Sampler[Any]):
    waiting: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.waiting)


def _unchanged(result: Any) -> Any:
    return result


def _deaf(_: int) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _accepted() -> Iterator[None]:
    """Without the warnings of what is done here on purpose: as many workers as asked for, and forked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message="This process .* is multi-threaded", category=DeprecationWarning)
        yield


# Workers ignore the signal by which Python ends its children, so they must be told, and torch can only tell them while
# the queues to them are open: neither the end of Python nor the garbage collector may come first.
_running: set[Any] = set()


def _end(some: set[Any]) -> None:
    for results in list(some):
        _running.discard(results)
        results._shutdown_workers()


atexit.register(_end, _running)
