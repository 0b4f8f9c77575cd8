import hashlib
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from collegium.data import Augmentation, cinic10
from collegium.errors import DataError

module = sys.modules["collegium.data.cinic10"]


@pytest.fixture
def small(monkeypatch, tmp_path, write_images) -> Path:
    """A small archive stands for the published one; COLLEGIUM_DATA is an empty folder, which is returned."""
    published = replace(module._PUBLISHED, classes=("bird", "cat"), per_class=3)
    archive = tmp_path / "CINIC-10.tar.gz"
    for k, split in enumerate(("train", "valid", "test")):
        for c, name in enumerate(published.classes):
            write_images(tmp_path / "source" / split / name, 3, (32, 32), seed=10 * k + c)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted((tmp_path / "source").iterdir()):
            tar.add(path, path.name)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "_PUBLISHED", replace(published, url=archive.as_uri(), md5=md5))
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("COLLEGIUM_DATA", str(root))
    return root


def test_it_is_downloaded_and_decoded_once(small, monkeypatch):
    data = cinic10()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "validation": 6, "test": 6}
    assert data.class_names == ("bird", "cat") and data.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.augmentation == Augmentation(4, "reflect", True) and data.image_shape == (3, 32, 32)
    assert [path.name for path in small.iterdir()] == ["CINIC-10"]
    monkeypatch.setattr("collegium.data.decoding.image_files.read_image", None)
    assert cinic10(download=False).fingerprint() == data.fingerprint()


def test_validation_images_can_be_joined(small):
    apart, joined = cinic10(), cinic10(train_with_validation=True)
    assert joined.validation is None
    assert torch.equal(joined.train.images, torch.cat([apart.train.images, apart.validation.images]))
    assert torch.equal(joined.train.targets, torch.cat([apart.train.targets, apart.validation.targets]))
    assert joined.train.images.is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_all_there_is_told(small):
    with pytest.raises(DataError, match=f"cinic10 is not at {small}/CINIC-10: allow the download"):
        cinic10(download=False)
    cinic10()
    (small / "CINIC-10" / "valid" / "cat" / "01.png").unlink()
    with pytest.raises(DataError, match="valid/cat has 2 images, expected 3: delete"):
        cinic10()


def test_the_published_numbers():
    published = module._Published()
    assert len(published.classes) == 10 and published.classes == tuple(sorted(published.classes))
    assert len(published.classes) * published.per_class == 90_000
