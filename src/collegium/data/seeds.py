"""Random numbers as a function of what they are for."""

import numpy as np
import torch

from collegium.errors import UsageError


def generator(seed: int, *path: int) -> torch.Generator:
    """A generator on the CPU for `seed` and the use that `path` names, unrelated to that of any other path.

    Raises:
        UsageError: `seed` is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed is {seed}: give 0 or more")
    # The spawn key keeps (seed, path) apart from every other pair, where seed + path would collide.
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
