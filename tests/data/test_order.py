from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.data import Augmentation, ClassificationData, StreamedData, StreamedSplit, Views, from_arrays, from_scene
from collegium.data.decoding.source import Source
from collegium.data.interface import Share
from collegium.data.order import Order, times_before
from collegium.errors import UsageError
from collegium.seeds import generator

CPU = torch.device("cpu")


def labels(*counts: int) -> torch.Tensor:
    """So many images of class 0, 1, ..., mixed."""
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]


def batches(order: Order, targets: torch.Tensor, epoch: int = 0) -> list[list[int]]:
    """The classes in each batch of an epoch."""
    return [part.tolist() for part in targets[order.epoch(epoch)].split(order.batch_size)]


@pytest.mark.parametrize("drop_last", [True, False])
def test_without_groups_an_order_is_a_plain_permutation_or_none(drop_last):
    targets = labels(5, 6)
    drawn = Order(targets, batch_size=4, seed=3, drop_last=drop_last)
    assert torch.equal(drawn.epoch(2), torch.randperm(11, generator=generator(3, 0, 2)))
    plain = Order(targets, batch_size=4, seed=3, shuffle=False, drop_last=drop_last, images_per_class=2)
    assert plain.epoch(2).tolist() == list(range(11))
    assert len(drawn) == len(plain) == (2 if drop_last else 3)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any),
    size=st.integers(2, 4),
    groups=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_every_class_in_a_batch_has_its_images_and_none_comes_twice(counts, size, groups, seed):
    targets = labels(*counts)
    order = Order(targets, batch_size=size * groups, seed=seed, images_per_class=size)
    images = order.epoch(4)
    seen = batches(order, targets, 4)
    assert len(seen) == len(order) >= 1
    for held in seen:
        assert all(count >= size for count in Counter(held).values())
        assert len(held) == size * groups or len(seen) == 1
    twice = {int(targets[i]) for i, times in Counter(images.tolist()).items() if times > 1}
    assert all(counts[c] < size for c in twice)
    left_over = sum(count % size for count in counts if count >= size)
    assert len(images.unique()) >= sum(counts) - left_over - size * (groups - 1) or len(seen) == 1


def test_classes_that_suffice_have_exactly_a_pair_in_a_batch():
    """As the batches of MCL's authors: 64 of 100 classes, two images of each."""
    targets = labels(*[50] * 100)
    order = Order(targets, batch_size=128, seed=0, images_per_class=2)
    assert len(order) == 5000 // 128
    seen = batches(order, targets)
    assert all(set(Counter(held).values()) == {2} for held in seen)
    assert len(order.epoch(0).unique()) == 128 * len(order)
    assert len({tuple(sorted(set(held))) for held in seen}) == len(seen), "no two batches hold the same classes"


def test_large_and_small_classes_are_spread_over_the_epoch():
    targets = labels(400, 40, 8)
    seen = [Counter(held) for held in batches(Order(targets, batch_size=28, seed=1, images_per_class=2), targets)]
    assert len(seen) == 16
    assert {held[0] for held in seen} <= {24, 26} and {held[1] for held in seen} <= {2, 4}
    assert Counter(held[2] for held in seen) == {2: 4, 0: 12}


def test_an_order_is_a_function_of_seed_and_epoch():
    targets = labels(20, 21, 19)
    first, second, other = (Order(targets, batch_size=6, seed=s, images_per_class=2) for s in (0, 0, 1))
    assert torch.equal(first.epoch(3), second.epoch(3))
    assert not torch.equal(first.epoch(3), first.epoch(2))
    assert not torch.equal(first.epoch(3), other.epoch(3))


def test_who_sits_out_changes_from_epoch_to_epoch():
    targets = labels(5, 3)
    order = Order(targets, batch_size=6, seed=0, images_per_class=2)
    held = [set(order.epoch(epoch).tolist()) for epoch in range(40)]
    assert all(len(images) == 6 for images in held)
    assert set.union(*held) == set(range(8))


def test_every_image_is_taken_as_often_as_the_others_of_its_class():
    targets = labels(5, 7, 4)
    order = Order(targets, batch_size=4, seed=0, images_per_class=2)
    taken = Counter(i for epoch in range(1500) for i in order.epoch(epoch).tolist())
    for c, count in enumerate((5, 7, 4)):
        times = np.array([taken[i] for i in (targets == c).nonzero().flatten().tolist()])
        assert len(times) == count and (abs(times / times.mean() - 1) < 0.1).all()


