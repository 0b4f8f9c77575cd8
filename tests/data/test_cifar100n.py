import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import collegium.data as data
from collegium.data import cifar100n
from collegium.errors import DataError

LABELS = {
    "clean_label": np.array([4, 2, 9]),
    "noisy_label": np.array([4, 3, 8]),
    "clean_coarse_label": [1, 0, 1],
    "noisy_coarse_label": [1, 1, 0],
}


def packed(content: object) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("CIFAR-100_human/data.pkl", pickle.dumps(content, 2))
    return file.getvalue()


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """Makes a file stand for the published one: its place and checksum."""

    def publish(raw: bytes) -> Path:
        source = tmp_path / "published.pt"
        source.write_bytes(raw)
        monkeypatch.setattr(cifar100n, "_URL", source.as_uri())
        monkeypatch.setattr(cifar100n, "_MD5", hashlib.md5(raw).hexdigest())
        return source

    return publish


def test_the_file_is_downloaded_once_and_read(publish, tmp_path):
    source = publish(packed(LABELS))
    said, truth = cifar100n.human_labels(tmp_path / "root", coarse=False)
    assert (said.tolist(), truth.tolist(), said.dtype) == ([4, 3, 8], [4, 2, 9], torch.int64)
    source.unlink()
    said, truth = cifar100n.human_labels(tmp_path / "root", coarse=True, download=False)
    assert (said.tolist(), truth.tolist()) == ([1, 1, 0], [1, 0, 1])


def test_without_the_file_it_is_said_what_to_do(tmp_path):
    with pytest.raises(DataError, match="not at .*CIFAR-100_human.pt: allow the download, or put"):
        cifar100n.human_labels(tmp_path, coarse=True, download=False)


def test_another_file_is_not_read(publish, tmp_path):
    publish(packed(LABELS))
    (tmp_path / "CIFAR-100_human.pt").write_bytes(packed({}))
    with pytest.raises(DataError, match="truncated or altered.*delete .*CIFAR-100_human.pt and repeat"):
        cifar100n.human_labels(tmp_path, coarse=True)


@pytest.mark.parametrize("content", [{"clean_label": [1]}, {"noisy_label": os.system}])
def test_what_is_no_file_of_labels_is_refused_and_nothing_runs(publish, tmp_path, content):
    publish(packed(content))
    with pytest.raises(DataError, match="cannot be read .*: delete it"):
        cifar100n.human_labels(tmp_path, coarse=False)


@pytest.fixture(scope="module")
def real_root() -> str:
    root = os.environ.get("COLLEGIUM_DATA")
    if not root or not Path(root, "CIFAR-100_human.pt").is_file():
        pytest.skip("COLLEGIUM_DATA does not name a folder that holds CIFAR-100_human.pt")
    return root


@pytest.mark.cifar100
@pytest.mark.parametrize(("labels", "right", "share"), [("human", "fine", 0.402), ("human_coarse", "coarse", 0.264)])
def test_real_labels(real_root, labels, right, share):
    said, clean = (data.load("cifar100", labels=kind, root=real_root, download=False) for kind in (labels, right))
    assert torch.equal(said.train.true_targets, clean.train.targets)
    assert data.wrong_labels(said) == pytest.approx(share, abs=5e-4)
    assert torch.equal(said.test.targets, clean.test.targets)
    assert said.class_names == clean.class_names
    few, few_clean = (
        data.load("cifar100", labels=kind, per_class=5, root=real_root, download=False) for kind in (labels, right)
    )
    assert torch.equal(few.train.images, few_clean.train.images)
    assert f"of the {5 * clean.num_classes} training labels are wrong" in few.notes[0]
