import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.io

from collegium.data.hyperspectral.mat_files import pick, read_mat
from collegium.errors import DataError

HDF5_HEADER = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"


def test_numeric_arrays_are_read_by_their_names(tmp_path):
    file = tmp_path / "scene.mat"
    scipy.io.savemat(file, {"cube": np.ones((2, 3, 4)), "gt": np.zeros((2, 3), np.uint8), "note": "x", "cell": [{}]})
    arrays = read_mat(file)
    assert {name: a.shape for name, a in arrays.items()} == {"cube": (2, 3, 4), "gt": (2, 3)}


@pytest.mark.parametrize("content", [b"", b"no MATLAB file at all, only some text that is long enough" * 9])
def test_a_damaged_file_is_refused(tmp_path, content):
    file = tmp_path / "scene.mat"
    file.write_bytes(content)
    with pytest.raises(DataError, match="scene.mat cannot be read as a MATLAB file .*put a whole copy"):
        read_mat(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="none.mat cannot be read"):
        read_mat(tmp_path / "none.mat")


def test_version_7_3_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    file = tmp_path / "new.mat"
    file.write_bytes(HDF5_HEADER)
    with pytest.raises(DataError, match="7.3 file, which is read with h5py: install it"):
        read_mat(file)


def test_version_7_3_is_read_with_axes_in_matlabs_order(tmp_path, monkeypatch):
    class Dataset(np.ndarray):
        pass

    class File(dict):
        def __init__(self, path: object) -> None:
            super().__init__(cube=np.arange(24.0).reshape(4, 3, 2).view(Dataset), group=SimpleNamespace())

        def __enter__(self) -> "File":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    module = ModuleType("h5py")
    module.File, module.Dataset = File, Dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", module)
    file = tmp_path / "new.mat"
    file.write_bytes(HDF5_HEADER)
    cube = read_mat(file)["cube"]
    assert cube.shape == (2, 3, 4) and cube[1, 2, 3] == 23 and cube[1, 0, 0] == 1


def test_the_only_array_with_so_many_axes_is_found():
    arrays = {"cube": np.ones((2, 3, 4)), "gt": np.ones((2, 3)), "scale": np.ones((1, 1)), "row": np.ones((1, 9))}
    assert pick(arrays, 3, None, "here") is arrays["cube"]
    assert pick(arrays, 2, None, "here") is arrays["gt"]
    assert pick(arrays, 2, "row", "here") is arrays["row"]


@pytest.mark.parametrize(
    ("axes", "wanted", "message"),
    [
        (3, None, r"here has 0 arrays with 3 axes, not one: it holds gt \(2, 3\), other \(4, 5\)"),
        (2, None, "here has 2 arrays with 2 axes, not one"),
        (2, "truth", "here has no variable truth: it holds gt"),
        (3, "gt", r"gt in here has shape \(2, 3\): expected an array with 3 axes"),
    ],
)
def test_what_is_not_clear_is_refused(axes, wanted, message):
    with pytest.raises(DataError, match=message):
        pick({"gt": np.ones((2, 3)), "other": np.ones((4, 5))}, axes, wanted, "here")
