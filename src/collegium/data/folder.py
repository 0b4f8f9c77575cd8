"""A folder of image files: a folder a class, in a folder a split."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from collegium.errors import DataError
from collegium.files import write_whole
from collegium.options import options_from

from .decoding.image_files import ImageFiles, named_keys
from .decoding.layout import lay_out, some
from .decoding.passes import cache_folder
from .decoding.pixels import CMYK, FRAMES, TRANSPARENT
from .decoding.reading import Reading, ReadingOptions, depth_note, hold_out_test, in_memory, read_all, streamed
from .decoding.streamed import StreamedSplit
from .decoding.verify import Verified, looked_up, verify
from .interface import ClassificationData
from .plain_files import shown


@options_from(Reading)
def folder(
    path: str,
    *,
    test_share: float = 0.2,
    split_seed: int = 0,
    channels: Literal[1, 3] = 3,
    verify: bool = True,
    skip_broken: bool = False,
    follow_links: bool = False,
    **options: Unpack[ReadingOptions],
) -> ClassificationData[Any]:
    """Image files in class folders: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* alone.

    PATH/val (or valid, validation) is the test split, or the validation split where there is PATH/test too. Without
    either about the same share of each class is held out for testing: a hash of an image's class, file name and
    split_seed decides, so that files which are added later never make a training image a test image.

    Files are decoded whatever they hold, upright as their EXIF data say; of transparency only the colours are kept,
    CMYK is converted without its profile, and the first frame of an animation is taken (all said in notes). A file of
    more than 256 MiB or 100 million pixels counts as broken. Pipes, devices and broken links are left out.

    Equal small images (up to 128 pixels a side, verified) are kept in memory, and cropped at random after padding
    each side by an eighth. Others are decoded while the networks train: a part of random area and shape of each
    image is resized for training, the centre for scoring.

    Args:
        path: the folder.
        test_share: the share of each class to hold out for testing where there is no folder for it.
        split_seed: which images are held out.
        channels: 3 for colour, 1 for grey; files of the other kind are converted.
        verify: decode every file once, the first time, so that a broken one is found before training.
        skip_broken: leave broken files out instead of stopping.
        follow_links: read what links to files and folders outside the folder lead to, instead of refusing them.
        **options: how images are read, see :class:`~collegium.data.Reading`.

    Raises:
        UsageError: a value does not fit.
        DataError: the folder is laid out otherwise, or files are broken.
    """
    root = Path(path).expanduser()
    reading = Reading(**options)
    return read_folder(
        shown(root.resolve().name),
        root,
        reading,
        channels=channels,
        test_share=test_share,
        split_seed=split_seed,
        check=verify,
        skip_broken=skip_broken,
        follow_links=follow_links,
    )


def read_folder(
    name: str,
    root: Path,
    reading: Reading,
    *,
    channels: int = 3,
    test_share: float = 0.2,
    split_seed: int = 0,
    check: bool = True,
    skip_broken: bool = False,
    follow_links: bool = False,
) -> ClassificationData[Any]:
    """The data set in a folder; arguments as for :func:`folder`."""
    reading.views()  # a wrong option is found before the files are looked at
    class_names, listings = lay_out(root, follow_links=follow_links)
    others = [other for listing in listings.values() for other in listing.others]
    notes: tuple[str, ...] = ()
    if others:
        kinds = "no images, no plain files, or folders within class folders"
        notes = (f"Left out, as {kinds} ({len(others)}): {some(others)}.",)

    names = [name for listing in listings.values() for name in listing.names]
    targets = torch.cat([listing.targets for listing in listings.values()])
    kept = cache_folder(root)
    record = None if kept is None else kept / "verified.npz"
    found = verify(root, names, record, reading.workers) if check else None
    files = ImageFiles(root, names, channels, _Digest(root, names, found), reading.bit_depth)
    whole = StreamedSplit.of(files, targets, named_keys(names))
    good = torch.ones(len(names), dtype=torch.bool)
    if found is not None and found.broken:
        notes += _report_broken(root, names, found, kept, skip=skip_broken)
        good[list(found.broken)] = False

    parts, begin = {}, 0
    for split, listing in listings.items():
        here = torch.arange(begin, begin + len(listing.names))
        parts[split] = whole.subset(here[good[here]])
        begin += len(listing.names)
    if found is not None:
        notes += _special(root, found)
        notes += depth_note(shown(root), int(found.peaks.max(initial=0)), reading.bit_depth)
    if "test" not in parts:
        parts["train"], parts["test"], note = hold_out_test(shown(root), parts["train"], test_share, split_seed)
        notes += (note,)
    if found is not None:
        notes += _twins(parts, found)

    shape = None if found is None else _common_shape(found, good, channels)
    if not reading.into_memory(shape, int(good.sum())):
        return streamed(name, parts, class_names, channels, reading.settled(shape), notes=notes)
    resizing = reading.resizing(shape)
    # Pixels are kept only where it is known when they are out of date.
    place = None if found is None else kept
    pixels = {
        split: read_all(
            part,
            f"Reading the {split} images",
            resizing=resizing,
            workers=reading.workers,
            kept=(place and place / f"{split}.safetensors", f"{channels} channels {files.fingerprint(part.indices)}"),
        )
        for split, part in parts.items()
    }
    return in_memory(name, pixels, class_names, reading, resizing=resizing, notes=notes)


def _report_broken(root: Path, names: list[str], found: Verified, kept: Path | None, *, skip: bool) -> tuple[str, ...]:
    """The note on files that are left out.

    Raises:
        DataError: they are not to be left out.
    """
    count, of = len(found.broken), len(names)
    listed = ""
    if kept is not None:
        lines = [f"{shown(root / names[index])}\t{reason}\n" for index, reason in sorted(found.broken.items())]
        listed = f"; all are listed in {shown(kept / 'broken.txt')}"
        write_whole(kept / "broken.txt", "".join(lines))
    said = shown(root)
    if skip:
        return (f"{count} of {of} image files in {said} are broken and were left out{listed}.",)
    index, reason = min(found.broken.items())
    raise DataError(
        f"{count} of {of} image files in {said} cannot be decoded, as {some([names[index]])} ({reason[:80]}){listed}. "
        "Repair or remove them, or give skip_broken to leave them out"
    )


def _special(root: Path, found: Verified) -> tuple[str, ...]:
    """The note on files of which not everything is taken."""
    kinds = {
        TRANSPARENT: "with transparent parts (their colours are kept)",
        CMYK: "in CMYK (converted without a profile)",
        FRAMES: "with several frames or pages (the first is kept)",
    }
    counts = {text: int((found.traits & kind > 0).sum()) for kind, text in kinds.items()}
    said = [f"{count} {text}" for text, count in counts.items() if count]
    return (f"Of the {len(found.traits)} image files in {shown(root)}, there are {', '.join(said)}.",) if said else ()


def _twins(parts: dict[str, StreamedSplit], found: Verified) -> tuple[str, ...]:
    """The note on scoring files that are byte for byte among the training files."""
    train = found.digests[parts["train"].indices.numpy()]
    notes = []
    for split in ("validation", "test"):
        if split in parts:
            count = int(np.isin(found.digests[parts[split].indices.numpy()], train).sum())
            if count:
                notes.append(
                    f"{count} of the {len(parts[split])} {split} images are, byte for byte, training images too: "
                    f"they flatter the {split} scores."
                )
    return tuple(notes)


def _common_shape(found: Verified, good: torch.Tensor, channels: int) -> tuple[int, int, int] | None:
    """(C, H, W) of all images where they are of one size."""
    sizes = np.unique(found.shapes[good.numpy(), 1:], axis=0)
    return (channels, int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) == 1 else None


class _Digest:
    """What tells files apart: names and contents where they were verified, else names, sizes and times of change."""

    def __init__(self, root: Path, names: list[str], found: Verified | None) -> None:
        self.names = names
        self.contents = looked_up(root, names)[["size", "time"]] if found is None else found.digests

    def __call__(self, indices: NDArray[np.int64]) -> str:
        digest = hashlib.sha1(b"\0".join(os.fsencode(self.names[index]) for index in indices))
        digest.update(self.contents[indices].tobytes())
        return digest.hexdigest()
