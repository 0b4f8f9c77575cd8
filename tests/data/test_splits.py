from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from collegium.data.decoding.image_files import named_keys
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


def of(labels: list[int], names: list[str] | None = None) -> Split:
    """Images that hold their own index, in two bytes, with these labels; with the keys of these names."""
    index = np.arange(len(labels))
    images = torch.from_numpy(np.stack([index // 256, index % 256], 1).astype(np.uint8)).view(-1, 2, 1, 1)
    return Split(images, torch.tensor(labels), keys=None if names is None else named_keys(names))


def numbers(split: Split) -> list[int]:
    high, low = split.images[:, :, 0, 0].long().T
    return (high * 256 + low).tolist()


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80)
SEEDS = st.integers(0, 2**40)


@given(labels=LABELS, share=st.floats(0.01, 0.99), seed=SEEDS)
def test_any_hold_out_is_disjoint_complete_exact_and_repeatable(labels, share, seed):
    split = of(labels)
    try:
        train, held = hold_out(split, share, seed)
    except UsageError as error:
        counts = [labels.count(label) for label in set(labels)]
        assert any(int(share * count + 0.5) in (0, count) for count in counts) and len(str(error)) <= 300
        return
    assert sorted(numbers(train) + numbers(held)) == list(range(len(labels)))
    for part in (train, held):
        assert numbers(part) == sorted(numbers(part))
        assert part.targets.tolist() == [labels[k] for k in numbers(part)]
    assert {c: held.targets.tolist().count(c) for c in set(labels)} == {
        c: int(share * labels.count(c) + 0.5) for c in set(labels)
    }
    assert numbers(hold_out(split, share, seed)[1]) == numbers(held)


@given(labels=LABELS, more=LABELS, share=st.floats(0.01, 0.9), seed=SEEDS, part=st.sampled_from(["test", "validation"]))
def test_images_that_are_added_never_make_another_one_held_out(labels, more, share, seed, part):
    names = [f"{label}/{k}.png" for k, label in enumerate(labels + more)]
    place = np.random.default_rng(seed).permutation(len(names)).tolist()  # those that are added stand anywhere
    old = [k for k in place if k < len(labels)]
    splits = [of([(labels + more)[k] for k in order], [names[k] for k in order]) for order in (old, place)]
    try:
        parts = [hold_out(split, share, seed, part) for split in splits]
    except UsageError as error:
        assert "a smaller share, another split_seed" in str(error) and len(str(error)) <= 300
        return
    train, held = ({old[k] for k in numbers(part)} for part in parts[0])
    more_train, more_held = ({place[k] for k in numbers(part)} for part in parts[1])
    assert train | held == set(old) and not train & held
    assert train <= more_train and not train & more_held
    assert set(labels) == {labels[k] for k in held} == {labels[k] for k in train}


def test_the_shares_of_classes_are_right_on_average_and_test_and_validation_are_independent():
    names = [f"{label}/{k}.png" for label in range(4) for k in range(2500)]
    split = of([label for label in range(4) for _ in range(2500)], names)
    train, test = hold_out(split, 0.2, 0, "test")
    assert all(abs(count - 500) < 80 for count in test.targets.bincount().tolist())  # four standard deviations
    train, validation = hold_out(train, 0.1, 0)
    expected = [0.1 * (2500 - count) for count in test.targets.bincount().tolist()]
    assert all(abs(c - e) < 60 for c, e in zip(validation.targets.bincount().tolist(), expected, strict=True))
    assert numbers(hold_out(split, 0.2, 0, "test")[1]) == numbers(test) != numbers(hold_out(split, 0.2, 1, "test")[1])
    assert set(numbers(hold_out(split, 0.1, 0, "test")[1])) < set(numbers(test))


def test_a_class_too_small_for_the_share_has_one_image_held_out_and_one_image_alone_is_refused():
    split = of([0] * 5, [f"a/{k}" for k in range(5)])
    assert all(len(hold_out(split, 1e-6, seed)[1]) == 1 for seed in range(10))
    with pytest.raises(UsageError, match="holds out 1 of its 1 images, and leaves 0 to train on: give a smaller share"):
        hold_out(of([0], ["a/0"]), 0.2, 0)


@given(labels=LABELS, count=st.integers(1, 12), seed=SEEDS)
def test_any_per_class_has_its_counts_and_lies_within_a_larger_one(labels, count, seed):
    split = of(labels)
    least = min(labels.count(label) for label in set(labels))
    if count > least:
        with pytest.raises(UsageError, match="take at most [0-9]+ per class"):
            per_class(split, count, seed)
        assume(count <= least)
    subset = numbers(per_class(split, count, seed))
    assert subset == sorted(set(subset))
    assert all([labels[k] for k in subset].count(label) == count for label in set(labels))
    if count < least:
        assert set(subset) < set(numbers(per_class(split, count + 1, seed)))
    assert numbers(per_class(split, count, seed)) == subset


def test_wrong_labels_do_not_change_which_images_are_chosen():
    right = of([0, 1, 2] * 20)
    wrong = replace(right, targets=right.targets.flip(0), true_targets=right.targets)
    assert numbers(hold_out(right, 0.3, 1)[1]) == numbers(hold_out(wrong, 0.3, 1)[1])
    assert numbers(per_class(right, 3, 1)) == numbers(per_class(wrong, 3, 1))


def test_a_large_label_costs_nothing():
    split = of([2**40, 0, 2**40, 0])
    assert len(hold_out(split, 0.5, 0)[1]) == 2 and len(per_class(split, 1, 0)) == 2


def test_keys_stay_with_the_images():
    split = of([0, 1, 0, 1], ["train/a/x", "train/b/x", "a/x", "a/y"])
    keys = split.keys.tolist()
    assert keys[0] == keys[2] and len(set(keys)) == 3
    assert split.subset(torch.tensor([3, 0])).keys.tolist() == [keys[3], keys[0]]
