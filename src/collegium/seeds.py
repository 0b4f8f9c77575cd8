"""Random numbers as a function of a seed and of their use."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from collegium.errors import UsageError


def generator(seed: int, *path: int) -> torch.Generator:
    """A generator on the CPU for ``seed`` and the use that ``path`` names, independent of those of other paths.

    Raises:
        UsageError: ``seed`` is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed is {seed}: give 0 or more")
    # With the spawn key different pairs (seed, path) have different states, where seed + path would collide.
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def seed_globally(seed: int, *path: int) -> None:
    """Seeds the global generators of torch (on the CPU), NumPy and Python for ``seed`` and the use ``path``."""
    first, second = np.random.SeedSequence(seed, spawn_key=path).generate_state(2, np.uint64)
    torch.default_generator.manual_seed(int(first))
    np.random.seed(int(second) % 2**32)
    random.seed(int(second))


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restores the global generators of torch (on the CPU), NumPy and Python at the end."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
