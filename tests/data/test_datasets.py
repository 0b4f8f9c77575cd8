import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

import collegium
from collegium.api import as_data
from collegium.data import ImageData, Reading, StreamedData, from_datasets
from collegium.data.datasets import _spread
from collegium.data.labelled import file_stamps
from collegium.data.splits import hold_out
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
        (
            TensorDataset(torch.rand(4, 3, 4, 4), torch.arange(4) - 1),
            UsageError,
            "label -1 at index 0: .*ignore_label=-1",
        ),
        (
            TensorDataset(torch.rand(4, 4, 6, 3), torch.arange(4)),
            UsageError,
            r"item 0 of the train split: an image of shape .*permute\(2, 0, 1\)",
        ),
        (
            Pictures(transform=lambda image: np.asarray(image).transpose(2, 0, 1)[:, :5]),
            UsageError,
            r"item 0 of the train split: an image of shape .*transpose\(1, 2, 0\)",
        ),
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


class Numbered(Pictures):
    """The first item has a label of its own."""

    classes = None

    def __init__(self, first: object, told: bool, **options) -> None:
        super().__init__(**options)
        self.classes, self.first = None, first
        if told:
            self.targets = [first, *(k % 3 for k in range(1, self.count))]

    def __getitem__(self, index: int):
        image, label = super().__getitem__(index)
        return image, (self.first if index == 0 else label)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("sizes", [((9, 9),), UNEQUAL])
@pytest.mark.parametrize("first", [2**32 - 1, 10**9, np.uint32(2**32 - 1), 255, 2**62])
def test_memory_does_not_grow_with_a_label(told, sizes, first):
    train, test = Numbered(first, told, sizes=sizes), Pictures(6, sizes)
    tracemalloc.start()
    with pytest.raises(UsageError, match=f"label {first} at index 0, but only 4 different .*ignore_label={first}"):
        from_datasets(train, test)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    data = from_datasets(train, test, ignore_label=int(first))
    assert len(data.train) == 11 and data.train.targets.tolist() == [k % 3 for k in range(1, 12)]
    assert data.notes[0].endswith("to be ignored: 1 of 12 for train.")
    with pytest.raises(UsageError, match="no image with another label than 0"):
        from_datasets(Pictures(1), Pictures(3), ignore_label=0)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("first", [2**63, 2**64 - 1, np.uint64(2**64 - 1), True, 1.0, "cat", None, [1, 2], 10**400])
def test_labels_of_other_kinds_are_refused(told, first):
    with pytest.raises(UsageError, match="item 0 of the data set has the label .*expected an integer from 0") as error:
        from_datasets(Numbered(first, told), Pictures(6))
    assert len(str(error.value)) <= 300


def test_classes_that_begin_at_1_are_refused():
    counted = TensorDataset(torch.rand(4, 3, 4, 4), torch.arange(4) + 1)
    with pytest.raises(UsageError, match=r"labels of datasets begin at 1: number the classes from 0 \(labels - 1\)"):
        from_datasets(counted, counted)


def test_classes_that_training_lacks_are_said():
    data = from_datasets(Subset(Pictures(12), [0, 1, 3, 4]), Pictures(6))
    assert "no training images of class 2 (owl)" in data.notes[0] and "which training lacks" in data.notes[1]


@pytest.fixture
def photographs(tmp_path, write_images) -> Path:
    for k, name in enumerate("ab"):
        write_images(tmp_path / "train" / name, 300, (20, 20), seed=k)
        write_images(tmp_path / "test" / name, 3, (20, 30), seed=10 + k)
    return tmp_path


def of_files(root: Path, **options: object):
    return from_datasets(ImageFolder(str(root / "train")), ImageFolder(str(root / "test")), **options)


@pytest.mark.parametrize(
    "change",
    [
        lambda root, file: file.write_bytes(file.read_bytes() + b"0"),
        lambda root, file: os.utime(file, (1, 1)),
        lambda root, file: file.rename(file.with_name("other.png")),
        lambda root, file: shutil.copy(file, file.with_name("more.png")),
        lambda root, file: file.unlink(),
    ],
)
def test_the_fingerprint_of_files_follows_every_one_of_them(photographs, change):
    before = of_files(photographs).fingerprint()
    assert of_files(photographs).fingerprint() == before
    data = of_files(photographs)
    shown = {data.train.source.part.dataset.samples[k][0] for k in _spread(600, 256)}
    hidden = next(f for f in sorted((photographs / "train" / "a").iterdir()) if str(f) not in shown)  # not looked into
    change(photographs, hidden)
    assert of_files(photographs).fingerprint() != before


def test_what_is_held_out_of_files_follows_their_names(photographs, write_images):
    def parts():
        data = of_files(photographs)
        train, held = hold_out(data.train, 0.2, 0)
        files = data.train.source.part.dataset.samples
        return ({Path(files[k][0]).name for k in part.indices.tolist() if files[k][1] == 0} for part in (train, held))

    train, held = parts()
    for file in write_images(photographs / "train" / "b2", 40, (20, 20), seed=30):
        file.rename(photographs / "train" / "a" / f"0{file.name}")
    (photographs / "train" / "b2").rmdir()
    more_train, more_held = parts()
    assert train <= more_train and held <= more_held and len(more_held) > len(held)
    part = Subset(ImageFolder(str(photographs / "test")), [0, 4])
    whole = ConcatDataset([part, part])
    assert from_datasets(whole, part).train.keys.unique().numel() == 2


def test_fingerprints_of_large_folders_are_cheap(tmp_path):
    names = [str(tmp_path / f"{k}.png") for k in range(100_000)]
    begin = time.process_time()
    assert len(set(file_stamps(names, times=True).tolist())) == 100_000
    assert time.process_time() - begin < 5
