"""Which folder below a data set's folder is which split, and which class."""

import os
from collections.abc import Sequence
from pathlib import Path

from collegium.errors import DataError

from ..plain_files import shown
from .image_files import Listing, class_folders, list_images

_OTHERS = {"validation": ("val", "validation", "valid"), "test": ("test",)}


def lay_out(root: Path, *, follow_links: bool = False) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """The classes, and the images of each split, in train/CLASS/*, test/CLASS/* and so on, or in CLASS/* alone.

    Args:
        root: the folder.
        follow_links: read what links to files and folders outside `root` lead to.

    Returns:
        The names of the classes, and the listings of "train" and, where they are there, "validation" and "test".

    Raises:
        DataError: the folder is laid out otherwise, the splits differ in their classes, or one has no images; a link
            leads out of it and is not to be followed; the name of a class folder is not UTF-8.
    """
    places = _places(root)
    class_names = _class_names(root, places)
    if not follow_links:
        _check_links(root, [os.path.join(place, name) for place in places.values() for name in ("", *class_names)])
    listings = {split: list_images(root, place, class_names) for split, place in places.items()}
    if not follow_links:
        _check_links(root, [link for listing in listings.values() for link in listing.links])
    _check_listings(root, places, listings, class_names)
    return class_names, listings


def some(names: Sequence[str]) -> str:
    """The first, up to five in 100 characters, and how many more there are."""
    said = [shown(name) if len(name) <= 80 else f"{shown(name[:77])}..." for name in names[:5]]
    while len(", ".join(said)) > 100 and len(said) > 1:
        said.pop()
    more = len(names) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")


def _check_links(root: Path, names: Sequence[str]) -> None:
    """Raises DataError where one of `names` leads out of `root`."""
    real = os.path.realpath(root)
    within = os.path.join(real, "")
    out = [name for name in names if not os.path.join(os.path.realpath(root / name), "").startswith(within)]
    if out:
        raise DataError(
            f"{shown(root)} has {len(out)} links that lead out of it ({some(out)}): remove them, or give follow_links "
            "to read what they lead to"
        )


def _places(root: Path) -> dict[str, str]:
    """The folder of each split, relative to the root; the root itself where there are class folders in it."""
    if not root.is_dir():
        said = shown(root)
        raise DataError(f"{said} is a file, not a folder" if root.exists() else f"there is no folder {said}")
    there = set(class_folders(root))
    if not there:
        raise DataError(f"{shown(root)} has no folders: expected train/CLASS/* and test/CLASS/*, or CLASS/*, in it")
    found = {split: [n for n in names if n in there] for split, names in _OTHERS.items()}
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(f"{shown(root)} has both {names[0]} and {names[1]} for {split}: remove or rename one")
    places = {split: names[0] for split, names in found.items() if names}
    if "train" not in there:
        if places:
            raise DataError(
                f"{shown(root)} has {' and '.join(places.values())} but no train: expected train/CLASS/* beside"
            )
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
                f"in {shown(root)}, {places[split]} and {places['train']} have different classes ({'; '.join(lists)}): "
                "give both the same class folders"
            )
    if len(train) < 2:
        raise DataError(
            f"{shown(root / places['train'])} has {len(train)} class folders: expected one a class, 2 or more"
        )
    for name in train:
        if shown(name) != name:
            raise DataError(
                f"{shown(root / places['train'] / name)} cannot name a class: rename it in UTF-8, without control "
                "characters"
            )
    return train


def _check_listings(
    root: Path, places: dict[str, str], listings: dict[str, Listing], class_names: tuple[str, ...]
) -> None:
    for split, listing in listings.items():
        counts = listing.targets.bincount(minlength=len(class_names))
        empty = [name for name, count in zip(class_names, counts.tolist(), strict=True) if count == 0]
        if not len(listing.names) or (empty and split == "train"):
            raise DataError(
                f"{shown(root / places[split])} has no images in the folders {some(empty)}: images (jpg, png, tif, "
                "webp, bmp, ppm) must lie directly in their class folder"
            )
