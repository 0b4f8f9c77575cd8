import pytest
import torch

from collegium.data.images import Split
from collegium.data.splits import hold_out, per_class
from collegium.errors import UsageError


@pytest.fixture
def split() -> Split:
    """100 images of four classes in the ratio 4:3:2:1; each image holds its own index."""
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3] * 10)
    return Split(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), targets)


def indices(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_hold_out_takes_the_same_share_of_each_class(split):
    train, validation = hold_out(split, 0.2, seed=0)
    assert validation.targets.bincount().tolist() == [8, 6, 4, 2]
    assert train.targets.bincount().tolist() == [32, 24, 16, 8]


def test_hold_out_parts_are_disjoint_complete_and_in_order(split):
    train, validation = hold_out(split, 0.3, seed=0)
    assert sorted(indices(train) + indices(validation)) == list(range(100))
    assert indices(train) == sorted(indices(train))
    assert torch.equal(validation.targets, split.targets[indices(validation)])


def test_hold_out_depends_on_the_seed_alone(split):
    first, again, other = (indices(hold_out(split, 0.2, seed)[1]) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_hold_out_refuses_a_share_that_is_no_part(split, share):
    with pytest.raises(UsageError, match="fraction between 0 and 1"):
        hold_out(split, share, seed=0)


def test_hold_out_refuses_to_leave_one_side_empty(split):
    with pytest.raises(UsageError, match="0.001 of class 0 holds out 0 of its .* images"):
        hold_out(split, 0.001, seed=0)
    with pytest.raises(UsageError, match="0.999 of class 0 holds out .* and leaves 0 to train on"):
        hold_out(split, 0.999, seed=0)


def test_per_class_is_balanced_and_pairs_images_with_labels(split):
    subset = per_class(split, 7, seed=3)
    assert subset.targets.bincount().tolist() == [7] * 4
    assert torch.equal(subset.targets, split.targets[indices(subset)])
    assert indices(subset) == sorted(set(indices(subset)))


def test_per_class_subsets_are_nested(split):
    sets = [set(indices(per_class(split, count, seed=3))) for count in (1, 5, 10)]
    assert sets[0] < sets[1] < sets[2]


def test_per_class_depends_on_the_seed_alone(split):
    first, again, other = (indices(per_class(split, 5, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_per_class_refuses_more_than_a_class_has(split):
    with pytest.raises(UsageError, match="class 3 has 10 images to train on, not 11: take at most 10"):
        per_class(split, 11, seed=0)
    with pytest.raises(UsageError, match="per class is 0"):
        per_class(split, 0, seed=0)


def test_a_negative_seed_is_refused(split):
    with pytest.raises(UsageError, match="seed is -1"):
        per_class(split, 1, seed=-1)
