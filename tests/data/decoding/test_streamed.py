import multiprocessing
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from collegium.data import StreamedData, StreamedSplit, Views, splits
from collegium.data.decoding.source import Source
from collegium.errors import DataError, UsageError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Noise(Source):
    """Images of random sizes; each also shows what the global generators give."""

    count: int
    broken: int = -1

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> Tensor:
        if index == self.broken:
            raise DataError(f"image {index} is broken")
        generator = torch.Generator().manual_seed(index)
        height, width = torch.randint(20, 40, (2,), generator=generator).tolist()
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        image[0] = int(torch.randint(256, ())) // 2 + np.random.randint(64) + random.randrange(64)
        return image

    def fingerprint(self, indices: Tensor) -> str:
        return str(indices.tolist())


def data(count: int = 22, **changes: object) -> StreamedData:
    split = StreamedSplit.of(Noise(count), torch.arange(count) % 3)
    settings = dict(
        name="noise",
        train=split,
        test=StreamedSplit.of(Noise(7), torch.arange(7) % 3),
        class_names=("a", "b", "c"),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        channels=3,
        views=Views((16, 16), augment="randaugment"),
        workers=0,
    )
    return StreamedData(**(settings | changes))


def train(data: StreamedData, epoch: int = 0, first_step: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    batches = data.training_batches(batch_size=5, seed=seed, device=CPU)
    images, targets = zip(*batches.epoch(epoch, first_step), strict=True)
    return torch.cat(images), torch.cat(targets)


def equal(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(workers):
    assert equal(train(data(workers=workers)), train(data()))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first_step", [1, 3, 4])
def test_an_interrupted_epoch_goes_on_exactly(workers, first_step):
    toy = data(workers=workers)
    batches = toy.training_batches(batch_size=5, seed=0, device=CPU)
    left = batches.epoch(2)
    next(left)
    left.close()
    rest = [*batches.epoch(2, first_step)]
    whole, targets = train(toy, 2)
    assert torch.equal(torch.cat([images for images, _ in rest] or [whole[:0]]), whole[5 * first_step :])
    assert torch.equal(torch.cat([target for _, target in rest] or [targets[:0]]), targets[5 * first_step :])


def test_batches_are_a_function_of_seed_and_epoch():
    assert equal(train(data(), 1), train(data(), 1))
    assert not equal(train(data(), 0), train(data(), 1))
    assert not equal(train(data(), 0, seed=1), train(data(), 0))


def test_the_global_random_state_is_left_alone():
    for workers in (0, 1):
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        train(data(workers=workers))
        data().pictures(data().test)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_shapes_layout_and_normalisation():
    toy = data()
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        batches = toy.scoring_batches(toy.test, batch_size=4, device=CPU, channels_last=channels_last)
        (images, targets), (last, _) = batches.epoch(0)
        assert images.shape == (4, 3, 16, 16) and images.is_contiguous(memory_format=layout) and len(last) == 3
        assert (images.dtype, targets.dtype, targets.tolist()) == (torch.float32, torch.int64, [0, 1, 2, 0])
        shown = toy.pictures(toy.test.subset(torch.arange(4)))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (toy.mean, toy.std))
        torch.testing.assert_close(images, (shown / 255 - mean) / std)
    assert toy.image_shape == (3, 16, 16)
    assert toy.preprocessing() == {
        "image_size": [16, 16],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "resize": 18,
        "center_crop": [16, 16],
        "interpolation": "bilinear",
    }


def test_the_last_batch():
    toy = data()
    assert len(toy.training_batches(batch_size=5, seed=0, device=CPU)) == 4
    assert len(toy.training_batches(batch_size=50, seed=0, device=CPU)) == 1
    assert len(toy.scoring_batches(toy.train, batch_size=5, device=CPU)) == 5
    assert len(train(data(count=3))[1]) == 3


def test_splits_are_made_of_images_that_are_not_in_memory():
    rest, held = splits.hold_out(data().train, 0.3, seed=0)
    assert sorted(rest.indices.tolist() + held.indices.tolist()) == list(range(22))
    few = splits.per_class(rest, 2, seed=0)
    assert few.targets.bincount().tolist() == [2, 2, 2]
    assert (few.targets == few.indices % 3).all()
    assert torch.equal(few.subset(torch.tensor([3])).indices, few.indices[[3]])


def test_a_subset_shows_the_same_images():
    toy = data()
    few = replace(toy, train=toy.train.subset(torch.arange(0, 22, 2)))
    images, targets = train(replace(few, train=few.train.subset(torch.arange(5))))
    assert images.shape[0] == 5 and sorted(targets.tolist()) == sorted((torch.arange(0, 10, 2) % 3).tolist())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_ends_in_one_sentence(workers):
    toy = data(train=StreamedSplit.of(Noise(22, broken=6), torch.arange(22) % 3), workers=workers)
    with pytest.raises(DataError) as error:
        train(toy)
    assert str(error.value) == "image 6 is broken"


def test_the_fingerprint_tells_data_apart():
    toy = data()
    others = [
        data(views=Views((16, 16))),
        data(mean=(0.4, 0.5, 0.5)),
        data(class_names=("a", "b", "d")),
        data(train=toy.train.subset(torch.arange(21))),
        data(validation=toy.test),
    ]
    prints = [d.fingerprint() for d in (toy, *others)]
    assert len(set(prints)) == len(prints)
    assert data().fingerprint() == prints[0] == data(workers=3).fingerprint()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data().training_batches(batch_size=0, seed=0, device=CPU), "batch size is 0"),
        (lambda: data().training_batches(batch_size=2, seed=-1, device=CPU), "seed is -1"),
        (lambda: data(workers=-1).training_batches(batch_size=2, seed=0, device=CPU), "workers is -1"),
        (lambda: data().training_batches(batch_size=5, seed=0, device=CPU).epoch(0, 5), "step 5 cannot"),
        (lambda: data().training_batches(batch_size=5, seed=0, device=CPU).epoch(-1), "epoch -1"),
        (lambda: data(mean=(0.5,)), "mean has 1 values for images of 3 channels"),
        (lambda: data(class_names=("a", "b")), "label 2 at index 2"),
        (lambda: data(train=data().train.subset(torch.arange(0))), "train split of noise is empty"),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gets_the_same_batches():
    toy = data(workers=2)
    batches = toy.training_batches(batch_size=5, seed=0, device=torch.device("cuda"))
    images, targets = zip(*batches.epoch(0), strict=True)
    expected = train(toy)
    torch.testing.assert_close(torch.cat(images).cpu(), expected[0])
    assert torch.equal(torch.cat(targets).cpu(), expected[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_an_image_differ_and_the_first_is_that_of_a_single_one(workers):
    def first(views: int) -> Tensor:
        batches = data(workers=workers).training_batches(batch_size=5, seed=0, device=CPU, views=views)
        return list(batches.epoch(0))[0][0]

    assert torch.equal(first(2)[0], first(1)) and not torch.equal(first(2)[1], first(1))
    assert first(3).shape == (3, 5, 3, 16, 16)


def test_an_image_that_is_drawn_again_is_augmented_otherwise():
    split = StreamedSplit.of(Noise(12), torch.tensor([0] * 11 + [1]))
    drawn = data(12, train=split).training_batches(batch_size=12, seed=0, device=CPU, balanced=True)
    ((images, targets),) = drawn.epoch(0)
    rare = images[targets == 1]
    assert len(rare) >= 3
    assert len({image.numpy().tobytes() for image in rare}) == len(rare)
