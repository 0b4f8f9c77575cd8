"""What the processes of a run decide together after every step."""

from collections import deque

import torch
from torch import Tensor

from collegium import ranks


class AsyncRead:
    """Numbers on a device that the host reads later, without a wait for work that the device is given meanwhile."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.copied = numbers, None
        if numbers.device.type == "cuda":
            self.numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self.numbers.copy_(numbers, non_blocking=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()

    def read(self) -> list[float]:
        if self.copied is not None:
            self.copied.synchronize()
        return list(self.numbers.tolist())


class Votes:
    """Votes of all processes on two questions: whether to read the tally, and whether to stop."""

    def __init__(self, device: torch.device, *, first: bool) -> None:
        self.device, self.first = device, first
        self._counted: deque[AsyncRead] = deque()

    def agree(self, read: bool, stop: bool) -> tuple[bool, bool]:
        """Whether to read the tally (rank 0 votes) and to stop (any process may vote), the same in all processes.

        With several processes the answer is that to the votes of the previous step, so that none waits for a device.
        """
        if ranks.processes() == 1:
            return read, stop
        votes = torch.zeros(2, device=self.device)
        votes[0], votes[1] = float(read and self.first), float(stop)
        ranks.all_reduce_sum(votes)
        self._counted.append(AsyncRead(votes))
        if len(self._counted) == 1:
            return False, False
        read, stop = (count > 0 for count in self._counted.popleft().read())
        return read, stop
