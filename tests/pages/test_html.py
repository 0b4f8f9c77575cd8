"""HTML that is safe by default."""

import pytest

from collegium.pages.html import breakable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("birds/IMG_0001.jpg", "birds/<wbr>IMG_<wbr>0001.jpg"),
        ("dml:temperature=0.5", "dml:<wbr>temperature=0.5"),
        ("one word", "one word"),
        ("<b>__x/", "&lt;b&gt;__<wbr>x/"),
        ("", ""),
    ],
)
def test_names_break_after_their_separators(name: str, shown: str) -> None:
    assert breakable(name) == shown


def test_the_characters_can_be_chosen() -> None:
    assert breakable("dml:label_smoothing=0.1", after=":") == "dml:<wbr>label_smoothing=0.1"
