"""Pickles of published data, read without running anything that they could hold."""

import pickle
from typing import Any

import numpy as np


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain Python values, and refuses everything else that a pickle could run."""

    _reconstruct = np.empty(0).__reduce__()[0]  # NumPy's own, whose module was renamed in NumPy 2

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return self._reconstruct
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "_codecs", "encode":
                return _bytes
        raise pickle.UnpicklingError(f"a data file must not refer to {module}.{name}")


def _bytes(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles of protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"a data file must not encode text as {encoding}")
    return text.encode("latin1")
