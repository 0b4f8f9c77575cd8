import multiprocessing
import os
import signal
import time

import pytest
import torch

from collegium.data.decoding.workers import Crew, default_workers
from collegium.errors import DataError, UsageError


def square(task: int) -> int:
    time.sleep(0.02 * (task % 3 == 0))  # some are ready before those that were asked for earlier
    if task < 0:
        raise DataError(f"{task} is negative")
    return task * task


def process(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    state = torch.get_rng_state()
    crew = Crew(square, workers)
    assert list(crew.run(range(10))) == [k * k for k in range(10)]
    assert list(crew.run([])) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_for_the_user_stays_one_sentence(workers):
    with pytest.raises(DataError) as error:
        list(Crew(square, workers).run([1, 2, -3, 4]))
    assert str(error.value) == "-3 is negative"


def test_workers_that_are_kept_serve_the_next_run_also_after_one_that_was_left():
    crew = Crew(process, 1, keep=True)
    first = set(crew.run(range(3)))
    left = crew.run(range(100))
    second = {next(left)}
    left.close()
    assert set(crew.run(range(3))) == first == second != {os.getpid()}
    del crew
    assert not multiprocessing.active_children()


def test_two_runs_at_once_of_workers_that_are_kept_are_noticed():
    crew = Crew(square, 1, keep=True)
    first = crew.run(range(5))
    next(first)
    assert list(crew.run(range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(RuntimeError, match="begun again"):
        next(first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(number):
    crew = Crew(square, 2, keep=True)
    results = crew.run(range(100))
    begun = [next(results) for _ in range(4)]  # both have begun, and are deaf by now
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)
    assert begun + list(results) == [k * k for k in range(100)]


def test_how_many_workers():
    assert 1 <= default_workers() <= 16
    with pytest.raises(UsageError, match="workers is -1"):
        Crew(square, -1)
