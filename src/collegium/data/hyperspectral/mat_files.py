"""Arrays from MATLAB files, of version 7.3 too."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collegium.errors import DataError
from collegium.extras import how_to_install

Array = NDArray[Any]


def read_mat(path: Path) -> dict[str, Array]:
    """The numeric arrays of a .mat file by their names, with axes in MATLAB's order.

    Raises:
        DataError: there is no such file, it is damaged, or it is of version 7.3 (HDF5) and h5py is not installed.
    """
    import scipy.io

    try:
        contents: dict[str, Any] = scipy.io.loadmat(path)
    except NotImplementedError:  # SciPy's answer to version 7.3
        contents = _read_hdf5(path)
    except Exception as error:  # a damaged file ends in errors of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a MATLAB file ({reason}): put a whole copy of it in its place"
        ) from error
    return {name: a for name, a in contents.items() if isinstance(a, np.ndarray) and a.dtype.kind in "iuf"}


def _read_hdf5(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path} is a MATLAB 7.3 file, which is read with h5py: install it ({how_to_install('hyperspectral')}), "
            "or save the file again with -v7"
        ) from error
    with h5py.File(path) as file:
        # MATLAB writes the last axis first.
        return {name: np.asarray(a).T for name, a in file.items() if isinstance(a, h5py.Dataset)}


def pick(arrays: dict[str, Array], axes: int, wanted: str | None, where: str) -> Array:
    """The array called `wanted`, or the only one with so many axes.

    Args:
        arrays: name -> array; those with an axis of length 1 or 0 do not count as candidates.
        axes: 2 or 3.
        wanted: its name; None to look for it.
        where: the file or folder, for messages.

    Raises:
        DataError: there is none, or more than one.
    """
    if wanted is not None and wanted in arrays:
        array = arrays[wanted]
        if array.ndim != axes:
            raise DataError(f"{wanted} in {where} has shape {array.shape}: expected an array with {axes} axes")
        return array
    found = [name for name, a in arrays.items() if a.ndim == axes and min(a.shape) > 1]
    if wanted is not None or len(found) != 1:
        missed = f"no variable {wanted}" if wanted is not None else f"{len(found)} arrays with {axes} axes, not one"
        there = ", ".join(f"{name} {a.shape}" for name, a in arrays.items()) or "no arrays"
        raise DataError(f"{where} has {missed}: it holds {there}; name the right one in the options")
    return arrays[found[0]]
