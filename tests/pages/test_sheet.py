"""One table in every format, and names that would break a format, or do worse."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from collegium.pages.html import Html
from collegium.pages.sheet import Cell, Column, Sheet, csv_text, latex, markdown, several, shown

COLUMNS = (Column("method", left=True, code=True), Column("one", "one network", "%", "mean over the peers"))
ROWS = [["dml", Cell("91.00", 91.0)], ["ffl", Cell("94.00", 94.0, strong=True)], ["kd", Cell()]]
SHEET = Sheet(COLUMNS, ROWS)
WICKED = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "a|b",
    "a\nb",
    "\x1b]0;title\x07a",
    "[/bold]",
    "<b>a</b>",
    "\\",
    "a`b",
    "%&_#{}~^",
]


def printed(table: object, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_headings_units_and_cells() -> None:
    lines = [line.split() for line in printed(SHEET.terminal("Title")).splitlines()]
    assert ["Title"] in lines and ["method", "%"] in lines
    assert ["ffl", "94.00"] in lines and ["kd", "–"] in lines


def test_the_terminal_shows_a_group_of_one_row_in_one_line() -> None:
    groups = [("A", [["fused", "1"], ["peer", "2"]]), ("B", [["fused", "3"]])]
    lines = [line.split() for line in printed(Sheet(COLUMNS, groups=groups).terminal()).splitlines()]
    assert ["A"] in lines and ["fused", "1"] in lines and ["peer", "2"] in lines and ["B,", "fused", "3"] in lines


def test_markdown() -> None:
    assert SHEET.markdown().splitlines() == [
        "| method | one network, % |",
        "|---|---:|",
        "| `dml` | 91.00 |",
        "| `ffl` | **94.00** |",
        "| `kd` | – |",
    ]


def test_latex() -> None:
    assert Sheet(COLUMNS, groups=[("2×a", ROWS[1:])]).latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"  \toprule",
        r"  method & one network (\%) \\",
        r"  \midrule",
        r"  \multicolumn{2}{l}{2$\times$a} \\",
        r"  ffl & \textbf{94.00} \\",
        r"  kd & -- \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_html() -> None:
    page = Sheet(COLUMNS, ROWS).html(class_="sortable")
    assert '<th scope="col" title="mean over the peers">one network<br>%</th>' in page
    assert '<th scope="row">ffl</th><td data-value="94.0"><b>94.00</b></td>' in page
    assert '<td data-value="">–</td>' in page
    groups = Sheet(COLUMNS, groups=[("A", ROWS)]).html()
    assert '<th scope="rowgroup" colspan="2"><b>A</b></th>' in groups
    assert (
        '<td class="text failed">x</td>'
        in Sheet([Column("a"), Column("b", left=True)], [["1", Cell("x", style="failed")]]).html()
    )


def test_lines_of_a_cell() -> None:
    sheet = Sheet([Column("a"), Column("b")], [["x", several(["1", "2"], 1.0)], ["y", several([])]])
    assert "| x | 1<br>2 |" in sheet.markdown() and "| y | – |" in sheet.markdown()
    assert r"x & \begin{tabular}[t]{@{}r@{}}1 \\ 2\end{tabular} \\" in sheet.latex()
    begun = Sheet([Column("a", left=True)], [[several(["x", "[y]"])]]).latex()
    assert r"\begin{tabular}[t]{@{}l@{}}x \\ {}[y]\end{tabular}" in begun  # "\\ [y]" would be a length
    assert '<td data-value="1.0">1<br>2</td>' in sheet.html()
    assert [line.split() for line in printed(sheet.terminal()).splitlines() if "2" in line] == [["2"]]


def test_csv_has_significant_digits_and_empty_cells() -> None:
    text = csv_text(["name", "n", "value", "missing"], [{"name": "a,b", "n": 3, "value": 2 / 3, "missing": None}])
    assert text == 'name,n,value,missing\n"a,b",3,0.66666667,\n'
    assert csv_text(["x"], [{"x": 2 / 3}], digits=3) == "x\n0.667\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\n=1", "＝1"])
def test_csv_has_no_formula(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text(["name", "value"], [{"name": text, "value": -1.5}])))
    assert row["name"].startswith("'") and row["value"] == "-1.5"


def test_csv_has_one_line_a_record() -> None:
    assert csv_text(["name"], [{"name": "a\r\nb"}, {"name": "a\u2028b"}]) == "name\na  b\na b\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        (r"a\|b", r"a\\\|b"),
        ("<script>", "&lt;script>"),
        ("p < 0.001", "p < 0.001"),
        ("&lt;b>", "&amp;lt;b>"),
        ("*a* _b_ mean_peer", r"\*a\* \_b\_ mean_peer"),
        ("![x](http://y)", r"![x\](http://y)"),
        ("+1.20 [0.30, 2.10]", "+1.20 [0.30, 2.10]"),
        ("`a`", r"\`a\`"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, written: str) -> None:
    assert markdown(text) == written


def test_a_code_span_holds_bars_and_backticks() -> None:
    table = Sheet([Column("a", code=True)], [["a|b"], ["`x``"], ["a\nb"]]).markdown()
    assert table.splitlines()[2:] == [r"| `a\|b` |", "| ``` `x`` ``` |", "| `a b` |"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\n% b", r"a \% b"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("--share-until --- a|b `c`", r"-{}-share-until -{}-{}- a\textbar{}b \textasciigrave{}c\textasciigrave{}"),
        ("a&b_c#d$e^f~g", r"a\&b\_c\#d\$e\textasciicircum{}f\textasciitilde{}g"),
    ],
)
def test_latex_prints_text_as_it_is(text: str, written: str) -> None:
    assert latex(text) == written


@pytest.mark.parametrize("text", ["[1cm]", "*"])
def test_the_end_of_a_row_in_latex_takes_nothing_of_the_next(text: str) -> None:
    assert rf"  {{}}{text} & 1 \\" in Sheet([Column("a"), Column("b")], [["x", "2"], [text, "1"]]).latex()


def test_names_of_any_kind_break_no_format(tmp_path: Path) -> None:
    sheet = Sheet([Column("name", left=True), Column("x")], [[text, "1"] for text in WICKED])
    rows = sheet.markdown().splitlines()
    assert len(rows) == 2 + len(WICKED)
    assert all(row.replace("\\\\", "").replace("\\|", "").count("|") == 3 for row in rows)
    assert sheet.latex().count("\n  ") == 4 + len(WICKED)
    page = sheet.html()
    assert "&lt;b&gt;a&lt;/b&gt;" in page and page.count("<tr>") == 1 + len(WICKED)
    records = list(csv.reader(io.StringIO(csv_text(["name"], [{"name": text} for text in WICKED]))))
    assert len(records) == 1 + len(WICKED)
    terminal = printed(sheet.terminal("[/bold]\x1b[2J"))
    assert "\x1b" not in terminal and "\x07" not in terminal and terminal.count("[/bold]") == 2
    if shutil.which("pdflatex"):
        whole = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{sheet.latex()}\\end{{document}}"
        (tmp_path / "t.tex").write_text(whole)
        subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_sentences_control_no_terminal() -> None:
    assert printed(shown("failed: \x1b]0;X\x07[red]no[/red]\nmore", "red")) == "failed: ]0;X[red]no[/red] more\n"


def test_html_stays_html_and_text_does_not() -> None:
    page = Sheet([Column("a")], [[Html("<i>a</i>")], ["<i>b</i>"]]).html()
    assert "<i>a</i>" in page and "&lt;i&gt;b" in page
