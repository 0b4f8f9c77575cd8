"""One HTML file that needs nothing else, and no network."""

from functools import cache
from importlib.resources import files

from collegium.pages.html import Html, element


@cache
def asset(name: str) -> Html:
    """The text of a file of ``assets/``: CSS or JavaScript, which stands in the page as it is."""
    return Html((files("collegium.pages") / "assets" / name).read_text(encoding="utf-8"))


def document(title: str, main: Html, *, style: str | None = None) -> str:
    """The whole page.

    Args:
        title: of the window.
        main: what it shows.
        style: an asset with style of its own, besides that of all pages.
    """
    styles = ["page.css", *([style] if style else [])]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", [Html(f"\n{asset(name)}") for name in styles]),
    )
    script = element("script", Html(f"\n{asset('page.js')}"))
    return f'<!doctype html>\n<html lang="en">{head}<body>{main}{script}</body></html>\n'
