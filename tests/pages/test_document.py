"""One file, with its style and script inside."""

import base64
import hashlib
import re
from html import unescape
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


def test_the_policy_names_the_scripts_of_the_page_by_their_hashes() -> None:
    page = document("", Html(), script="rank.js")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert [script.strip() for script in scripts] == [asset("page.js").strip(), asset("rank.js").strip()]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in unescape(policy[1]).split("; "))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["script-src"] == " ".join(f"'sha256-{text}'" for text in hashes)
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert page.index("http-equiv") < page.index("<style>")
