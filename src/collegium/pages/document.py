"""One HTML file that needs nothing else, and no network."""

from collegium.pages.html import Html, element
from collegium.pages.style import CSS, SCRIPT


def document(title: str, main: Html, *, css: str = "") -> str:
    """The whole page: its title, what it shows, and style of its own besides that of all pages."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(CSS + css)),
    )
    return f'<!doctype html>\n<html lang="en">{head}<body>{main}{element("script", Html(SCRIPT))}</body></html>\n'
