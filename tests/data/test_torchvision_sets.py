import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torch.utils.data import Dataset

from collegium.data import ImageData, StreamedData, load
from collegium.errors import DataError, UsageError


def noise(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


class ByTrain(Dataset):
    """As CIFAR10, MNIST."""

    classes = ["a", "b"]

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False) -> None:
        assert download
        self.train = train
        self.targets = [k % 2 for k in range(len(self))]

    def __len__(self) -> int:
        return 8 if self.train else 4

    def __getitem__(self, index):
        return noise(index + 100 * self.train), index % 2


class ByKind(ByTrain):
    """As EMNIST: `split` says something else, and `train` is handed on."""

    def __init__(self, root, split: str, **options) -> None:
        if split != "letters":
            raise ValueError(f"Unknown value '{split}' for argument split.")
        super().__init__(root, **options)


class BySplit(Dataset):
    """As SVHN, Flowers102."""

    known = ("train", "val", "test")
    size = (8, 8)

    def __init__(self, root, split="train", transform=None, download=False) -> None:
        if split not in self.known:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {self.known}.")
        self.split = self.known.index(split)

    def __len__(self) -> int:
        return 12 - 3 * self.split

    def __getitem__(self, index):
        return noise(index + 100 * self.split, (8 + index % self.size[0] // 8, 8)), index % 3


class TwoSplits(BySplit):
    known = ("trainval", "test")
    size = (16, 8)


class Whole(Dataset):
    """As EuroSAT."""

    def __init__(self, root, transform=None, download=False) -> None:
        pass

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index):
        return noise(index), index % 2


class Absent(Whole):
    def __init__(self, root, download=False) -> None:
        raise RuntimeError("Dataset not found or corrupted.\n You can use download=True to download it")


class Needing(Whole):
    def __init__(self, root, download=False) -> None:
        raise ModuleNotFoundError("No module named 'h5py'")


class Boxes(Whole):
    def __getitem__(self, index):
        return noise(index), {"boxes": []}


@pytest.fixture(autouse=True)
def sets(monkeypatch, tmp_path):
    """Stand for torchvision's own; COLLEGIUM_DATA is an empty folder."""
    kinds = (ByTrain, ByKind, BySplit, TwoSplits, Whole, Absent, Needing, Boxes)
    for kind in kinds:
        monkeypatch.setattr(torchvision.datasets, kind.__name__, kind, raising=False)
    names = (*torchvision.datasets.__all__, *(kind.__name__ for kind in kinds))
    monkeypatch.setattr(torchvision.datasets, "__all__", names)
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path))
    return tmp_path


