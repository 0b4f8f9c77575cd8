"""Every classification data set of torchvision."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, Literal, Unpack

from collegium.errors import DataError, UsageError, nearest
from collegium.options import options_from

from .datasets import labelled, read_datasets
from .decoding.reading import Reading, ReadingOptions
from .download import data_root
from .interface import ClassificationData
from .labelled import Labelled

# What is mirrored there means something else.
_DIRECTED = ("EMNIST", "GTSRB", "KMNIST", "MNIST", "Omniglot", "QMNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS")
_USUAL = {"train": ("train", "trainval"), "validation": ("val", "valid"), "test": ("test", "val", "valid")}


@options_from(Reading, flip=None)
def torchvision(
    name: str,
    *,
    root: str | None = None,
    download: bool = True,
    train_split: str | None = None,
    test_split: str | None = None,
    validation_split: str | None = None,
    arguments: dict[str, Any] | None = None,
    test_share: float = 0.2,
    split_seed: int = 0,
    channels: Literal[1, 3] | None = None,
    **options: Unpack[ReadingOptions],
) -> ClassificationData[Any]:
    """A classification data set of torchvision: torchvision:FashionMNIST, torchvision:Flowers102 and so on.

    Args:
        name: the class in torchvision.datasets.
        root: the folder where torchvision keeps its data sets; the default is the environment's COLLEGIUM_DATA, else
            ~/.cache/collegium.
        download: let torchvision download the files where they are not there.
        train_split: the split to train on, where the data set has named splits; "train+val" joins two.
        test_split: the split that scores; by default test, else val; else a share of train is held out.
        validation_split: the split for choosing between settings; by default val, where there is test too.
        arguments: other arguments of the class, such as {"split": "letters"} for EMNIST.
        test_share: the share of each class to hold out for testing where no split is there for it.
        split_seed: which images are held out.
        channels: 3 for colour, 1 for grey; by default what the images have.
        **options: how images are read, see :class:`~collegium.data.Reading`; by default letters, digits and signs are
            not mirrored.

    Raises:
        UsageError: there is no such data set or split, or it is not one for classification.
        DataError: the files cannot be had.
    """
    options.setdefault("flip", name not in _DIRECTED)
    reading = Reading(**options)
    place = data_root(root)
    kind = _class(name)
    given = {"root": str(place), "download": download, **(arguments or {})}
    parts = _parts(kind, given, {"train": train_split, "validation": validation_split, "test": test_split})
    told = {key: value for key, value in given.items() if key not in ("root", "download")}
    return read_datasets(
        name,
        parts,
        reading,
        channels=channels,
        test_share=test_share,
        split_seed=split_seed,
        # Files of the user's own may change, and a folder beside them would be read as a class.
        kept=(place / ".collegium" / f"torchvision-{name}", f"{told} {train_split} {test_split} {channels}")
        if "download" in _parameters(kind)
        else None,
    )


def _class(name: str) -> type:
    """The class in torchvision.datasets."""
    from torch.utils.data import Dataset

    sets = importlib.import_module("torchvision.datasets")
    known = {key: kind for key in sets.__all__ if isinstance(kind := getattr(sets, key), type)}
    if name not in known or not issubclass(known[name], Dataset):
        raise UsageError(f"torchvision has no data set {name!r}{nearest(name, list(known))}")
    return known[name]


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class, with those that its **kwargs hand on to the class that it extends."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        found = {**parameters, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {key: p for key, p in found.items() if key != "self" and p.kind is not p.VAR_KEYWORD}


def _parts(kind: type, given: dict[str, Any], wanted: dict[str, str | None]) -> dict[str, Labelled]:
    """The splits of a data set, under our names."""
    name, parameters = kind.__name__, _parameters(kind)
    unknown = [key for key in given if key not in parameters and key not in ("root", "download")]
    if unknown:
        raise UsageError(
            f"torchvision's {name} takes no argument {unknown[0]!r}{nearest(unknown[0], list(parameters))}"
        )
    given = {key: value for key, value in given.items() if key in parameters}
    by_name = "train" not in parameters and "split" in parameters and "split" not in given
    lacking = [
        key
        for key, p in parameters.items()
        if p.default is p.empty and key not in given and not (key == "train" or (key == "split" and by_name))
    ]
    if lacking:
        raise UsageError(f"torchvision's {name} needs {' and '.join(lacking)}: give them in arguments")
    chosen = [f"{part}_split" for part, split in wanted.items() if split is not None]
    if chosen and not by_name:
        raise UsageError(f"torchvision's {name} has no splits to name: leave out {' and '.join(chosen)}")

    if not by_name and "train" not in parameters:
        return {"train": labelled(_make(kind, given))}
    if not by_name:
        return {part: labelled(_make(kind, given | {"train": part == "train"})) for part in ("train", "test")}

    found = {part: _split(kind, given, wanted[part], _USUAL[part]) for part in ("train", "test")}
    if found["train"] is None:
        raise UsageError(f"torchvision's {name} has no split called train: say which as train_split")
    usual = [split and split[0] for split in found.values()] == ["train", "test"]
    if wanted["validation"] is not None or usual:
        found["validation"] = _split(kind, given, wanted["validation"], _USUAL["validation"])
    return {part: split[1] for part, split in found.items() if split is not None}


def _split(kind: type, given: dict[str, Any], wanted: str | None, usual: Sequence[str]) -> tuple[str, Labelled] | None:
    """The split that is wanted, joined from several by "+", else the first of the usual ones that there is."""
    from torch.utils.data import ConcatDataset

    if wanted is not None:
        try:
            parts = [_make(kind, given | {"split": part}) for part in wanted.split("+")]
        except ValueError as error:
            raise UsageError(f"torchvision's {kind.__name__} has no split {wanted!r}: {error}") from None
        return wanted, labelled(parts[0] if len(parts) == 1 else ConcatDataset(parts))
    for name in usual:
        try:
            return name, labelled(_make(kind, given | {"split": name}))
        except ValueError:  # there is none of this name
            continue
    return None


def _make(kind: type, given: dict[str, Any]) -> Any:
    """The torchvision data set. Raises ValueError for an argument that it does not know."""
    try:
        return kind(**given)
    except ValueError:
        raise
    except ImportError as error:
        raise UsageError(f"torchvision's {kind.__name__} needs another package: {error}") from None
    except Exception as error:  # of the network, the files and their checksums
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"torchvision's {kind.__name__} cannot be had under {given.get('root')}: {reason}") from error
