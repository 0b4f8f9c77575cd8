"""Tables: columns and cells once, written for the terminal, Markdown, LaTeX and pages; and records as CSV.

Names in files may hold any character. What is special in a format is escaped here, where its cells are written, and
characters that control a terminal or the direction of writing are left out of all of them.
"""

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from collegium.formatting import MISSING, printable
from collegium.pages.html import Html, element, html, table


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        key: names it in code.
        heading: what stands above it; by default the key.
        unit: of its values.
        meaning: in a page it is shown where the pointer rests.
        left: its cells are text, aligned at the left.
        wrap: a terminal may break its cells into lines; of numbers, which stand at the right, the heading alone.
        code: Markdown shows its cells as code.
    """

    key: str
    heading: str | None = None
    unit: str = ""
    meaning: str = ""
    left: bool = False
    wrap: bool = False
    code: bool = False

    @property
    def name(self) -> str:
        return self.key if self.heading is None else self.heading


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        first: what stands in it; in a page it may be HTML.
        value: what a page sorts it by, where that is not the text.
        strong: it stands out.
        more: further lines.
        style: a class of the page's CSS.
    """

    first: str = MISSING
    value: float | str | None = None
    strong: bool = False
    more: tuple[str, ...] = ()
    style: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.first, *self.more)

    @property
    def text(self) -> str:
        """Its lines in one."""
        return "; ".join(self.lines)


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        columns: in order; the first one names the rows.
        rows: a cell for each column; mere text is a cell too.
        groups: rows in groups with titles, in place of ``rows``.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str]] = ()
    groups: Sequence[tuple[str, Sequence[Sequence[Cell | str]]]] = ()

    @property
    def _groups(self) -> list[tuple[str, list[list[Cell]]]]:
        groups = self.groups or [("", self.rows)]
        return [(title, [[_cell(cell) for cell in row] for row in rows]) for title, rows in groups]

    @property
    def width(self) -> int:
        """Characters of the widest lines of all columns, and two between each."""
        rows = [row for _, rows in self._groups for row in rows]
        heads = [f"{c.name} ({c.unit})" if c.unit else c.name for c in self.columns]
        widths = [max(len(head), *(len(ln) for row in rows for ln in row[k].lines)) for k, head in enumerate(heads)]
        return sum(widths) + 2 * (len(widths) - 1)

    def terminal(self, title: str = "") -> Table:
        """For rich. A group of one row takes one line."""
        made = Table(
            title=shown(title, "bold") if title else None,
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        for k, column in enumerate(self.columns):
            heading, wrap = printable(column.name), column.wrap and column.left
            if column.wrap and not column.left:
                heading = _narrowed(heading, [row[k] for _, rows in self._groups for row in rows])
            head = Text("\n".join(filter(None, (heading, printable(column.unit)))))
            justify = "left" if column.left else "right"
            made.add_column(head, justify=justify, no_wrap=not wrap, overflow="fold" if wrap else "ellipsis")  # type: ignore[arg-type]
        for group, rows in self._groups:
            if group:
                made.add_section()
            if len(rows) > 1 and group:
                made.add_row(shown(group, "bold cyan"))
            for first, *rest in rows:
                name = _terminal(first)
                if group:
                    name = Text.assemble(*([shown(group, "bold cyan"), ", "] if len(rows) == 1 else ["  "]), name)
                made.add_row(name, *map(_terminal, rest))
        return made

    def markdown(self) -> str:
        """GitHub's; groups follow one another without their titles."""
        heads = [markdown(f"{c.name}, {c.unit}" if c.unit else c.name) for c in self.columns]
        lines = [heads, ["---" if column.left else "---:" for column in self.columns]]
        for _, rows in self._groups:
            lines += [[_markdown(c, cell) for c, cell in zip(self.columns, row, strict=True)] for row in rows]
        edges = "".join(f"|{cell}" for cell in lines[1]) + "|"
        return "\n".join(edges if k == 1 else f"| {' | '.join(line)} |" for k, line in enumerate(lines))

    def latex(self) -> str:
        """A tabular for the package booktabs."""
        heads = [latex(f"{c.name} ({c.unit})" if c.unit else c.name) for c in self.columns]
        aligned = "".join("l" if column.left else "r" for column in self.columns)
        lines = [f"\\begin{{tabular}}{{{aligned}}}", "  \\toprule", _latex_row(heads)]
        for group, rows in self._groups:
            lines.append("  \\midrule")
            if group:
                lines.append(f"  \\multicolumn{{{len(heads)}}}{{l}}{{{latex(group)}}} \\\\")
            lines += [_latex_row([_latex(c, cell) for c, cell in zip(self.columns, row, strict=True)]) for row in rows]
        return "\n".join([*lines, "  \\bottomrule", "\\end{tabular}"])

    def html(self, **attributes: object) -> Html:
        """A table that scrolls within its own box."""
        heads = [
            element(
                "th",
                column.name,
                [element("br"), column.unit] if column.unit else "",
                class_="text" if column.left and k else None,
                scope="col",
                title=column.meaning or None,
            )
            for k, column in enumerate(self.columns)
        ]
        lines: list[list[Html]] = []
        for group, rows in self._groups:
            if group:
                title = element("b", group)
                lines.append([element("th", title, scope="rowgroup", colspan=len(self.columns))])
            lines += [[_html(k, self.columns[k], cell) for k, cell in enumerate(row)] for row in rows]
        return table(heads, lines, **attributes)


def several(texts: Sequence[str], value: float | str | None = None) -> Cell:
    """A cell of some lines; where there are none, that of a missing value."""
    return Cell(texts[0], value, more=tuple(texts[1:])) if texts else Cell()


def shown(text: str, style: str = "") -> Text:
    """Text for rich, which takes no markup from it."""
    return Text(printable(text), style=style)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, also within a table."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # no link
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it emphasises nothing
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    special = "|".join(["-(?=-)", *map(re.escape, _TEX)])  # two hyphens would become a dash
    return re.sub(special, lambda found: _TEX.get(found[0], "-{}"), printable(text))


def csv_text(heads: Sequence[str], records: Sequence[Mapping[str, object]], *, digits: int = 8) -> str:
    """Records as CSV; numbers have so many significant digits.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _csv(value, digits) for key, value in record.items()})
    return text.getvalue()


_TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$"}
_TEX |= {"×": "$\\times$", "·": "$\\cdot$", "–": "--", "\N{MINUS SIGN}": "$-$", "<": "$<$", ">": "$>$"}
_TEX |= {"|": "\\textbar{}", "`": "\\textasciigrave{}"}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_FORMULA = tuple("=+-@＝＋－＠")


def _cell(value: Cell | str) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def _narrowed(heading: str, cells: Sequence[Cell]) -> str:
    """The heading in lines that are no wider than its longest word, or the cells, need."""
    texts = [*heading.split(), *(line for cell in cells for line in cell.lines)]
    return textwrap.fill(heading, max(map(len, texts)))


def _terminal(cell: Cell) -> Text:
    return Text("\n".join(map(printable, cell.lines)), style="bold" if cell.strong else "")


def _markdown(column: Column, cell: Cell) -> str:
    lines = [_code(line) if column.code else markdown(line) for line in cell.lines]
    return "<br>".join(f"**{line}**" if cell.strong else line for line in lines)


def _code(text: str) -> str:
    """A code span, in which a table's bar alone is escaped."""
    text = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _latex(column: Column, cell: Cell) -> str:
    """Several lines are a tabular within the cell."""
    lines = [f"\\textbf{{{latex(line)}}}" if cell.strong else latex(line) for line in cell.lines]
    if len(lines) == 1:
        return lines[0]
    aligned, stacked = "l" if column.left else "r", r" \\ ".join(map(_begun, lines))
    return rf"\begin{{tabular}}[t]{{@{{}}{aligned}@{{}}}}{stacked}\end{{tabular}}"


def _latex_row(cells: Sequence[str]) -> str:
    return f"  {' & '.join([_begun(cells[0]), *cells[1:]])} \\\\"


def _begun(text: str) -> str:
    """The text as it may begin a row: the end of the one before takes a star or bracket that follows for its own."""
    return f"{{}}{text}" if text.startswith(("*", "[")) else text


def _html(k: int, column: Column, cell: Cell) -> Html:
    parts: list[object] = []
    for line in cell.lines:
        parts += [element("br")] if parts else []
        parts.append(element("b", line) if cell.strong else line)
    value = "" if cell.value is None and cell.text == MISSING else cell.value
    if k == 0:
        return element("th", html(parts), scope="row", data_value=cell.value)
    style = " ".join(filter(None, ["text" if column.left else "", cell.style])) or None
    return element("td", html(parts), class_=style, data_value=value)


def _csv(value: object, digits: int) -> object:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
