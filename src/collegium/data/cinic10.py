"""CINIC-10 from its official archive.

Darlow, Crowley, Antoniou and Storkey, "CINIC-10 Is Not ImageNet or CIFAR-10", 2018,
https://arxiv.org/abs/1810.03505, https://doi.org/10.7488/ds/2448.
"""

from dataclasses import dataclass

import torch

from collegium.errors import DataError

from .batches import Augmentation, Split
from .decoding.image_files import ImageFiles, list_images
from .decoding.passes import cache_folder
from .decoding.reading import read_all
from .decoding.streamed import StreamedSplit
from .download import data_root, fetch_folder
from .images import ImageData


@dataclass(frozen=True)
class _Published:
    """What is in the published archive."""

    url: str = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
    md5: str = "6ee4d0c996905fe93221de577967a372"
    folder: str = "CINIC-10"
    classes: tuple[str, ...] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    per_class: int = 9000
    side: int = 32


_PUBLISHED = _Published()


def cinic10(*, root: str | None = None, download: bool = True, train_with_validation: bool = False) -> ImageData:
    """CINIC-10: 90000 training, 90000 validation and 90000 test images of 32 x 32 pixels in 10 classes.

    The images are those of CIFAR-10 and, reduced in size, some of ImageNet. They are decoded once; afterwards their
    pixels lie in the folder's .collegium.

    Args:
        root: the folder with CINIC-10; the default is the environment's COLLEGIUM_DATA, else ~/.cache/collegium.
        download: download the archive (656 MiB) where it is not there.
        train_with_validation: train on the validation images too, as many papers do; there is then no validation
            split.

    Raises:
        DataError: the files are not there and are not to be, or cannot be, downloaded, or are not all there.
    """
    published = _PUBLISHED
    folder = data_root(root) / published.folder
    if not folder.is_dir():
        if not download:
            raise DataError(
                f"cinic10 is not at {folder}: allow the download, or give as root (or in the environment as "
                f"COLLEGIUM_DATA) the folder that holds {published.folder}"
            )
        fetch_folder(published.url, folder, published.md5, loose=True)
    kept = cache_folder(folder)
    parts = {}
    for place in ("train", "valid", "test"):
        listing = list_images(folder, place, published.classes)
        counts = listing.targets.bincount(minlength=len(published.classes)).tolist()
        if set(counts) != {published.per_class}:
            worst = min(range(len(counts)), key=counts.__getitem__)
            raise DataError(
                f"{folder / place / published.classes[worst]} has {counts[worst]} images, expected "
                f"{published.per_class}: delete {folder} and repeat the command to download it again"
            )
        # The archive was checked, and the files are as many as in it: their names tell them apart.
        files = ImageFiles(folder, listing.names, 3, lambda _: "")
        parts[place] = read_all(
            StreamedSplit.of(files, listing.targets),
            f"Reading the {place} images",
            kept=(kept and kept / f"{place}.safetensors", published.md5),
        )
        if parts[place].images.shape[2:] != (published.side, published.side):
            raise DataError(f"the images in {folder / place} are not {published.side} x {published.side} pixels")
    train, validation = parts["train"], parts["valid"]
    if train_with_validation:
        images = torch.cat([part.images.permute(0, 2, 3, 1) for part in (train, validation)]).permute(0, 3, 1, 2)
        train = Split(images, torch.cat([train.targets, validation.targets]))
    return ImageData(
        name="cinic10",
        train=train,
        test=parts["test"],
        validation=None if train_with_validation else validation,
        class_names=published.classes,
        # From the data set's own page, https://github.com/BayesWatch/cinic-10.
        mean=(0.47889522, 0.47227842, 0.43047404),
        std=(0.24205776, 0.23828046, 0.25874835),
        augmentation=Augmentation(padding=4, padding_mode="reflect", flip=True),
    )
