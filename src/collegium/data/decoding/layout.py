"""Which folder below a data set's folder is which split, and which class."""

from collections.abc import Sequence
from pathlib import Path

from collegium.errors import DataError

from .image_files import Listing, class_folders, list_images

_OTHERS = {"validation": ("val", "validation", "valid"), "test": ("test",)}


def lay_out(root: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """The classes, and the images of each split, in train/CLASS/*, test/CLASS/* and so on, or in CLASS/* alone.

    Returns:
        The names of the classes, and the listings of "train" and, where they are there, "validation" and "test".

    Raises:
        DataError: the folder is laid out otherwise, the splits differ in their classes, or one has no images.
    """
    places = _places(root)
    class_names = _class_names(root, places)
    listings = {split: list_images(root, place, class_names) for split, place in places.items()}
    _check_listings(root, places, listings, class_names)
    return class_names, listings


def some(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _places(root: Path) -> dict[str, str]:
    """The folder of each split, relative to the root; the root itself where there are class folders in it."""
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder" if root.exists() else f"there is no folder {root}")
    there = set(class_folders(root))
    if not there:
        raise DataError(f"{root} has no folders: expected train/CLASS/* and test/CLASS/*, or CLASS/*, in it")
    found = {split: [n for n in names if n in there] for split, names in _OTHERS.items()}
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(f"{root} has both {names[0]} and {names[1]} for {split}: remove or rename one")
    places = {split: names[0] for split, names in found.items() if names}
    if "train" not in there:
        if places:
            raise DataError(f"{root} has {' and '.join(places.values())} but no train: expected train/CLASS/* beside")
        return {"train": "."}
    if "test" not in places and "validation" in places:
        places["test"] = places.pop("validation")
    return {"train": "train", **places}


def _class_names(root: Path, places: dict[str, str]) -> tuple[str, ...]:
    classes = {split: class_folders(root / place) for split, place in places.items()}
    train = classes["train"]
    for split, names in classes.items():
        extra, missing = sorted(set(names) - set(train)), sorted(set(train) - set(names))
        if extra or missing:
            lists = [f"only in {places['train']}: {some(missing)}"] * bool(missing)
            lists += [f"only in {places[split]}: {some(extra)}"] * bool(extra)
            raise DataError(
                f"{root / places[split]} and {root / places['train']} have different classes ({'; '.join(lists)}): "
                "give both the same class folders"
            )
    if len(train) < 2:
        raise DataError(f"{root / places['train']} has {len(train)} class folders: expected one a class, 2 or more")
    return train


def _check_listings(
    root: Path, places: dict[str, str], listings: dict[str, Listing], class_names: tuple[str, ...]
) -> None:
    for split, listing in listings.items():
        counts = listing.targets.bincount(minlength=len(class_names))
        empty = [name for name, count in zip(class_names, counts.tolist(), strict=True) if count == 0]
        if not len(listing.names) or (empty and split == "train"):
            raise DataError(
                f"{root / places[split]} has no images in the folders {some(empty)}: images (jpg, png, tif, webp, "
                "bmp, ppm) must lie directly in their class folder"
            )