def sizes(data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def test_sets_with_train_and_without():
    data = load("torchvision:ByTrain")
    assert isinstance(data, ImageData) and data.name == "ByTrain"
    assert sizes(data) == {"train": 8, "test": 4} and data.class_names == ("a", "b")
    with pytest.raises(UsageError, match="ByTrain has no splits to name: leave out test_split"):
        load("torchvision:ByTrain", test_split="val")


def test_sets_with_named_splits():
    data = load("torchvision:BySplit")
    assert sizes(data) == {"train": 12, "validation": 9, "test": 6} and data.class_names == ("0", "1", "2")
    assert sizes(load("torchvision:BySplit", train_split="train+val")) == {"train": 21, "test": 6}
    assert sizes(load("torchvision:BySplit", test_split="val")) == {"train": 12, "test": 9}
    with pytest.raises(UsageError, match="has no split 'extra': Unknown value .* Valid values"):
        load("torchvision:BySplit", train_split="extra")


def test_sets_with_other_splits_and_unequal_images():
    data = load("torchvision:TwoSplits", image_size=8, workers=0)
    assert isinstance(data, StreamedData) and sizes(data) == {"train": 12, "test": 9}


def test_sets_without_splits():
    data = load("torchvision:Whole", test_share=0.3)
    assert sizes(data) == {"train": 14, "test": 6} and "held out of training: they are the test images" in data.notes[0]
    again = load("torchvision:Whole", test_share=0.3, split_seed=1)
    assert not torch.equal(again.test.images, data.test.images)


def test_other_arguments_of_the_class():
    assert sizes(load("torchvision:ByKind", arguments={"split": "letters"})) == {"train": 8, "test": 4}
    with pytest.raises(UsageError, match="ByKind needs split: give them in arguments"):
        load("torchvision:ByKind")
    with pytest.raises(UsageError, match="takes no argument 'spilt'; did you mean 'split'"):
        load("torchvision:ByKind", arguments={"spilt": "letters"})


def test_pixels_are_read_once(sets, monkeypatch):
    first = load("torchvision:BySplit")
    reads = []
    get = BySplit.__getitem__
    monkeypatch.setattr(BySplit, "__getitem__", lambda self, index: reads.append(index) or get(self, index))
    assert load("torchvision:BySplit").fingerprint() == first.fingerprint()
    monkeypatch.setattr("collegium.data.decoding.reading._gather", None)
    assert load("torchvision:BySplit").fingerprint() == first.fingerprint()
    assert [path.name for path in sets.iterdir()] == [".collegium"]


def test_pixels_are_read_again_where_the_files_hold_others(sets, monkeypatch):
    before = load("torchvision:ByTrain")
    monkeypatch.setattr(ByTrain, "__getitem__", lambda self, index: (noise(index + 7), index % 2))
    after = load("torchvision:ByTrain")
    assert after.fingerprint() != before.fingerprint()
    assert (after.test.images[1].permute(1, 2, 0).numpy() == np.asarray(noise(8))).all()


@pytest.mark.parametrize("label", [2**32 - 1, 255, -1])
def test_memory_does_not_grow_with_a_label(monkeypatch, label):
    monkeypatch.setattr(ByTrain, "classes", None)
    monkeypatch.setattr(ByTrain, "__getitem__", lambda self, k: (noise(k), label if k == 3 else k % 2))
    with pytest.raises(UsageError, match=f"train split of ByTrain has label {label} at index 3"):
        load("torchvision:ByTrain")


def test_what_is_held_out_of_a_folder_follows_file_names(tmp_path, write_images):
    for k, name in enumerate("ab"):
        write_images(tmp_path / "own" / name, 30, seed=k)
    options = {"root": str(tmp_path / "own"), "memory": False}
    before = load("torchvision:ImageFolder", **options)
    assert "on average, by file name" in before.notes[0]
    write_images(tmp_path / "own" / "a", 60)
    after = load("torchvision:ImageFolder", **options)
    assert after.fingerprint() != before.fingerprint()
    for split in ("train", "test"):
        files = ({d.train.source.part.dataset.samples[k][0] for k in d.splits[split].indices} for d in (before, after))
        assert next(files) <= next(files)


def test_letters_and_digits_are_not_mirrored(monkeypatch):
    assert load("torchvision:ByTrain").augmentation.flip
    monkeypatch.setattr("collegium.data.torchvision_sets._DIRECTED", ("ByTrain",))
    assert not load("torchvision:ByTrain").augmentation.flip
    assert load("torchvision:ByTrain", flip=True).augmentation.flip


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("FashionMnist", UsageError, "no data set 'FashionMnist'; did you mean 'FashionMNIST'"),
        ("Absent", DataError, "Absent cannot be had under .*: Dataset not found or corrupted. You can"),
        ("Needing", UsageError, "needs another package: No module named 'h5py'"),
        ("Boxes", UsageError, "expected an integer from 0"),
    ],
)
def test_what_cannot_be_had(name, error, message):
    with pytest.raises(error, match=message):
        load(f"torchvision:{name}")


def test_every_class_of_torchvision_is_understood():
    from collegium.data.torchvision_sets import _class, _parameters

    for name in ("MNIST", "EMNIST", "FashionMNIST", "SVHN", "Flowers102", "STL10", "Food101", "PCAM", "EuroSAT"):
        parameters = _parameters(_class(name))
        assert "root" in parameters and "download" in parameters
    assert "train" in _parameters(_class("EMNIST")) and "train" not in _parameters(_class("SVHN"))


def test_a_folder_of_the_user_s_own_stays_as_it_is_and_may_change(tmp_path, write_images):
    for name in "ab":
        write_images(tmp_path / name, 5, (8, 8))
    first = load("torchvision:ImageFolder", root=str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    noise(99).save(tmp_path / "a" / "00.png")
    assert load("torchvision:ImageFolder", root=str(tmp_path)).fingerprint() != first.fingerprint()
