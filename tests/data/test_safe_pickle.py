import io
import os
import pickle

import numpy as np
import pytest

from collegium.data.safe_pickle import ArrayUnpickler

OLD_MODULE, NEW_MODULE = b"numpy.core.multiarray", b"numpy._core.multiarray"
ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("module", [OLD_MODULE, NEW_MODULE])
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_either_numpy_are_read(module, protocol):
    raw = pickle.dumps({"rows": ROWS, "names": ["a"]}, protocol)
    if protocol == 2:  # later ones write the length of each name
        raw = raw.replace(NEW_MODULE, OLD_MODULE).replace(OLD_MODULE, module)
    content = ArrayUnpickler(io.BytesIO(raw)).load()
    assert (content["rows"] == ROWS).all() and content["names"] == ["a"]


@pytest.mark.parametrize("harmful", [os.system, eval, np.load])
def test_a_pickle_that_would_run_something_is_refused(harmful):
    with pytest.raises(pickle.UnpicklingError, match="must not refer to"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(harmful))).load()


def test_bytes_are_no_way_to_other_codecs():
    packed = b"c_codecs\nencode\n(Vx\nVzip\ntR."
    with pytest.raises(pickle.UnpicklingError, match="must not encode text as zip"):
        ArrayUnpickler(io.BytesIO(packed)).load()
