"""One HTML file that needs nothing else, and no network."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from collegium.pages.html import Html, element


@cache
def asset(name: str) -> Html:
    """The text of a file of ``assets/``: CSS or JavaScript, which stands in the page as it is."""
    return Html((files("collegium.pages") / "assets" / name).read_text(encoding="utf-8"))


def document(title: str, main: Html, *, style: str | None = None, script: str | None = None) -> str:
    """The whole page. Its policy lets the browser load nothing and run these scripts alone, whatever its text holds.

    Args:
        title: of the window.
        main: what it shows.
        style: an asset with style of its own, besides that of all pages.
        script: an asset with a script of its own.
    """
    styles = ["page.css", *([style] if style else [])]
    scripts = [Html(f"\n{asset(name)}") for name in ("page.js", *([script] if script else []))]
    policy = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src {' '.join(map(_digest, scripts))}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content="; ".join(policy)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", [Html(f"\n{asset(name)}") for name in styles]),
    )
    body = element("body", main, [element("script", text) for text in scripts])
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _digest(text: str) -> str:
    """By which a Content-Security-Policy knows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
