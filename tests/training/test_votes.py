"""All processes decide alike, on the votes of the step before."""

import torch
from helpers import tiny
from many import on_ranks

from collegium import ranks
from collegium.training.devices import Devices
from collegium.training.engine import make_fabric
from collegium.training.votes import AsyncRead, Votes


def test_a_process_alone_decides_at_once() -> None:
    votes = Votes(torch.device("cpu"), first=True)
    for vote in ((True, False), (False, True), (False, False)):
        assert votes.agree(*vote) == vote


def decisions(devices: Devices) -> list[tuple[bool, bool]]:
    """Of four steps: the last rank asks to read after the first, rank 0 after the second, the last to stop after it."""
    fabric = make_fabric(tiny(), devices)
    votes, last = Votes(fabric.device, first=fabric.is_global_zero), ranks.rank() == devices.devices - 1
    ballots = [(last, False), (not last, False), (False, last), (False, False)]
    return [votes.agree(*ballot) for ballot in ballots]


def test_rank_0_decides_on_reading_and_any_process_on_stopping() -> None:
    expected = [(False, False), (False, False), (True, False), (False, True)]
    assert on_ranks(2, decisions) == [expected, expected]


def test_numbers_are_read_as_they_were_written() -> None:
    assert AsyncRead(torch.tensor([1.0, 2.5])).read() == [1.0, 2.5]
