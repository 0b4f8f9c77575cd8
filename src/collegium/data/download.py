"""Files from the network: checked, and never half written."""

import hashlib
import os
import tarfile
import tempfile
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path

from collegium.errors import DataError

_CHUNK = 1 << 20


def data_root(root: str | None) -> Path:
    """Where data sets lie: `root`, else the environment's COLLEGIUM_DATA, else ~/.cache/collegium."""
    return Path(root or os.environ.get("COLLEGIUM_DATA") or "~/.cache/collegium").expanduser()


def fetch(url: str, target: Path, md5: str | None = None) -> None:
    """Downloads `url` to `target`, which comes into being complete and checked, or not at all.

    Args:
        url: what to download.
        target: the file to make.
        md5: its published checksum; None where there is none, and its length alone is checked.

    Raises:
        DataError: the download fails or is cut short, the checksum is not `md5`, or the file cannot be written.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=60) as source,
            partial.open("wb") as file,
            Progress(*columns, transient=True) as progress,
        ):
            size = source.headers.get("Content-Length")
            task = progress.add_task(target.name, total=int(size) if size else None)
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.advance(task, len(chunk))
        if md5 is None and size and partial.stat().st_size != int(size):
            raise DataError(
                f"{url} gave {partial.stat().st_size} of {size} bytes and has been discarded; repeat the command"
            )
        if md5 is not None and digest.hexdigest() != md5:
            raise DataError(
                f"{url} gave a file with MD5 {digest.hexdigest()}, expected {md5}: it was cut short or altered "
                "on the way and has been discarded; repeat the command"
            )
        partial.replace(target)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url} could not be downloaded to {target} ({error}): repeat the command when network and disk "
            "allow it, or download the file by other means and put it there"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def fetch_folder(url: str, folder: Path, md5: str, *, loose: bool = False) -> None:
    """Makes `folder` from the tar or zip archive at `url`, which holds one folder of that name.

    An archive that already lies beside `folder` is used. What it holds appears complete, or not at all.

    Args:
        url: where the archive is.
        folder: what to make.
        md5: the archive's published checksum.
        loose: the archive holds what belongs into the folder, without the folder.

    Raises:
        DataError: as `fetch`, or the archive cannot be unpacked.
    """
    archive = folder.parent / url.rsplit("/", 1)[-1]
    downloaded = not archive.is_file() or file_md5(archive) != md5
    if downloaded:
        fetch(url, archive, md5)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unpacking:
            contents = Path(unpacking, "contents")
            _unpack(archive, contents)
            (contents if loose else contents / folder.name).replace(folder)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        if not folder.is_dir():  # else another process was first, and its folder is as good
            raise DataError(
                f"{archive} could not be unpacked to {folder} ({error}): make room there, or delete the archive, "
                "and repeat the command"
            ) from error
    if downloaded:
        archive.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        return
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def file_md5(path: Path) -> str:
    """The MD5 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
