import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.errors import UsageError
from collegium.files import locked, write_whole


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
    with pytest.raises(PermissionError), locked(tmp_path, "busy"):
        pass
