"""Tiny ImageNet: 200 classes of ImageNet at 64 x 64 pixels, from the course CS231n at Stanford.

Le and Yang, "Tiny ImageNet Visual Recognition Challenge", 2015, http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from collegium.errors import DataError
from collegium.files import read_bounded

from .batches import Augmentation
from .decoding.image_files import ImageFiles, list_images
from .decoding.passes import cache_folder
from .decoding.reading import read_all
from .decoding.streamed import StreamedSplit
from .download import data_root, fetch_folder
from .images import ImageData, pixel_statistics


@dataclass(frozen=True)
class _Published:
    """What is in the published archive."""

    url: str = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5: str = "90528d7ca1a48142e341f4ef8d21d0de"
    folder: str = "tiny-imagenet-200"
    classes: int = 200
    train: int = 100_000
    test: int = 10_000
    side: int = 64


_PUBLISHED = _Published()


def tiny_imagenet(*, root: str | None = None, download: bool = True) -> ImageData:
    """Tiny ImageNet: 100000 training and 10000 test images of 64 x 64 pixels in 200 classes.

    The labels of its own test images were never published: as everywhere, its validation images score. Images are
    decoded once; afterwards their pixels lie in the folder's .collegium.

    Args:
        root: the folder with tiny-imagenet-200; the default is the environment's COLLEGIUM_DATA, else
            ~/.cache/collegium.
        download: download the archive (237 MiB) where it is not there.

    Raises:
        DataError: the files are not there and are not to be, or cannot be, downloaded, or are not all there.
    """
    published = _PUBLISHED
    folder = data_root(root) / published.folder
    if not folder.is_dir():
        if not download:
            raise DataError(
                f"tiny_imagenet is not at {folder}: allow the download, or give as root (or in the environment as "
                f"COLLEGIUM_DATA) the folder that holds {published.folder}"
            )
        fetch_folder(published.url, folder, published.md5)
    synsets = tuple(_lines(folder / "wnids.txt"))
    listing = list_images(folder, "train", [f"{synset}/images" for synset in synsets])
    val = [line.split("\t")[:2] for line in _lines(folder / "val" / "val_annotations.txt")]
    place = {synset: k for k, synset in enumerate(synsets)}
    try:
        labels = torch.tensor([place[synset] for _, synset in val])
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / 'val' / 'val_annotations.txt'} names no class of wnids.txt: {error}") from error
    for what, found, expected in (
        ("classes", len(synsets), published.classes),
        ("training images", len(listing.names), published.train),
        ("validation images", len(val), published.test),
    ):
        if found != expected:
            raise DataError(
                f"{folder} has {found} {what}, expected {expected}: delete it and repeat the command to download it "
                "again"
            )
    kept = cache_folder(folder)
    parts = {}
    for split, names, targets in (
        ("train", listing.names, listing.targets),
        ("test", [f"val/images/{name}" for name, _ in val], labels),
    ):
        files = ImageFiles(folder, names, 3, lambda _: "")
        parts[split] = read_all(
            StreamedSplit.of(files, targets),
            f"Reading the {split} images",
            kept=(kept and kept / f"{split}.safetensors", published.md5),
        )
        if parts[split].images.shape[2:] != (published.side, published.side):
            raise DataError(f"the {split} images of {folder} are not {published.side} x {published.side} pixels")
    mean, std = pixel_statistics(parts["train"].images)
    return ImageData(
        name="tiny_imagenet",
        train=parts["train"],
        test=parts["test"],
        class_names=_class_names(folder / "words.txt", synsets),
        mean=mean,
        std=std,
        augmentation=Augmentation(padding=8, padding_mode="reflect", flip=True),
    )


def _class_names(file: Path, synsets: tuple[str, ...]) -> tuple[str, ...]:
    """The first word for each synset; with the synset where two classes share it."""
    words = {synset: names.split(",")[0] for synset, _, names in (line.partition("\t") for line in _lines(file))}
    names = [words.get(synset, synset) for synset in synsets]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({synset})" for name, synset in zip(names, synsets, strict=True)
    )


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in read_bounded(file, 64 << 20).decode().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read ({error}): delete {file.parent} and repeat the command to download it again"
        ) from error
