import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from collegium.data.download import data_root, fetch, fetch_folder, file_md5
from collegium.errors import DataError

CONTENT = bytes(range(256)) * 100


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
    """The address of a server that announces the whole of CONTENT at /short and breaks off half-way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
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
