"""ImageNet, the 1000 classes of ILSVRC 2012, from a folder that the user has made.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, https://arxiv.org/abs/1409.0575.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from collegium.errors import DataError
from collegium.files import read_bounded
from collegium.options import options_from

from .decoding.image_files import class_folders
from .decoding.reading import IMAGE_SIZE, Reading, ReadingOptions
from .download import data_root
from .folder import read_folder
from .interface import ClassificationData

_CLASSES, _COUNTS = 1000, {"train": 1_281_167, "test": 50_000}
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt", "imagenet_class_index.json")


@options_from(Reading, skip=("bit_depth",), image_size=IMAGE_SIZE)
def imagenet(
    *,
    root: str | None = None,
    verify: bool = True,
    skip_broken: bool = False,
    **options: Unpack[ReadingOptions],
) -> ClassificationData[Any]:
    """ImageNet (ILSVRC 2012): 1281167 training images, and 50000 validation images that score, in 1000 classes.

    Its licence lets nobody pass the images on: request them at https://image-net.org, and lay them out as
    ROOT/train/nXXXXXXXX/*.JPEG and ROOT/val/nXXXXXXXX/*.JPEG. Parts of ImageNet with fewer classes are read as well.
    Classes are named as LOC_synset_mapping.txt, synset_words.txt, words.txt or imagenet_class_index.json says, if one
    of them lies in ROOT.

    Args:
        root: the folder with train and val; the default is imagenet in the environment's COLLEGIUM_DATA, else in
            ~/.cache/collegium.
        verify: decode every file once, the first time, so that a broken one is found before training.
        skip_broken: leave broken files out instead of stopping.
        **options: how images are read, see :class:`~collegium.data.Reading`.

    Raises:
        UsageError: a value does not fit.
        DataError: the folder is not there or laid out otherwise, or files are broken.
    """
    folder = data_root(root) if root else data_root(None) / "imagenet"
    for split in ("train", "val"):
        if not (folder / split).is_dir() or not class_folders(folder / split):
            raise DataError(
                f"ImageNet is not at {folder} ({split} has no class folders): request it at https://image-net.org, "
                f"unpack it to {folder}/train/nXXXXXXXX/*.JPEG and {folder}/val/nXXXXXXXX/*.JPEG (torchvision's "
                "ImageNet class sorts the validation images so), and give that folder as root"
            )
    options.setdefault("image_size", IMAGE_SIZE)
    reading = Reading(**options)
    # The user has made the folder, often of links to where the images lie.
    data = read_folder("imagenet", folder, reading, check=verify, skip_broken=skip_broken, follow_links=True)
    notes = data.notes
    if data.num_classes == _CLASSES:
        notes += tuple(
            f"{folder} has {len(data.splits[split])} images for {split}, ILSVRC 2012 has {count}."
            for split, count in _COUNTS.items()
            if len(data.splits[split]) != count
        )
    words = _words(folder)
    return replace(data, notes=notes, class_names=tuple(words.get(synset, synset) for synset in data.class_names))


def _words(folder: Path) -> dict[str, str]:
    """Synset -> its first word, as far as a file in the folder tells."""
    file = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if file is None:
        return {}
    try:
        text = read_bounded(file, 64 << 20).decode()
        if file.suffix == ".json":
            return {synset: word for synset, word in json.loads(text).values()}
        pairs = (line.replace("\t", " ").partition(" ") for line in text.splitlines())
        return {synset: words.split(",")[0].strip() for synset, _, words in pairs}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"the class names in {file} cannot be read ({error}): repair or remove it") from error
