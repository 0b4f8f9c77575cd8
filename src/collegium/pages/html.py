"""HTML that is safe by default: whatever is not HTML already is escaped."""

import re
from collections.abc import Sequence
from html import escape

EMPTY = {"img", "meta", "br", "wbr"}


class Html(str):
    """Text that is HTML already."""


def html(value: object) -> Html:
    """The value as HTML: escaped, unless it is HTML already; a list's entries one after the other."""
    if isinstance(value, Html):
        return value
    if isinstance(value, list | tuple):
        return Html("".join(html(entry) for entry in value))
    return Html(escape(str(value)))


def breakable(name: str, after: str = "/\\_:-") -> Html:
    """A name without spaces, of a file or a method, which a narrow column breaks after these characters."""
    signs = re.escape(after)
    return Html(element("wbr").join(html(part) for part in re.split(f"(?<=[{signs}])(?=[^{signs}])", name)))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """``element("td", 3, class_="x")`` is ``<td class="x">3</td>``; an attribute that is None is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in EMPTY:
        assert not children
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{html(children)}</{tag}>")


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], *, caption: object = None, **attributes: object
) -> Html:
    """A table that scrolls within its own box. Cells that are elements ``th`` or ``td`` stay as they are."""
    heads = element("tr", [cell if _is_cell(cell) else element("th", cell, scope="col") for cell in head])
    body = [
        element(
            "tr",
            [
                cell if _is_cell(cell) else element("th", cell, scope="row") if k == 0 else element("td", cell)
                for k, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    parts = [element("caption", caption)] if caption else []
    inner = element("table", parts, element("thead", heads) if head else "", element("tbody", body), **attributes)
    return element("div", inner, class_="scroll", tabindex="0")


def section(title: str, *children: object, id: str) -> Html:
    return element("section", element("h2", title), *children, id=id)


def figure(picture: Html, caption: object, key: object = "") -> Html:
    """A picture, what its lines mean, and what it shows."""
    return element("figure", picture, key, element("figcaption", caption))


def _is_cell(value: object) -> bool:
    return isinstance(value, Html) and value.startswith(("<td", "<th"))
