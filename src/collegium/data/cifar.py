"""CIFAR-10 and CIFAR-100 from their official Python files.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from collegium.errors import DataError

from .batches import Augmentation, Split
from .cifar100n import human_labels
from .download import data_root, fetch_folder, read_checked
from .images import ImageData
from .safe_pickle import ArrayUnpickler

_AUGMENTATION = Augmentation(padding=4, padding_mode="reflect", flip=True)
_SIDE = 32


@dataclass(frozen=True)
class _Files:
    """The published files of one data set, with their MD5 checksums."""

    url: str
    archive_md5: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: bytes  # the key of the labels in a file of images
    names: bytes  # the key of the class names in meta
    mean: tuple[float, ...]
    std: tuple[float, ...]


_CIFAR10 = _Files(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels=b"labels",
    names=b"label_names",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)

_CIFAR100 = _Files(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels=b"fine_labels",
    names=b"fine_label_names",
    mean=(129.3 / 255, 124.1 / 255, 112.4 / 255),
    std=(68.2 / 255, 65.4 / 255, 70.4 / 255),
)
Labels: TypeAlias = Literal["fine", "coarse", "human", "human_coarse"]


def cifar10(*, root: str | None = None, download: bool = True) -> ImageData:
    """CIFAR-10: 50000 training and 10000 test images of 32 x 32 pixels in 10 classes.

    Args:
        root: the folder with cifar-10-batches-py; the default is the environment's COLLEGIUM_DATA, else
            ~/.cache/collegium.
        download: download the files (163 MiB) where they are not there.

    Raises:
        DataError: the files are not there and are not to be, or cannot be, downloaded, or a file fails its
            checksum.
    """
    return _load("cifar10", _CIFAR10, root=root, download=download)


def cifar100(*, labels: Labels = "fine", root: str | None = None, download: bool = True) -> ImageData:
    """CIFAR-100: 50000 training and 10000 test images of 32 x 32 pixels in 100 classes, or 20 coarse ones.

    Args:
        labels: the right ones ("fine", "coarse"), or those that people gave to the training images (CIFAR-100N:
            "human", 40.2 % wrong; "human_coarse", 26.4 % wrong). Test labels are right always. Images are held out
            and taken by their right labels, so the same seed gives the same images.
        root: the folder with cifar-100-python; the default is the environment's COLLEGIUM_DATA, else
            ~/.cache/collegium.
        download: download the files (161 MiB) where they are not there.

    Raises:
        DataError: the files are not there and are not to be, or cannot be, downloaded, or a file fails its
            checksum.
    """
    coarse = labels.endswith("coarse")
    files = replace(_CIFAR100, labels=b"coarse_labels", names=b"coarse_label_names") if coarse else _CIFAR100
    data = _load("cifar100", files, root=root, download=download)
    if not labels.startswith("human"):
        return data
    given, truth = human_labels(data_root(root), coarse=coarse, download=download)
    if not torch.equal(truth, data.train.targets):
        raise DataError(f"the labels of CIFAR-100N under {data_root(root)} are not in the order of CIFAR-100's images")
    return replace(data, train=replace(data.train, targets=given, true_targets=truth))


def _load(
    name: str,
    files: _Files,
    *,
    root: str | None,
    download: bool,
) -> ImageData:
    folder = data_root(root) / files.folder
    if not folder.is_dir():
        if not download:
            raise DataError(
                f"{name} is not at {folder}: allow the download, or give as root (or in the environment as "
                f"COLLEGIUM_DATA) the folder that holds {files.folder}"
            )
        fetch_folder(files.url, folder, files.archive_md5)
    (meta,) = _read(folder, files.meta)
    return ImageData(
        name=name,
        train=_split(_read(folder, files.train), files.labels),
        test=_split(_read(folder, files.test), files.labels),
        class_names=tuple(name.decode() for name in meta[files.names]),
        mean=files.mean,
        std=files.std,
        augmentation=_AUGMENTATION,
    )


def _split(parts: list[dict[bytes, Any]], labels: bytes) -> Split:
    # A row of the files is one image, channel after channel.
    planes = [torch.from_numpy(part[b"data"]).view(-1, 3, _SIDE, _SIDE) for part in parts]
    targets = torch.tensor([label for part in parts for label in part[labels]])
    images = torch.empty((len(targets), 3, _SIDE, _SIDE), dtype=torch.uint8, memory_format=torch.channels_last)
    return Split(torch.cat(planes, out=images), targets)


def _read(folder: Path, checksums: dict[str, str]) -> list[dict[bytes, Any]]:
    """The contents of the files in `folder`, each checked before it is read."""
    contents = []
    for name, expected in checksums.items():
        raw = read_checked(folder / name, expected, delete=folder)
        # Strings of Python 2 stay bytes, and so do the pixels: decoding them would take as long again.
        contents.append(ArrayUnpickler(io.BytesIO(raw), encoding="bytes").load())
    return contents
