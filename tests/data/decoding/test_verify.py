import os

import numpy as np
import pytest

from collegium.data.decoding import verify as module
from collegium.data.decoding.verify import verify


def test_shapes_digests_and_broken_files(tmp_path, write_images):
    write_images(tmp_path / "a", 2, (9, 8))
    write_images(tmp_path / "b", 1, (7, 5), mode="L")
    (tmp_path / "b" / "cut.png").write_bytes((tmp_path / "a" / "00.png").read_bytes()[:60])
    (tmp_path / "b" / "copy.png").write_bytes((tmp_path / "a" / "00.png").read_bytes())
    names = ["a/00.png", "a/01.png", "b/00.png", "b/cut.png", "b/copy.png", "b/absent.png"]
    found = verify(tmp_path, names, None)
    assert found.shapes.tolist() == [[3, 8, 9], [3, 8, 9], [1, 5, 7], [0, 0, 0], [3, 8, 9], [0, 0, 0]]
    assert found.digests[0] == found.digests[4] and len(set(found.digests[:4].tolist())) == 4
    assert list(found.broken) == [3, 5] and "No such file" in found.broken[5]


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded."""
    files = []
    read = module._Reader._read
    monkeypatch.setattr(module._Reader, "_read", lambda self, path: files.append(path.name) or read(self, path))
    return files


def test_a_file_is_decoded_once_until_it_changes(tmp_path, write_images, decoded):
    files = write_images(tmp_path, 4)
    files[3].write_bytes(b"no image")
    names, record = [file.name for file in files], tmp_path / "record.npz"
    first = verify(tmp_path, names, record)
    assert sorted(decoded) == names
    decoded.clear()
    again = verify(tmp_path, names[::-1][:3], record)
    assert decoded == []
    assert again.broken == {0: first.broken[3]}
    assert again.digests.tolist() == first.digests[::-1][:3].tolist()
    os.utime(files[1], (1, 1))
    files[3].write_bytes(files[0].read_bytes())
    assert verify(tmp_path, names, record).broken == {}
    assert decoded == [names[1], names[3]]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_record_is_made_again(tmp_path, write_images, decoded, damage):
    names = [file.name for file in write_images(tmp_path, 2)]
    record = tmp_path / "record.npz"
    verify(tmp_path, names, record)
    record.write_bytes(damage or record.read_bytes()[:-30])
    verify(tmp_path, names, record)
    verify(tmp_path, names, record)
    assert decoded == names * 2


def test_what_was_decoded_before_an_interruption_is_kept(tmp_path, write_images, decoded, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    names, record = [file.name for file in write_images(tmp_path, 6)], tmp_path / "record.npz"
    read = module._Reader._read

    def stopping(self, path):
        if path.name == names[4]:
            raise KeyboardInterrupt
        return read(self, path)

    monkeypatch.setattr(module._Reader, "_read", stopping)
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, names, record)
    monkeypatch.setattr(module._Reader, "_read", read)
    decoded.clear()
    assert len(verify(tmp_path, names, record).shapes) == 6
    assert decoded == names[4:]


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path, write_images):
    names = [file.name for file in write_images(tmp_path, 2)]
    assert np.all(verify(tmp_path, names, tmp_path / "absent" / "record.npz").shapes > 0)


def test_workers_find_the_same(tmp_path, write_images, monkeypatch):
    names = [file.name for file in write_images(tmp_path, 9)]
    (tmp_path / names[5]).write_bytes(b"no image")
    alone = verify(tmp_path, names, None, workers=0)
    monkeypatch.setattr(module, "_FEW", 0)
    monkeypatch.setattr(module, "_CHUNK", 2)
    shared = verify(tmp_path, names, None, workers=2)
    assert shared.digests.tolist() == alone.digests.tolist() and shared.broken == alone.broken


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError(), ImportError("no codec")])
def test_what_is_not_the_file_s_own_fault_is_tried_again(tmp_path, write_images, monkeypatch, error):
    names, record = [file.name for file in write_images(tmp_path, 2)], tmp_path / "record.npz"

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as now:
        where = "collegium.files._open_regular" if isinstance(error, OSError) else f"{module.__name__}.examine_image"
        now.setattr(where, fails)
        assert sorted(verify(tmp_path, names, record).broken) == [0, 1]
    assert verify(tmp_path, names, record).broken == {}
