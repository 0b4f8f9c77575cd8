"""What is shown, and kept for the next time, of one pass over all images."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from collegium.files import write_whole

from ..batches import Split
from ..download import data_root

T = TypeVar("T")


def counted(results: Iterable[T], title: str, total: int) -> Iterator[T]:
    """The same results, with a bar on the terminal while they come."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if total < 2:
        yield from results
        return
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(title, total=total)
        for result in results:
            progress.advance(task)
            yield result


def cache_folder(data: Path) -> Path | None:
    """A folder for what is worth keeping about `data`: the hidden one within, else one in the user's own.

    None where neither can be written to.
    """
    name = hashlib.sha1(os.fsencode(data.absolute()), usedforsecurity=False).hexdigest()[:16]
    for folder in (data / ".collegium", data_root(None) / ".collegium" / name):
        if folder.is_symlink():  # made by someone else: what is written would land elsewhere
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


def cached(file: Path | None, key: str, make: Callable[[], Split]) -> Split:
    """The split that `make` makes, kept in `file` under `key` for the next time.

    A file that is damaged, or kept under another key, is made again.
    """
    if file is None:
        return make()
    kept = _load(file, key)
    return _keep(file, key, make()) if kept is None else kept


def _load(file: Path, key: str) -> Split | None:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as tensors:
            told = tensors.metadata() or {}
            if told.get("key") != key:
                return None
            images, targets = tensors.get_tensor("images"), tensors.get_tensor("targets")
    except (OSError, SafetensorError):
        return None
    split = Split(images.permute(0, 3, 1, 2), targets)
    return split if _digest(split) == told.get("digest") else None


def _keep(file: Path, key: str, split: Split) -> Split:
    from safetensors.torch import save

    tensors = {"images": split.images.permute(0, 2, 3, 1).contiguous(), "targets": split.targets}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save(tensors, {"key": key, "digest": _digest(split)}))
    except OSError:
        pass  # a full disk costs the next start its time, nothing else
    return split


def _digest(split: Split) -> str:
    digest = hashlib.blake2b(split.images.permute(0, 2, 3, 1).contiguous().numpy().data, digest_size=16)
    digest.update(split.targets.numpy().data)
    return digest.hexdigest()
