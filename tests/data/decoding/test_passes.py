import os
from pathlib import Path

import pytest
import torch

from collegium.data import Split
from collegium.data.decoding.passes import cache_folder, cached, counted


def split(value: int) -> Split:
    images = torch.full((3, 2, 4, 5), value, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return Split(images, torch.arange(3))


def never() -> Split:
    raise AssertionError("made again")


def test_what_is_kept_comes_back(tmp_path):
    file = tmp_path / "new" / "pixels.safetensors"
    made = cached(file, "key", lambda: split(7))
    again = cached(file, "key", never)
    assert torch.equal(again.images, made.images) and torch.equal(again.targets, made.targets)
    assert again.images.is_contiguous(memory_format=torch.channels_last)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_key_makes_it_again(tmp_path):
    cached(tmp_path / "file", "key", lambda: split(7))
    assert cached(tmp_path / "file", "other", lambda: split(8)).images.unique().tolist() == [8]
    assert cached(tmp_path / "file", "other", never).images.unique().tolist() == [8]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"\x01", lambda raw: b"", lambda raw: b"x"]
)
def test_a_damaged_file_is_made_again(tmp_path, damage):
    file = tmp_path / "file"
    cached(file, "key", lambda: split(7))
    file.write_bytes(damage(file.read_bytes()))
    assert cached(file, "key", lambda: split(9)).images.unique().tolist() == [9]


def test_without_a_place_nothing_is_kept(tmp_path):
    assert len(cached(None, "key", lambda: split(1))) == 3
    (tmp_path / "file").write_text("")
    assert len(cached(tmp_path / "file" / "below", "key", lambda: split(1))) == 3


def test_where_things_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path / "root"))
    data = tmp_path / "data"
    assert cache_folder(data) == data / ".collegium"
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(data) and writable(path, mode))
    assert cache_folder(data).parent == tmp_path / "root" / ".collegium"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_folder(data) is None


def test_counting_changes_nothing():
    assert list(counted(iter("abc"), "Letters", 3)) == ["a", "b", "c"]
    assert list(counted(iter("a"), "Letters", 1)) == ["a"]
