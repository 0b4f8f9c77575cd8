import gc

import pytest

from collegium.loading import quick_imports


@pytest.mark.parametrize("collecting", [True, False])
def test_collecting_is_as_it_was_after_an_error_too(collecting: bool) -> None:
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(ImportError), quick_imports():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == collecting
    finally:
        gc.enable()
