import hashlib
import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.data import Augmentation, cifar
from collegium.errors import DataError

OLD_MODULE, NEW_MODULE = b"numpy.core.multiarray", b"numpy._core.multiarray"


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as Python 2 wrote its strings, which is how the official files are made."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, obj: bytes) -> None:
        short = len(obj) < 256
        self.write((b"U" + bytes([len(obj)]) if short else b"T" + struct.pack("<i", len(obj))) + obj)

    dispatch[bytes] = save_string


def official(content: dict[bytes, object]) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(NEW_MODULE, OLD_MODULE)


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


CIFAR10_FILES = {
    **{
        f"data_batch_{i}": official({b"data": pixels(4, i), b"labels": [i % 2, 0, 1, 0], b"batch_label": b"x"})
        for i in range(1, 6)
    },
    "test_batch": official({b"data": pixels(2, 6), b"labels": [1, 0]}),
    "batches.meta": official({b"label_names": [b"plane", b"car"], b"num_vis": 3072}),
}
CIFAR100_FILES = {
    "train": official({b"data": pixels(5, 1), b"fine_labels": [0, 1, 2, 0, 1], b"coarse_labels": [7] * 5}),
    "test": official({b"data": pixels(2, 2), b"fine_labels": [2, 1], b"coarse_labels": [7] * 2}),
    "meta": official({b"fine_label_names": [b"apple", b"bee", b"can"], b"coarse_label_names": [b"y"] * 8}),
}


def published(files: cifar._Files, contents: dict[str, bytes], folder: Path) -> cifar._Files:
    """The table `files` for an archive with `contents`, made under `folder`."""
    archive = folder / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{files.folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

    def checksums(names: dict[str, str]) -> dict[str, str]:
        return {name: hashlib.md5(contents[name]).hexdigest() for name in names}

    return replace(
        files,
        url=archive.as_uri(),
        archive_md5=hashlib.md5(archive.read_bytes()).hexdigest(),
        train=checksums(files.train),
        test=checksums(files.test),
        meta=checksums(files.meta),
    )


@pytest.fixture
def small(monkeypatch, tmp_path) -> Path:
    """Small archives stand for the published ones; COLLEGIUM_DATA is an empty folder, which is returned."""
    for attribute, contents in {"_CIFAR10": CIFAR10_FILES, "_CIFAR100": CIFAR100_FILES}.items():
        source = tmp_path / attribute
        source.mkdir()
        monkeypatch.setattr(cifar, attribute, published(getattr(cifar, attribute), contents, source))
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("COLLEGIUM_DATA", str(root))
    return root


def test_cifar10_is_downloaded_once_and_read_in_the_order_of_its_files(small, monkeypatch):
    data = cifar.cifar10()
    assert (len(data.train), len(data.test), data.class_names) == (20, 2, ("plane", "car"))
    rows = np.concatenate([pixels(4, i) for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert (data.train.images.numpy() == rows).all()
    assert data.train.targets.tolist() == [1, 0, 1, 0, 0, 0, 1, 0] * 2 + [1, 0, 1, 0]
    assert (data.test.images.numpy() == pixels(2, 6).reshape(-1, 3, 32, 32)).all()
    assert [path.name for path in small.iterdir()] == ["cifar-10-batches-py"]
    monkeypatch.setattr(cifar, "fetch_folder", None)
    again = cifar.cifar10(download=False)
    assert torch.equal(again.train.images, data.train.images)


def test_cifar100_with_its_coarse_labels(small):
    data = cifar.cifar100(labels="coarse")
    assert data.class_names == ("y",) * 8 and data.train.targets.tolist() == [7] * 5
    assert data.train.true_targets is None


def test_cifar100_as_people_labelled_it(small, monkeypatch):
    said = torch.tensor([0, 1, 1, 1, 1])
    monkeypatch.setattr(cifar, "human_labels", lambda *_, **__: (said, torch.tensor([0, 1, 2, 0, 1])))
    data = cifar.cifar100(labels="human")
    assert data.train.targets.tolist() == said.tolist() and data.train.true_targets.tolist() == [0, 1, 2, 0, 1]
    assert data.test.targets.tolist() == [2, 1] and data.test.true_targets is None
    monkeypatch.setattr(cifar, "human_labels", lambda *_, **__: (said, said))
    with pytest.raises(DataError, match="not in the order of CIFAR-100's images"):
        cifar.cifar100(labels="human")


def test_cifar100_has_fine_labels_and_the_ffl_recipe(small, tmp_path):
    data = cifar.cifar100(root=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "cifar-100-python" / "train").is_file()
    assert data.class_names == ("apple", "bee", "can")
    assert data.train.targets.tolist() == [0, 1, 2, 0, 1]
    assert data.train.images.is_contiguous(memory_format=torch.channels_last)
    assert data.augmentation == Augmentation(4, "reflect", flip=True)
    assert data.mean == pytest.approx((0.50706, 0.48667, 0.44078), abs=1e-5)
    assert data.std == pytest.approx((0.26745, 0.25647, 0.27608), abs=1e-5)


def test_absent_files_that_may_not_be_downloaded(small):
    with pytest.raises(DataError, match=f"cifar100 is not at {small}/cifar-100-python: allow.*COLLEGIUM_DATA"):
        cifar.cifar100(download=False)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_is_named_with_both_checksums_and_the_remedy(small, name):
    cifar.cifar100()
    path = small / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-1])
    found = hashlib.md5(path.read_bytes()).hexdigest()
    expected = hashlib.md5(CIFAR100_FILES[name]).hexdigest()
    with pytest.raises(DataError, match=f"{path} is truncated.*MD5 is {found}, expected {expected}; delete"):
        cifar.cifar100()


def test_a_missing_file_is_named(small):
    cifar.cifar100()
    (small / "cifar-100-python" / "test").unlink()
    with pytest.raises(DataError, match="cifar-100-python/test cannot be read.*delete"):
        cifar.cifar100()


def test_a_broken_archive_leaves_nothing_behind(small, monkeypatch):
    monkeypatch.setattr(cifar, "_CIFAR10", replace(cifar._CIFAR10, archive_md5="0" * 32))
    with pytest.raises(DataError, match="expected 0{32}"):
        cifar.cifar10()
    assert list(small.iterdir()) == []


@pytest.fixture(scope="module")
def real_root() -> str:
    root = os.environ.get("COLLEGIUM_DATA")
    if not root or not Path(root, "cifar-100-python").is_dir():
        pytest.skip("COLLEGIUM_DATA does not name a folder that holds cifar-100-python")
    return root


@pytest.mark.cifar100
def test_real_cifar100(real_root):
    data = cifar.cifar100(root=real_root, download=False)
    assert (data.train.targets.bincount() == 500).all() and (data.test.targets.bincount() == 100).all()
    assert (data.num_classes, data.image_size, data.class_names[0]) == (100, (32, 32), "apple")
    torchvision = pytest.importorskip("torchvision")
    for train, split in ((True, data.train), (False, data.test)):
        images = torchvision.datasets.CIFAR100(real_root, train=train)
        image, label = images[0]
        assert (split.images[0].permute(1, 2, 0).numpy() == np.asarray(image)).all()
        assert split.targets.tolist() == images.targets and label == split.targets[0]
        assert data.class_names == tuple(images.classes)
