"""Every image file decoded once, so that a broken one is found before training and not in its middle."""

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collegium.errors import DataError
from collegium.files import read_bounded, write_whole

from .passes import counted
from .pixels import examine_image, read_image_file
from .workers import Crew, default_workers

_CHUNK = 64
_FEW = 512  # files that are decoded before other processes have started
_CONTENT = [("digest", "u8"), *((side, "i4") for side in "CHW"), ("peak", "i4"), ("traits", "i4")]
_ROW = np.dtype([("size", "i8"), ("time", "i8"), ("done", "?"), *_CONTENT])  # of a file
_LOOKED = 256  # files that a thread looks up at a time
NOT_PLAIN = -2  # in place of a size
_RECORD = 1 << 30  # bytes that a record may unpack to


@dataclass(frozen=True)
class Verified:
    """What N image files hold.

    Attributes:
        shapes: (N, 3) channels (1 or 3), height and width, upright; 0 where the file is broken.
        digests: (N,) uint64 of the files' contents.
        peaks: (N,) the largest value where a file has 16 bits a channel, else 0.
        traits: (N,) what else is special, see :class:`Found`.
        broken: index of a file that cannot be decoded -> why.
    """

    shapes: NDArray[np.int32]
    digests: NDArray[np.uint64]
    peaks: NDArray[np.int32]
    traits: NDArray[np.int32]
    broken: dict[int, str]


def verify(root: Path, names: Sequence[str], record: Path | None, workers: int | None = None) -> Verified:
    """Decodes image files that have not been decoded before, or that have another size or time since.

    Args:
        root: the folder that `names` are relative to.
        names: the files.
        record: where what was found is kept from one call to the next, also when it is interrupted.
        workers: processes that decode; by default one for each CPU but one.

    Returns:
        What each file holds.
    """
    rows, broken = _recall(record, names, looked_up(root, names))
    missing = np.flatnonzero(~rows["done"])
    if len(missing):
        chunks = np.split(missing, range(_CHUNK, len(missing), _CHUNK))
        count = default_workers() if workers is None else workers
        crew = Crew(_Reader(root, names), count if len(missing) > _FEW else 0)
        try:
            for chunk, found in zip(chunks, counted(crew.run(chunks), "Checking images", len(chunks)), strict=True):
                for index, (content, reason, lasting) in zip(chunk.tolist(), found, strict=True):
                    rows[[name for name, _ in _CONTENT]][index] = content
                    rows["done"][index] = lasting
                    if reason:
                        broken[index] = reason
        finally:
            _keep(record, names, rows, broken)
    shapes = np.stack([rows[side] for side in "CHW"], axis=1)
    return Verified(shapes, rows["digest"], rows["peak"], rows["traits"], broken)


class _Reader:
    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __call__(self, chunk: NDArray[np.int64]) -> list[tuple[tuple[int, ...], str, bool]]:
        return [self._read(self.root / self.names[index]) for index in chunk]

    def _read(self, path: Path) -> tuple[tuple[int, ...], str, bool]:
        """What the record tells of a file, what is wrong if something is, and whether that lies in its own content."""
        nothing = (0,) * (len(_CONTENT) - 1)
        try:
            raw = read_image_file(path)
        except DataError as error:
            return (0, *nothing), str(error), False  # permissions, a network disk: tried again next time
        digest = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
        try:
            found = examine_image(io.BytesIO(raw))
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return (digest, *nothing), reason, not isinstance(error, MemoryError | ImportError)
        return (digest, *found.shape, found.peak, found.traits), "", True


def looked_up(root: Path, names: Sequence[str]) -> NDArray[Any]:
    """A row for each file with its size and time of change; -1 where it cannot be looked up, NOT_PLAIN for a pipe or
    the like."""

    def look(name: str) -> tuple[int, int]:
        try:
            found = os.stat(os.path.join(root, name))
        except OSError:
            return -1, -1
        return (found.st_size if stat.S_ISREG(found.st_mode) else NOT_PLAIN), found.st_mtime_ns

    def look_all(begin: int) -> list[tuple[int, int]]:
        return list(map(look, names[begin : begin + _LOOKED]))

    rows = np.zeros(len(names), _ROW)
    with ThreadPoolExecutor(32) as pool:  # each waits for the disk or the network
        looked = [pair for part in pool.map(look_all, range(0, len(names), _LOOKED)) for pair in part]
    found = np.array(looked, np.int64).reshape(-1, 2)
    rows["size"], rows["time"] = found.T
    return rows


def _recall(record: Path | None, names: Sequence[str], rows: NDArray[Any]) -> tuple[NDArray[Any], dict[int, str]]:
    """The rows, filled in where the record tells of a file that has not changed; and which of these are broken."""
    if record is None:
        return rows, {}
    try:
        raw = io.BytesIO(read_bounded(record, _RECORD))
        with zipfile.ZipFile(raw) as parts:
            if sum(part.file_size for part in parts.infolist()) > _RECORD:
                return rows, {}
        with np.load(raw, allow_pickle=False) as file:
            old = {key: file[key] for key in ("names", "rows", "broken", "reasons")}
        if old["rows"].dtype != _ROW:
            return rows, {}
    except Exception:  # absent or damaged: everything is decoded again
        return rows, {}
    place = {name: k for k, name in enumerate(old["names"].tolist())}
    places = np.array([place.get(os.fsencode(name), -1) for name in names], np.int64)
    known = np.flatnonzero(places >= 0)
    told = old["rows"][places[known]]
    same = told["done"] & (told["size"] == rows["size"][known]) & (told["time"] == rows["time"][known])
    known = known[same]
    rows[known] = told[same]
    reasons = dict(zip(old["broken"].tolist(), old["reasons"].tolist(), strict=True))
    broken = {k: reasons[p] for k, p in zip(known.tolist(), places[known].tolist(), strict=True) if p in reasons}
    return rows, broken


def _keep(record: Path | None, names: Sequence[str], rows: NDArray[Any], broken: dict[int, str]) -> None:
    if record is None:
        return
    file = io.BytesIO()
    np.savez(
        file,
        names=np.array([os.fsencode(name) for name in names]),
        rows=rows,
        broken=np.array(list(broken), np.int64),
        reasons=np.array(list(broken.values()), str),
    )
    try:
        write_whole(record, file.getvalue())
    except OSError:
        pass  # a full disk costs the next start its time, nothing else
