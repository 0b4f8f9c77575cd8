import os
from pathlib import Path

import pytest

from collegium.files import write_whole


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
