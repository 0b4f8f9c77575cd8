import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from collegium.data import download
from collegium.data.download import data_root, fetch, fetch_folder, file_md5
from collegium.errors import DataError

CONTENT = bytes(range(256)) * 100
AWAY = {"/insecure": "http://localhost:{port}/whole", "/file": "file:///etc/hostname", "/near": "/whole"}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def server():
    """The address of a server that announces the whole of CONTENT at /short and breaks off half-way, and leads away."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in AWAY:
                self.send_response(302)
                self.send_header("Location", AWAY[self.path].format(port=self.server.server_port))
                self.end_headers()
                return
            if self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(CONTENT * 50)
                return
            found = self.path in ("/whole", "/short")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[: len(CONTENT) // 2])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_alone(server, tmp_path):
    target = tmp_path / "new" / "file"
    fetch(f"{server}/whole", target, md5(CONTENT))
    assert target.read_bytes() == CONTENT
    assert file_md5(target) == md5(CONTENT)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "expected", "message"),
    [
        ("/whole", "0" * 32, f"MD5 {md5(CONTENT)}, expected {'0' * 32}.*repeat"),
        ("/short", md5(CONTENT), f"expected {md5(CONTENT)}.*cut short"),
        ("/missing", md5(CONTENT), "could not be downloaded.*404.*repeat"),
    ],
)
def test_a_download_that_fails_leaves_nothing_behind(server, tmp_path, path, expected, message):
    with pytest.raises(DataError, match=message):
        fetch(server + path, tmp_path / "file", expected)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_keeps_the_file_that_was_there(server, tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(DataError):
        fetch(f"{server}/short", target, md5(CONTENT))
    assert target.read_text() == "old"


def test_an_archive_becomes_a_folder_and_is_removed(tmp_path):
    source = archive(tmp_path / "set.tar.gz", {"set/a": b"A", "set/b": b"B"})
    root = tmp_path / "root"
    fetch_folder(source.as_uri(), root / "set", file_md5(source))
    assert {path.name: path.read_bytes() for path in (root / "set").iterdir()} == {"a": b"A", "b": b"B"}
    assert list(root.iterdir()) == [root / "set"]


def test_an_archive_that_the_user_put_there_is_used_and_kept(tmp_path):
    source = archive(tmp_path / "set.tar.gz", {"set/a": b"A"})
    fetch_folder("http://127.0.0.1:9/set.tar.gz", tmp_path / "set", file_md5(source))
    assert (tmp_path / "set" / "a").read_bytes() == b"A"
    assert source.is_file()


@pytest.mark.parametrize("name", ["../escaped", "other/a"])
def test_an_archive_that_holds_something_else_is_refused(tmp_path, name):
    source = archive(tmp_path / "set.tar.gz", {name: b"A"})
    root = tmp_path / "root"
    with pytest.raises(DataError, match="could not be unpacked"):
        fetch_folder(source.as_uri(), root / "set", file_md5(source))
    assert [path.name for path in root.iterdir()] == ["set.tar.gz"]
    assert not (tmp_path / "escaped").exists()


def test_where_data_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path))
    assert data_root("given") == Path("given")
    assert data_root(None) == tmp_path
    monkeypatch.delenv("COLLEGIUM_DATA")
    assert data_root(None) == Path.home() / ".cache" / "collegium"


def test_without_a_checksum_the_length_is_checked(server, tmp_path):
    fetch(f"{server}/whole", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(DataError, match=f"gave {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
        fetch(f"{server}/short", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_zip_archive_and_one_without_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("set/a", b"A")
    fetch_folder("http://127.0.0.1:9/set.zip", tmp_path / "set", file_md5(tmp_path / "set.zip"))
    assert (tmp_path / "set" / "a").read_bytes() == b"A"
    source = archive(tmp_path / "loose.tar.gz", {"a": b"A", "./b/c": b"C"})
    fetch_folder("http://127.0.0.1:9/loose.tar.gz", tmp_path / "loose", file_md5(source), loose=True)
    assert (tmp_path / "loose" / "b" / "c").read_bytes() == b"C"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loose", "loose.tar.gz", "set", "set.zip"]


def test_a_broken_zip_archive(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("set/a", b"A" * 1000)
    path.write_bytes(path.read_bytes().replace(b"A" * 1000, b"B" * 1000))
    with pytest.raises(DataError, match="could not be unpacked"):
        fetch_folder("http://127.0.0.1:9/set.zip", tmp_path / "set", file_md5(path))
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize("url", ["http://example.org/set.zip", "ftp://example.org/a", "file:/etc/hostname", "set.zip"])
def test_nothing_but_https_is_downloaded(monkeypatch, tmp_path, url):
    monkeypatch.undo()
    with pytest.raises(DataError, match="is not an https address: nothing was downloaded"):
        fetch(url, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/insecure", "/file"])
def test_a_redirect_to_another_kind_of_address_is_refused(server, tmp_path, path):
    with pytest.raises(DataError):
        fetch(server + path, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    fetch(f"{server}/near", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/whole", "/endless"])
def test_a_download_is_no_larger_than_expected(server, tmp_path, path):
    with pytest.raises(DataError, match="has more than the 0 MiB expected and was not downloaded"):
        fetch(server + path, tmp_path / "file", most=len(CONTENT) - 1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link_in_the_place_of_the_partial_file(server, tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / f".file.{os.getpid()}.part").symlink_to(other)
    fetch(f"{server}/whole", tmp_path / "file")
    assert other.read_text() == "precious" and (tmp_path / "file").read_bytes() == CONTENT


def special(kind: bytes, name: str = "set/x", link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        special(tarfile.SYMTYPE, link="/etc"),
        special(tarfile.SYMTYPE, link="a"),
        special(tarfile.LNKTYPE, link="set/a"),
        special(tarfile.FIFOTYPE),
        special(tarfile.CHRTYPE),
        special(tarfile.REGTYPE, name="/set/x"),
        special(tarfile.REGTYPE, name="set/../../x"),
    ],
)
def test_a_tar_archive_holds_files_and_folders_within_it_alone(tmp_path, entry):
    source = tmp_path / "set.tar.gz"
    with tarfile.open(source, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("set/a"))
        tar.addfile(entry)
    with pytest.raises(DataError, match="could not be unpacked .* is no file or folder within it") as error:
        fetch_folder(source.as_uri(), tmp_path / "root" / "set", file_md5(source))
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
    assert not (tmp_path / "root" / "set").exists() and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "mode"), [("set/../../x", 0), ("/set/x", 0), ("C:/x", 0), ("set/x", 0o120777)])
def test_so_does_a_zip_archive(tmp_path, name, mode):
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w") as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        file.writestr(entry, "/etc/hostname")
    with pytest.raises(DataError, match="is no file or folder within it"):
        fetch_folder(source.as_uri(), tmp_path / "root" / "set", file_md5(source))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("limit", ["_UNPACKED", "_MEMBERS"])
def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch, tmp_path, kind, limit):
    source = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as file:
            for name in "abc":
                file.writestr(f"set/{name}", bytes(100_000))
    else:
        archive(source, {f"set/{name}": bytes(100_000) for name in "abc"})
    assert source.stat().st_size < 2000
    monkeypatch.setattr(download, limit, {"_UNPACKED": 200_000, "_MEMBERS": 2}[limit])
    with pytest.raises(DataError, match="it holds more than"):
        fetch_folder(source.as_uri(), tmp_path / "root" / "set", file_md5(source))
    assert not (tmp_path / "root" / "set").exists()
