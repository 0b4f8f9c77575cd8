import os
import sys

import numpy as np
import pytest
from PIL import Image

from collegium.data import ImageData, StreamedData, from_datasets, load
from collegium.errors import DataError, UsageError


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"need the package datasets: .*pip install -e '.\[huggingface\]'"):
        load("huggingface:mnist")


def pictures(count: int, seed: int, *, other=None, size: int = 8, names=("cat", "dog")):
    datasets = pytest.importorskip("datasets", reason="needs the extra [huggingface]")
    generator = np.random.default_rng(seed)
    content = {
        "img": [
            Image.fromarray(generator.integers(0, 256, (size, size + k % 2 * (size > 8), 3), np.uint8))
            for k in range(count)
        ],
        "label": [k % 2 for k in range(count)],
        "text": ["nothing"] * count,
    }
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(names)), "text": datasets.Value("string")}
    if other:
        content |= {other: content["label"]}
        kinds |= {other: datasets.ClassLabel(names=list(names))}
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """hub(train=..., ...): what the Hub has, whatever the name."""
    datasets = pytest.importorskip("datasets", reason="needs the extra [huggingface]")
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path))

    def offer(**splits) -> None:
        asked = []
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or datasets.DatasetDict(splits)
        )
        return asked

    return offer


def test_columns_and_splits_are_found(hub, monkeypatch):
    asked = hub(train=pictures(10, 0), test=pictures(6, 1), validation=pictures(4, 2))
    data = load("huggingface:someone/pets", config="small", revision="v1")
    assert asked == [(("someone/pets", "small"), {"revision": "v1"})]
    assert isinstance(data, ImageData) and (data.name, data.class_names) == ("pets", ("cat", "dog"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 10, "validation": 4, "test": 6}
    assert (data.train.images[3].permute(1, 2, 0).numpy() == np.asarray(pictures(10, 0)[3]["img"])).all()
    monkeypatch.setattr("collegium.data.decoding.reading._gather", None)
    assert load("huggingface:someone/pets", config="small").fingerprint() == data.fingerprint()


def test_splits_can_be_named_joined_and_held_out(hub):
    hub(train=pictures(10, 0), validation=pictures(4, 1), extra=pictures(6, 2))
    assert len(load("huggingface:pets").test) == 4
    data = load("huggingface:pets", train_split="train+extra")
    assert len(data.train) == 16 and len(data.test) == 4
    assert len(load("huggingface:pets", test_split="extra", validation_split="validation").validation) == 4
    with pytest.raises(UsageError, match="pets has no split 'dev'; its splits are: train, validation, extra"):
        load("huggingface:pets", test_split="dev")
    hub(train=pictures(10, 0))
    data = load("huggingface:pets", test_share=0.4)
    assert len(data.train) == 6 and len(data.test) == 4 and "held out" in data.notes[0]


def test_columns_can_be_named(hub):
    hub(train=pictures(10, 0, other="breed"), test=pictures(4, 1, other="breed"))
    with pytest.raises(UsageError, match=r"several columns for it .label, breed.: say which to take as label_column"):
        load("huggingface:pets")
    assert len(load("huggingface:pets", label_column="breed").train) == 10
    with pytest.raises(UsageError, match="no column 'kind' for label_column; its columns are: img, label"):
        load("huggingface:pets", label_column="kind")


def test_large_images_are_decoded_while_training(hub):
    hub(train=pictures(8, 0, size=140), test=pictures(4, 1, size=140))
    data = load("huggingface:pets", image_size=16, workers=0)
    assert isinstance(data, StreamedData) and data.pictures(data.test).shape == (4, 3, 16, 16)


def test_data_sets_from_python():
    data = from_datasets(pictures(10, 0), pictures(6, 1))
    assert data.class_names == ("cat", "dog") and data.train.targets.tolist() == [0, 1] * 5


def test_what_the_hub_does_not_have(hub, monkeypatch):
    hub()
    datasets = sys.modules["datasets"]

    def absent(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(DataError, match="nobody/nothing cannot be had .Dataset .* doesn't exist on the Hub."):
        load("huggingface:nobody/nothing")


@pytest.fixture
def pets(monkeypatch, tmp_path, write_images):
    """A local folder that `datasets` reads, of two classes with 30 pictures each."""
    pytest.importorskip("datasets", reason="needs the extra [huggingface]")
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path / "own"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for k, name in enumerate("ab"):
        write_images(tmp_path / "pets" / name, 30, seed=k)
    return tmp_path / "pets"


def test_what_is_held_out_of_a_local_folder_follows_file_names(pets, write_images):
    def pixels(split):
        return {image.numpy().tobytes() for image in split.images}

    data = load(f"huggingface:{pets}")
    assert "20 % of each class on average, by file name" in data.notes[0]
    for file in write_images(pets.parent / "more", 15, seed=9):
        file.rename(pets / "a" / f"0{file.name}")
    more = load(f"huggingface:{pets}")
    assert len(more.train) + len(more.test) == 75 and more.fingerprint() != data.fingerprint()
    assert pixels(data.train) <= pixels(more.train) and pixels(data.test) <= pixels(more.test)


def test_a_pipe_in_a_local_folder_is_refused(pets):
    os.mkfifo(pets / "a" / "x.png")
    with pytest.raises(DataError, match="a/x.png is no plain file: remove it"):
        load(f"huggingface:{pets}")


def test_unlabelled_images_can_be_left_out(hub):
    datasets = pytest.importorskip("datasets", reason="needs the extra [huggingface]")
    content = pictures(12, 0).to_dict()
    content["label"] = [0, 1, -1] * 4
    unlabelled = datasets.Dataset.from_dict(content, features=pictures(2, 0).features)
    hub(train=unlabelled, test=pictures(6, 1))
    with pytest.raises(UsageError, match=r"train split of pets has label -1 at index 2: .*\(ignore_label\)"):
        load("huggingface:someone/pets")
    data = load("huggingface:someone/pets", ignore_label=-1)
    assert len(data.train) == 8 and data.notes[0].endswith("to be ignored: 4 of 12 for train.")
