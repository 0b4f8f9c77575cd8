import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

import collegium
from collegium.api import as_data
from collegium.data import ImageData, Reading, StreamedData, from_datasets
from collegium.errors import DataError, UsageError

CPU = torch.device("cpu")


class Pictures(Dataset):
    """PIL images, of sizes as given, as (image, label)."""

    def __init__(self, count: int = 12, sizes=((9, 9),), transform=None, seed: int = 0, mode: str = "RGB") -> None:
        self.count, self.sizes, self.transform, self.seed, self.mode = count, sizes, transform, seed, mode
        self.classes = ["cat", "dog", "owl"]
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        self.reads += 1
        width, height = self.sizes[index % len(self.sizes)]
        array = np.random.default_rng([self.seed, index]).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(array).convert(self.mode)
        return (self.transform(image) if self.transform else image), index % 3


class Labelled(Pictures):
    def __init__(self, *arguments, targets, **options) -> None:
        super().__init__(*arguments, **options)
        self.targets = targets


def unit(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def brighter(image: Image.Image) -> torch.Tensor:
    """Draws its own random change."""
    return (unit(image) * torch.rand(())).clamp(0, 1)


UNEQUAL = ((20, 30), (25, 25))


def test_equal_small_images_go_to_memory():
    data = from_datasets(Pictures(), Pictures(6, seed=1))
    assert isinstance(data, ImageData)
    assert (data.class_names, data.image_shape, len(data.test)) == (("cat", "dog", "owl"), (3, 9, 9), 6)
    assert data.train.targets.tolist() == [0, 1, 2] * 4
    assert (data.train.images[5].permute(1, 2, 0).numpy() == np.asarray(Pictures()[5][0])).all()
    assert data.fingerprint() == from_datasets(Pictures(), Pictures(6, seed=1)).fingerprint()


def test_others_are_decoded_while_training():
    data = from_datasets(Pictures(sizes=UNEQUAL), Pictures(6, UNEQUAL), reading=Reading(image_size=8, workers=0))
    assert isinstance(data, StreamedData) and data.image_shape == (3, 8, 8)
    images, targets = next(data.training_batches(batch_size=5, seed=0, device=CPU).epoch(0))
    assert images.shape == (5, 3, 8, 8) and targets.dtype == torch.int64
    assert data.pictures(data.test).shape == (6, 3, 8, 8)
    prints = [
        from_datasets(Pictures(sizes=UNEQUAL, seed=seed), Pictures(6, UNEQUAL)).fingerprint() for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_one_image_of_another_size_among_many_is_found_in_time():
    sizes = ((9, 9),) * 100 + ((9, 8),)
    assert isinstance(from_datasets(Pictures(150, sizes), Pictures(3)), StreamedData)
    with pytest.raises(UsageError, match=r"not all of one shape.*give image_size"):
        from_datasets(Pictures(150, sizes), Pictures(3), reading=Reading(memory=True))
    data = from_datasets(Pictures(150, sizes), Pictures(3), reading=Reading(memory=True, image_size=8))
    assert isinstance(data, ImageData) and data.image_size == (8, 8)


@pytest.mark.parametrize("kind", [lambda x: x, np.asarray, unit, lambda image: np.asarray(image) / np.float32(255)])
def test_every_kind_of_image(kind):
    data = from_datasets(Pictures(transform=kind), Pictures(6))
    assert data.fingerprint() == from_datasets(Pictures(), Pictures(6)).fingerprint()


def test_channels():
    assert from_datasets(Pictures(mode="L"), Pictures(6, mode="L")).in_channels == 1
    assert from_datasets(Pictures(mode="L"), Pictures(6)).in_channels == 3
    assert from_datasets(Pictures(), Pictures(6), channels=1).in_channels == 1
    many = TensorDataset(torch.randint(0, 256, (6, 5, 4, 4), dtype=torch.uint8), torch.arange(6) % 2)
    assert from_datasets(many, many).in_channels == 5
    with pytest.raises(UsageError, match=r"have \[3, 5\] channels"):
        from_datasets(many, Pictures(6, ((4, 4),)))


@pytest.mark.parametrize("targets", [[0, 1, 2] * 4, np.array([0, 1, 2] * 4, np.int32), torch.arange(12) % 3])
def test_labels_that_the_data_set_tells_are_believed_where_its_items_agree(targets):
    sizes = ((20, 30),) * 50
    data = from_datasets(Labelled(12, sizes, targets=targets), Pictures(6, sizes), reading=Reading(memory=False))
    assert data.train.targets.tolist() == [0, 1, 2] * 4
    wrong = Labelled(12, targets=[2] * 12)
    assert from_datasets(wrong, Pictures(6)).train.targets.tolist() == [0, 1, 2] * 4


def test_parts_and_sums_of_data_sets():
    whole = Labelled(12, targets=[0, 1, 2] * 4)
    data = from_datasets(Subset(whole, [1, 2, 3]), ConcatDataset([whole, Pictures(6, seed=1)]))
    assert data.train.targets.tolist() == [1, 2, 0] and len(data.test) == 18
    assert data.class_names == ("cat", "dog", "owl")
    tensors = TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2)
    assert from_datasets(tensors, tensors).class_names == ("0", "1")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_augments_its_images_itself_is_left_to_it(workers):
    state = torch.get_rng_state()
    data = from_datasets(Pictures(transform=brighter), Pictures(6, transform=unit), reading=Reading(workers=workers))
    assert isinstance(data, StreamedData) and data.views.ready and data.image_size == (9, 9)
    epochs = [
        torch.cat([images for images, _ in data.training_batches(batch_size=4, seed=0, device=CPU).epoch(epoch)])
        for epoch in (0, 0, 1)
    ]
    assert torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0], epochs[2])
    scored = next(data.scoring_batches(data.test, batch_size=6, device=CPU).epoch(0))[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    torch.testing.assert_close(scored[2], (unit(Pictures(6)[2][0]) - mean) / std)
    assert torch.equal(torch.get_rng_state(), state)
    assert data.fingerprint() == data.fingerprint()


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


class Failing(Pictures):
    def __getitem__(self, index: int):
        if index == 5:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (
            Pictures(transform=lambda image: unit(image) * 4 - 2),
            UsageError,
            "^item 0 of the train split: .*leave the norm",
        ),
        (Endless(), UsageError, "an? Endless is no data set with a length"),
        (Pictures(0), UsageError, "train split of datasets is empty"),
        (Failing(), DataError, r"^item 5 of the data set cannot be read .OSError: the disk is gone."),
        ([(Pictures()[0][0], 0)], UsageError, "a list is no data set"),
        (
            TensorDataset(torch.rand(4, 3, 4, 4)),
            UsageError,
            r"item 0 .* is a tuple: expected \(image, label",
        ),
        (TensorDataset(torch.rand(4, 3, 4, 4), torch.rand(4)), UsageError, "expected an integer from 0"),
        (TensorDataset(torch.rand(4, 3, 4, 4), torch.eye(4)), UsageError, "expected an integer from 0"),
        (TensorDataset(torch.rand(4, 3, 4, 4), torch.arange(4) - 1), UsageError, "label -1 at index 0"),
        (Pictures(sizes=UNEQUAL, transform=brighter), UsageError, "must all have one size"),
    ],
)
def test_what_does_not_fit_is_told(train, error, message):
    with pytest.raises(error, match=message):
        from_datasets(train, Pictures(6))


def test_images_that_score_must_not_change():
    with pytest.raises(UsageError, match="test split of datasets gives another image each time"):
        from_datasets(Pictures(), Pictures(6, transform=brighter))


def test_data_sets_from_python_train(tmp_path):
    data = (Pictures(24), Pictures(6, seed=1))
    call = dict(method="dml", peers="2xresnet8", run=tmp_path / "run", epochs=1, batch_size=8, quiet=True, device="cpu")
    result = collegium.train(data=data, **call)
    assert result["training_images"] == 24
    assert collegium.evaluate(tmp_path / "run", data=data)["peer0"] == result["predictors"]["peer0"]["last"]


@pytest.mark.parametrize("data", [np.zeros((2, 3)), (np.zeros(3), np.zeros(3)), (Pictures(), [1]), "ab", (Pictures(),)])
def test_other_things_are_no_data(data):
    with pytest.raises(UsageError, match="data must be a name, an ImageData, .*train_dataset"):
        as_data(data)
