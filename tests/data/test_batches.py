import itertools

import numpy as np
import pytest
import torch

from collegium.data import Augmentation, Batches, Split
from collegium.errors import UsageError

# With these the "normalised" value of a pixel is its level, 0..255.
LEVELS = {"mean": (0.0, 0.0), "std": (1 / 255, 1 / 255)}


def toy(count: int, height: int = 4, width: int = 5) -> Split:
    images = torch.randint(0, 256, (count, 2, height, width), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return Split(images, torch.arange(count))


def collect(batches: Batches, epoch: int, first_step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*batches.epoch(epoch, first_step), strict=True)
    return torch.cat(images), torch.cat(targets)


def variants(images: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """All crops and flips (V, N, C, H, W) of `images` (N, C, H, W), made by padding them."""
    pad, (height, width) = augmentation.padding, images.shape[2:]
    mode = {"zeros": "constant", "reflect": "reflect"}[augmentation.padding_mode]
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode=mode)
    crops = [
        padded[:, :, top : top + height, left : left + width]
        for top, left in itertools.product(range(2 * pad + 1), repeat=2)
    ]
    return np.stack(crops + [crop[..., ::-1] for crop in crops] if augmentation.flip else crops)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("padding", "mode"), [(1, "zeros"), (2, "reflect"), (3, "reflect"), (3, "zeros"), (0, "zeros")]
)
def test_each_image_is_one_of_its_crops_and_flips(padding, mode, flip):
    split, augmentation = toy(64), Augmentation(padding, mode, flip)
    images, targets = collect(Batches(split, batch_size=16, augmentation=augmentation, **LEVELS), epoch=0)
    expected = variants(split.images[targets].numpy(), augmentation)
    assert (images.numpy() == expected).all(axis=(2, 3, 4)).any(axis=0).all()


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_crops_and_flips_are_drawn_uniformly_and_for_each_image(mode):
    split, augmentation = toy(3600, 3, 4), Augmentation(1, mode, flip=True)
    images, targets = collect(Batches(split, batch_size=100, augmentation=augmentation, **LEVELS), epoch=0)
    equal = (images.numpy() == variants(split.images[targets].numpy(), augmentation)).all(axis=(2, 3, 4))
    assert (equal.sum(axis=0) == 1).all()  # each image tells which draw it had
    counts = equal.sum(axis=1)
    assert len(counts) == 18  # 3 x 3 crops, flipped or not; 200 expected, standard deviation 13.7
    assert (abs(counts - 200) < 5 * 13.7).all()
    assert all(len(set(batch.argmax(axis=0))) > 9 for batch in np.split(equal, 36, axis=1))


def test_normalisation_by_hand():
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)  # (1, 2, 1, 2)
    batches = Batches(Split(images, torch.tensor([0])), batch_size=1, mean=(0.5, 0.2), std=(0.25, 0.1))
    expected = torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(next(batches.epoch(0))[0], expected)
    torch.testing.assert_close(batches.normalise(images), expected)


def test_padded_pixels_are_black_before_normalisation():
    white = Split(torch.full((50, 1, 3, 3), 255, dtype=torch.uint8), torch.zeros(50).long())
    batches = Batches(white, batch_size=50, mean=(0.5,), std=(0.25,), augmentation=Augmentation(1))
    images, _ = next(batches.epoch(0))
    assert images.unique().tolist() == pytest.approx([-2.0, 2.0])


@pytest.mark.parametrize("augmentation", [None, Augmentation(1)])
def test_memory_layout_and_types(augmentation):
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        batches = Batches(toy(8), batch_size=4, augmentation=augmentation, channels_last=channels_last, **LEVELS)
        images, targets = next(batches.epoch(0))
        assert images.shape == (4, 2, 4, 5) and images.is_contiguous(memory_format=layout)
        assert (images.dtype, targets.dtype) == (torch.float32, torch.int64)
        assert batches.normalise(toy(8).images).is_contiguous(memory_format=layout)


