"""One file, with its style and script inside."""

from importlib.resources import files

import pytest

from collegium.pages.document import asset, document
from collegium.pages.html import Html, element


@pytest.mark.parametrize("name", ["page.css", "page.js", "study.css", "rank.css", "rank.js"])
def test_every_asset_comes_with_the_package_and_ends_no_element_early(name: str) -> None:
    text = (files("collegium.pages") / "assets" / name).read_text(encoding="utf-8")
    assert text.strip() and asset(name) == text
    assert "</style" not in text.lower() and "</script" not in text.lower()


def test_no_asset_is_left_over() -> None:
    assert {file.name for file in (files("collegium.pages") / "assets").iterdir()} == {
        *("page.css", "page.js", "study.css", "rank.css", "rank.js")
    }


def test_style_and_script_stand_in_the_page_as_they_are() -> None:
    page = document("a < b", element("main", "x & y"), style="study.css")
    assert "<title>a &lt; b</title>" in page and "<main>x &amp; y</main>" in page
    for name in ("page.css", "page.js", "study.css"):
        assert asset(name) in page
    assert asset("rank.css") not in document("", Html(), style="study.css")
