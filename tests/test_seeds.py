import pytest
import torch

from collegium.errors import UsageError
from collegium.seeds import generator


def draw(*path: int) -> list[int]:
    return torch.randint(1 << 30, (4,), generator=generator(*path)).tolist()


def test_every_path_has_numbers_of_its_own():
    paths = [(seed, use, epoch) for seed in range(5) for use in range(2) for epoch in range(20)]
    paths += [(seed, use) for seed in range(5) for use in range(2)]
    assert len({tuple(draw(*path)) for path in paths}) == len(paths)
    assert draw(1, 2, 3) == draw(1, 2, 3)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed is -1"):
        generator(-1)
