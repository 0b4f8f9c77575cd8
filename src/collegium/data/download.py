"""Files from the network: checked, and never half written."""

import hashlib
import os
import stat
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

from collegium.errors import DataError
from collegium.files import read_bounded

from .plain_files import shown

_CHUNK = 1 << 20
_MOST = 2 << 30  # bytes of a download, unless more is asked for
_UNPACKED, _MEMBERS = 16 << 30, 1_000_000  # bytes and files that an archive may hold


def _check_address(url: str) -> None:
    """Raises DataError where others could read or change on the way what comes from `url`."""
    if urllib.parse.urlsplit(url).scheme.lower() != "https":
        raise DataError(f"{url[:150]} is not an https address: nothing was downloaded")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def data_root(root: str | None) -> Path:
    """Where data sets lie: `root`, else the environment's COLLEGIUM_DATA, else ~/.cache/collegium."""
    return Path(root or os.environ.get("COLLEGIUM_DATA") or "~/.cache/collegium").expanduser()


def fetch(url: str, target: Path, md5: str | None = None, *, most: int = _MOST) -> None:
    """Downloads `url` to `target`, which comes into being complete and checked, or not at all.

    Args:
        url: what to download, by https, also where it is redirected.
        target: the file to make.
        md5: its published checksum; None where there is none, and its length alone is checked: who reads the file
            must then check what it holds.
        most: bytes that it may have.

    Raises:
        DataError: another address than an https one, more than `most` bytes, the download fails or is cut short, the
            checksum is not `md5`, or the file cannot be written.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.md5(usedforsecurity=False)
    _check_address(url)
    opener = urllib.request.build_opener(_Redirects)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # of a process with the same number that was killed; nothing is written through
        with (
            opener.open(url, timeout=60) as source,
            partial.open("xb") as file,
            Progress(*columns, transient=True) as progress,
        ):
            told = source.headers.get("Content-Length", "")
            size = int(told) if told.isdecimal() and len(told) < 20 else None
            task = progress.add_task(target.name, total=size)
            received = 0
            while chunk := source.read(_CHUNK):
                received += len(chunk)
                if max(received, size or 0) > most:
                    raise DataError(
                        f"{url} has more than the {most >> 20} MiB expected and was not downloaded: download the file "
                        f"by other means, if it is the right one, and put it to {target}"
                    )
                file.write(chunk)
                digest.update(chunk)
                progress.advance(task, len(chunk))
        if md5 is None and size is not None and received != size:
            raise DataError(f"{url} gave {received} of {size} bytes and has been discarded; repeat the command")
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
        DataError: as `fetch`, or the archive cannot be unpacked, holds anything but files and folders, leads out of
            `folder`, or holds more than 16 GiB or a million files.
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
    count = size = 0

    def check(name: str, bytes: int, plain: bool) -> None:
        nonlocal count, size
        count, size = count + 1, size + bytes
        parts = name.replace("\\", "/").split("/")
        if not plain or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise tarfile.TarError(f"{shown(name)[:80]} is no file or folder within it")
        if size > _UNPACKED or count > _MEMBERS:
            raise tarfile.TarError(f"it holds more than {_UNPACKED >> 30} GiB or {_MEMBERS} files")

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                mode = entry.external_attr >> 16
                check(entry.filename, entry.file_size, stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR))
            file.extractall(folder)  # never more of a file than its entry says
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            check(member.name, member.size, member.isreg() or member.isdir())
            tar.extract(member, folder, filter="data")


def read_checked(path: Path, md5: str, *, delete: Path) -> bytes:
    """The content of a published file.

    Args:
        path: the file, of at most 1 GiB.
        md5: its published checksum.
        delete: what must be deleted so that it is downloaded again; messages say so.

    Raises:
        DataError: it cannot be read, or its checksum is another.
    """
    again = f"delete {delete} and repeat the command to download it again"
    try:
        content = read_bounded(path, 1 << 30)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {again}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{path} is truncated or altered: its MD5 is {found}, expected {md5}; {again}")
    return content


def file_md5(path: Path) -> str:
    """The MD5 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