def test_a_class_with_too_few_images_takes_them_again():
    targets = torch.tensor([0, 1, 1, 1, 1])
    order = Order(targets, batch_size=2, seed=0, images_per_class=2)
    assert len(order) == 3
    assert Counter(order.epoch(0).tolist()) == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}


def test_a_batch_size_that_groups_do_not_fill_is_refused():
    with pytest.raises(UsageError, match="the batch size is 21, .* 2 images of every class .* a multiple of 2"):
        Order(labels(30, 30), batch_size=21, seed=0, images_per_class=2)


def in_memory() -> ClassificationData:
    images = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    pair = (images, labels(15, 20, 25).numpy())
    return from_arrays(pair, pair, augmentation=Augmentation(1))


class Grey(Source):
    """Sixty images, each of one level."""

    def __len__(self) -> int:
        return 60

    def pixels(self, index: int) -> torch.Tensor:
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def fingerprint(self, indices: torch.Tensor) -> str:
        return str(indices.tolist())


def streamed() -> ClassificationData:
    split = StreamedSplit.of(Grey(), labels(15, 20, 25))
    return StreamedData(
        name="grey",
        train=split,
        test=split,
        class_names=("a", "b", "c"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        channels=3,
        views=Views((8, 8)),
        workers=0,
    )


def scene() -> ClassificationData:
    cube = np.random.default_rng(0).normal(size=(20, 20, 4))
    return from_scene(cube, np.arange(400).reshape(20, 20) % 4, patch=3, split="random", per_class=20)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("make", [in_memory, streamed, scene])
def test_all_data_draw_their_batches_so_and_go_on_in_the_middle_of_an_epoch(make, views):
    drawn = make().training_batches(batch_size=6, seed=0, device=CPU, views=views, images_per_class=2)
    whole = list(drawn.epoch(1))
    assert len(whole) == len(drawn) >= 9
    for images, targets in whole:
        assert images.shape[:-3] == ((6,) if views == 1 else (views, 6))
        assert all(count in (2, 4) for count in Counter(targets.tolist()).values())
    rest = list(drawn.epoch(1, first_step=4))
    for (images, targets), (again, too) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images, again) and torch.equal(targets, too)


def test_balanced_draws_take_every_class_and_every_image_of_it_alike():
    targets = labels(900, 90, 10, 0)
    order = Order(targets, batch_size=50, seed=0, balanced=True)
    assert len(order) == 20
    drawn = torch.cat([order.epoch(epoch) for epoch in range(60)])
    assert len(drawn) == 60 * 1000
    counts = targets[drawn].bincount(minlength=4)
    # 20 000 of each class, with a standard deviation of 115.
    assert (abs(counts[:3] - 20_000) < 600).all() and counts[3] == 0
    times = drawn.bincount(minlength=1000)[targets == 2]
    assert len(times) == 10 and (abs(times - 2000) < 220).all()  # a standard deviation of 44
    assert torch.equal(order.epoch(3), Order(targets, batch_size=7, seed=0, balanced=True).epoch(3))
    assert not torch.equal(order.epoch(3), order.epoch(4))
    plain = Order(targets, batch_size=50, seed=0, shuffle=False, balanced=True)
    assert plain.epoch(0).tolist() == list(range(1000))


def test_balanced_draws_and_groups_of_a_class_exclude_each_other():
    with pytest.raises(UsageError, match="dealt class by class, and not with --sampling balanced"):
        Order(labels(5, 5), batch_size=4, seed=0, images_per_class=2, balanced=True)


def test_how_often_an_image_has_been_before():
    assert times_before(torch.tensor([4, 1, 4, 4, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("make", [in_memory, streamed, scene])
def test_all_data_draw_balanced_batches_go_on_and_share_them(make):
    data = make()
    drawn = data.training_batches(batch_size=6, seed=0, device=CPU, balanced=True)
    whole = list(drawn.epoch(1))
    assert len(whole) == len(data.train) // 6
    for (images, targets), (again, too) in zip(whole[4:], drawn.epoch(1, first_step=4), strict=True):
        assert torch.equal(images, again) and torch.equal(targets, too)
    parts = [
        list(data.training_batches(batch_size=6, seed=0, device=CPU, balanced=True, share=Share(k, 2)).epoch(1))
        for k in range(2)
    ]
    for (images, targets), *halves in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([half[0] for half in halves]))
        assert torch.equal(targets, torch.cat([half[1] for half in halves]))
