import json
import re
import sys
from pathlib import Path

import pytest

from collegium.data import StreamedData, imagenet
from collegium.errors import DataError, UsageError

module = sys.modules["collegium.data.imagenet"]


@pytest.fixture
def root(tmp_path, write_images) -> Path:
    for k, synset in enumerate(("n01", "n02")):
        write_images(tmp_path / "train" / synset, 3, (30, 40), seed=k, ending="JPEG")
        write_images(tmp_path / "val" / synset, 2, (40, 30), seed=9 + k, ending="JPEG")
    return tmp_path


def test_the_validation_images_score(root):
    data = imagenet(root=str(root), image_size=32, augment="trivialaugment", workers=0)
    assert isinstance(data, StreamedData) and data.name == "imagenet"
    assert (len(data.train), len(data.test), data.validation) == (6, 4, None)
    assert data.class_names == ("n01", "n02") and data.notes == ()
    assert data.image_shape == (3, 32, 32) and data.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_synset_mapping.txt", "n01 tench, Tinca\nn02 gold fish, other\n"),
        ("words.txt", "n02\tgold fish\nn01\ttench\nn77\tmore"),
        ("imagenet_class_index.json", json.dumps({"0": ["n01", "tench"], "1": ["n02", "gold fish"]})),
    ],
)
def test_names_are_read_where_a_file_has_them(root, name, content):
    (root / name).write_text(content)
    assert imagenet(root=str(root)).class_names == ("tench", "gold fish")
    if name.endswith("json"):
        (root / name).write_text("{")
        with pytest.raises(DataError, match="class names in .*json cannot be read"):
            imagenet(root=str(root))


def test_another_count_than_that_of_ilsvrc_is_told(root, monkeypatch):
    monkeypatch.setattr(module, "_CLASSES", 2)
    monkeypatch.setattr(module, "_COUNTS", {"train": 7, "test": 4})
    assert imagenet(root=str(root)).notes == (f"{root} has 6 images for train, ILSVRC 2012 has 7.",)


def test_what_to_do_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path))
    place = re.escape(str(tmp_path / "imagenet"))
    with pytest.raises(DataError, match=f"ImageNet is not at {place} .train has no class folders.: request it at"):
        imagenet()
    (tmp_path / "imagenet" / "train" / "n01").mkdir(parents=True)
    (tmp_path / "imagenet" / "val").mkdir()
    with pytest.raises(DataError, match="val has no class folders"):
        imagenet()


def test_wrong_options_are_found_before_any_file_is_read(root):
    with pytest.raises(UsageError, match="erasing is 2.0"):
        imagenet(root=str(root), erasing=2.0)
