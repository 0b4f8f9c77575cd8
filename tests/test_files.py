import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.errors import DataError, StorageError, UsageError
from collegium.files import check_whole, copy_bounded, inside, locked, read_bounded, write_checked, write_whole


@pytest.mark.parametrize(("content", "expected"), [("grün", "grün".encode()), (b"\x00\x01", b"\x00\x01")])
def test_text_and_bytes_are_written(content: str | bytes, expected: bytes, tmp_path: Path) -> None:
    write_whole(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_kill_before_the_file_is_synced_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "file", "old")

    def die(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_is_locked_once_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with locked(folder, "busy"):
        with pytest.raises(UsageError, match="^busy$"), locked(folder, "busy"):
            pass
    with locked(folder, "busy"):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from collegium.files import locked\n"
    script += "with locked(Path(sys.argv[1]), 'busy'): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="busy"), locked(tmp_path, "busy"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(tmp_path, "busy"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="flock is POSIX's")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_that_cannot_lock_is_used_with_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", fail)
    entered = []
    with pytest.warns(UserWarning, match="cannot be locked .*make sure that no other process uses it"):
        with locked(tmp_path, "busy"):
            entered.append(True)
    assert entered and [entry.name for entry in tmp_path.iterdir()] == [".lock"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied; change the permissions"), locked(tmp_path, "busy"):
        pass


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    for name in ("page", "page.part"):
        (tmp_path / name).symlink_to(other)
    write_whole(tmp_path / "page", "new")
    assert (tmp_path / "page").read_text() == "new" and not (tmp_path / "page").is_symlink()
    assert other.read_text() == "mine" and not (tmp_path / "page.part").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_refused(there: bool, tmp_path: Path) -> None:
    other = tmp_path / "other"
    if there:
        other.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(other)
    with pytest.raises(StorageError, match=r"\.lock: .*it is a link"), locked(tmp_path / "run", "busy"):
        pass
    assert (other.read_text() == "mine") if there else not other.exists()


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "choose a folder"), (errno.EIO, "Input/output error")],
)
def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(
    code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "file", "old")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"cannot write .*file: .*{advice}"):
        write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_byte_that_is_flipped_is_noticed(tmp_path: Path) -> None:
    file, content = tmp_path / "file", bytes(range(256))
    write_checked(file, content)
    check_whole(file)
    for place in range(0, 256, 5):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="file is damaged"):
            check_whole(file)
    (tmp_path / "file.sha256").unlink()
    check_whole(file)  # of before there were checksums


def test_a_byte_of_a_checksum_that_is_flipped_is_noticed(tmp_path: Path) -> None:
    write_checked(tmp_path / "file", "content")
    checksum = tmp_path / "file.sha256"
    content = checksum.read_bytes()
    for place, bit in itertools.product(range(len(content)), range(8)):
        checksum.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        with pytest.raises(DataError, match="file is damaged"):
            check_whole(tmp_path / "file")
    for length in range(len(content)):
        checksum.write_bytes(content[:length])
        with pytest.raises(DataError, match="file is damaged"):
            check_whole(tmp_path / "file")


def test_a_file_that_is_too_long_is_not_read_to_compare_it(tmp_path: Path) -> None:
    write_checked(tmp_path / "file", "four")
    os.truncate(tmp_path / "file", 10**12)
    with pytest.raises(DataError, match="it has more than the 4 bytes"):
        check_whole(tmp_path / "file", 4)


def test_a_kill_between_file_and_checksum_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checked(tmp_path / "file", "old")
    written = []

    def die(path: Path, content: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_whole(path, content)

    monkeypatch.setattr("collegium.files.write_whole", die)
    with pytest.raises(KeyboardInterrupt):
        write_checked(tmp_path / "file", "new")
    check_whole(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("four")
    assert read_bounded(tmp_path / "file", 4) == b"four"
    with pytest.raises(DataError, match="more than the 3 bytes"):
        read_bounded(tmp_path / "file", 3)
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe", "endless"):
        with pytest.raises(DataError, match="it is not a file"):
            read_bounded(tmp_path / name, 10)
        with pytest.raises(DataError, match="it is not a file"):
            copy_bounded(tmp_path / name, tmp_path / "copy", 10)
    copy_bounded(tmp_path / "file", tmp_path / "copy", 4)
    assert (tmp_path / "copy").read_bytes() == b"four"
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    for limit in (3, 2**39):  # of which not a byte is read
        with pytest.raises(DataError, match="more than the [0-9,]+ bytes"):
            read_bounded(tmp_path / "large", limit)
        with pytest.raises(DataError, match="more than the [0-9,]+ bytes"):
            copy_bounded(tmp_path / "large", tmp_path / "copied", limit)
    assert not (tmp_path / "copied").exists()
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 10)


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "a/b", "a\\b", "..\\x", "a\0b", "-x", "~", "a\nb", "x" * 300])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the name of a file"):
        inside(tmp_path, "peers", name)
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(DataError, match="is a link"):
        inside(tmp_path, "link", "etc")
    assert inside(tmp_path, "peers", "peer0") == tmp_path / "peers" / "peer0"


def test_a_new_file_is_never_without_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("collegium.files.write_whole", lambda path, content: written.append(path.name))
    write_checked(tmp_path / "file", "new")
    (tmp_path / "file").touch()
    write_checked(tmp_path / "file", "newer")
    assert written == ["file.sha256", "file", "file", "file.sha256"]
