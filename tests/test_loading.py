import gc
import sys

import pytest

from collegium.loading import import_withheld, quick_imports


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


def test_a_package_that_is_withheld_is_empty_and_can_be_imported_afterwards() -> None:
    sys.modules.pop("colorsys", None)
    with import_withheld("colorsys"):
        import colorsys

        assert not hasattr(colorsys, "rgb_to_hsv")
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    with import_withheld("colorsys"):
        assert sys.modules["colorsys"] is colorsys, "what is imported stays"
    with import_withheld("is_not_installed"), pytest.raises(ImportError):
        import is_not_installed  # noqa: F401
