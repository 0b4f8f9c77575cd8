"""Classification data sets of the Hugging Face Hub."""

from pathlib import Path
from typing import Any, Literal, Unpack

from collegium.errors import DataError, UsageError
from collegium.extras import how_to_install
from collegium.options import options_from

from .columns import columns
from .datasets import read_datasets
from .decoding.reading import Reading, ReadingOptions
from .download import data_root
from .interface import ClassificationData
from .plain_files import check_plain

_VALIDATION = ("validation", "valid", "val", "dev")


@options_from(Reading)
def huggingface(
    name: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    validation_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    ignore_label: int | None = None,
    test_share: float = 0.2,
    split_seed: int = 0,
    channels: Literal[1, 3] | None = None,
    **options: Unpack[ReadingOptions],
) -> ClassificationData[Any]:
    """A data set of the Hugging Face Hub, downloaded to Hugging Face's own cache.

    Args:
        name: its name on the Hub, or a folder that `datasets.load_dataset` reads.
        config: which of its configurations, where it has several.
        revision: which commit, branch or tag of it.
        train_split: the split to train on; as in `load_dataset`, "train+validation" joins two.
        test_split: the split that scores; by default test, else validation; else a share of train is held out.
        validation_split: the split for choosing between settings; by default validation, where there is test too.
        image_column: the column with the images; by default the one of that kind.
        label_column: the column with the labels; by default the one of that kind.
        ignore_label: leave out images with this label, such as -1 for unlabelled ones.
        test_share: the share of each class to hold out for testing where no split is there for it.
        split_seed: which images are held out.
        channels: 3 for colour, 1 for grey; by default what the images have.
        **options: how images are read, see :class:`~collegium.data.Reading`.

    Raises:
        UsageError: the package `datasets` is missing, or there is no such split or column.
        DataError: the data set cannot be had.
    """
    reading = Reading(**options)
    found = _load(name, config, revision)
    there = list(found)
    if test_split is None:
        test_split = next((split for split in ("test", *_VALIDATION) if split in there), None)
        if validation_split is None and test_split == "test":
            joined = train_split.split("+")
            validation_split = next((s for s in _VALIDATION if s in there and s not in joined), None)
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    parts = {
        part: columns(_split(name, found, split), image_column, label_column, name)
        for part, split in wanted.items()
        if split is not None
    }
    prints = " ".join(str(getattr(part.dataset, "_fingerprint", "")) for part in parts.values())
    return read_datasets(
        name.rstrip("/").rsplit("/", 1)[-1],
        parts,
        reading,
        channels=channels,
        test_share=test_share,
        split_seed=split_seed,
        ignore_label=ignore_label,
        kept=(data_root(None) / ".collegium" / "huggingface" / name.replace("/", "--"), f"{prints} {channels}"),
    )


def _load(name: str, config: str | None, revision: str | None) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UsageError(
            f"data sets of Hugging Face need the package datasets: {how_to_install('huggingface')}"
        ) from None
    local = name
    if (folder := Path(name).expanduser()).is_dir():
        local = str(folder)
        check_plain(folder)
    try:
        return load_dataset(local, config, revision=revision)
    except Exception as error:  # of the Hub, the network, the files, and of names
        raise DataError(
            f"Hugging Face's {name} cannot be had ({' '.join(str(error).split())[:300]}): check name, config and "
            "network"
        ) from error


def _split(name: str, found: Any, split: str) -> Any:
    """One split, or several joined by "+"."""
    from datasets import concatenate_datasets

    names = split.split("+")
    for part in names:
        if part not in found:
            raise UsageError(f"{name} has no split {part!r}; its splits are: {', '.join(found)}")
    return found[names[0]] if len(names) == 1 else concatenate_datasets([found[part] for part in names])