def test_a_split_in_another_memory_layout_gives_the_same_batches():
    split = toy(8)
    planar = Split(split.images.contiguous(), split.targets)
    first, second = (
        collect(Batches(s, batch_size=4, augmentation=Augmentation(1), **LEVELS), 0) for s in (split, planar)
    )
    assert torch.equal(first[0], second[0])


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    batches = Batches(toy(40), batch_size=8, **LEVELS)
    orders = [collect(batches, epoch)[1].tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [list(range(40))] * 2
    assert orders[0] != orders[1] != list(range(40))


def test_without_shuffle_the_order_is_the_splits():
    split = toy(10)
    images, targets = collect(Batches(split, batch_size=4, shuffle=False, drop_last=False, **LEVELS), epoch=3)
    assert targets.tolist() == list(range(10))
    assert torch.equal(images, split.images.float())


def test_batches_are_a_function_of_seed_epoch_and_step():
    def make(seed: int, epoch: int, shuffle: bool) -> torch.Tensor:
        augmentation = Augmentation(2)
        return collect(
            Batches(toy(40), batch_size=8, seed=seed, augmentation=augmentation, shuffle=shuffle, **LEVELS), epoch
        )[0]

    for shuffle in (True, False):  # without shuffling the augmentation alone
        assert torch.equal(make(0, 1, shuffle), make(0, 1, shuffle))
        assert not torch.equal(make(0, 1, shuffle), make(1, 1, shuffle))
        assert not torch.equal(make(0, 1, shuffle), make(1, 0, shuffle))
        assert not torch.equal(make(0, 0, shuffle), make(0, 1, shuffle))


@pytest.mark.parametrize("first_step", [0, 1, 4])
def test_an_interrupted_epoch_goes_on_exactly(first_step):
    batches = Batches(toy(40), batch_size=8, augmentation=Augmentation(2), **LEVELS)
    rest, targets = collect(batches, 2, first_step)
    whole, all_targets = collect(batches, 2)
    assert torch.equal(rest, whole[first_step * 8 :]) and torch.equal(targets, all_targets[first_step * 8 :])


def test_drawing_batches_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    collect(Batches(toy(8), batch_size=4, augmentation=Augmentation(1), **LEVELS), 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("count", "drop_last", "sizes"),
    [
        (10, True, [4, 4]),
        (10, False, [4, 4, 2]),
        (8, False, [4, 4]),
        (8, True, [4, 4]),
        (3, True, [3]),
        (3, False, [3]),
    ],
)
def test_the_last_batch(count, drop_last, sizes):
    batches = Batches(toy(count), batch_size=4, drop_last=drop_last, augmentation=Augmentation(1), **LEVELS)
    assert [len(targets) for _, targets in batches.epoch(0)] == sizes
    assert len(batches) == len(sizes)
    assert list(batches.epoch(0, first_step=len(sizes))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"split": toy(0)}, "the split is empty"),
        ({"seed": -1}, "seed is -1"),
        ({"mean": (0.5,)}, "mean has 1 values for images of 2 channels"),
        ({"std": (0.5,) * 3}, "std has 3 values"),
        ({"augmentation": Augmentation(4, "reflect")}, "padding 4 is too much"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    settings = {"split": toy(8), "batch_size": 4, **LEVELS} | changes
    with pytest.raises(UsageError, match=message):
        Batches(settings.pop("split"), **settings)


def test_an_epoch_or_step_that_does_not_exist_is_refused_at_once():
    batches = Batches(toy(8), batch_size=4, **LEVELS)
    with pytest.raises(UsageError, match="step 3 cannot be the first: an epoch has steps 0 to 1"):
        batches.epoch(0, first_step=3)
    with pytest.raises(UsageError, match="epoch -1"):
        batches.epoch(-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_cuda_device_gives_the_same_batches_without_waiting_for_it():
    augmentation = Augmentation(2, "zeros")
    expected = collect(Batches(toy(40), batch_size=8, augmentation=augmentation, **LEVELS), 0)
    batches = Batches(toy(40).to("cuda"), batch_size=8, augmentation=augmentation, **LEVELS)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, targets = collect(batches, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(images.cpu(), expected[0]) and torch.equal(targets.cpu(), expected[1])


def test_views_of_an_image_differ_and_the_first_is_that_of_a_single_one():
    split = Split(torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8), torch.arange(12))
    settings = dict(batch_size=6, mean=(0.5,) * 3, std=(0.25,) * 3, seed=3, augmentation=Augmentation(padding=2))
    single = list(Batches(split, **settings).epoch(1))
    double = list(Batches(split, **settings, views=2).epoch(1))
    for (one, target), (two, same) in zip(single, double, strict=True):
        assert two.shape == (2, 6, 3, 8, 8) and torch.equal(target, same)
        assert torch.equal(two[0], one) and not torch.equal(two[1], one)
        assert two[1].is_contiguous(memory_format=torch.channels_last)
    resumed = list(Batches(split, **settings, views=2).epoch(1, first_step=1))
    assert torch.equal(resumed[0][0], double[1][0])
