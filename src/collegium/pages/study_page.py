"""The page of a study: one HTML file that needs nothing else, and no network."""

from pathlib import Path
from typing import Any

from collegium.files import write_whole
from collegium.formatting import MISSING, count, number, plural
from collegium.pages.document import document
from collegium.pages.html import Html, breakable, element, html, section
from collegium.pages.html import table as pairs
from collegium.pages.run_charts import HINT
from collegium.pages.run_sections import chip
from collegium.pages.sheet import Cell, Column, Sheet
from collegium.pages.study_charts import charts, styles
from collegium.pages.study_table import StudyTable, comparison_cells, gain_text
from collegium.results import wording
from collegium.results.comparison import ONE_NETWORK, Comparison, Findings, Row
from collegium.results.runs import FinishedRuns
from collegium.results.scores import last, p_value, written
from collegium.study.study import Outcome

PAGE_FILE = "report.html"


def write_page(table: StudyTable) -> Path:
    """Writes STUDY/report.html and returns its path."""
    file = table.findings.study.folder / PAGE_FILE
    write_whole(file, render(table))
    return file


def render(table: StudyTable) -> str:
    """The whole page."""
    findings = table.findings
    drawn = charts(findings)
    body = element(
        "main",
        element(
            "header",
            element("h1", breakable(table.title)),
            element("p", element("strong", table.answer), class_="lead") if table.answer else "",
            _facts(findings),
            _plan(table),
            _notices(table),
            _verdict(table),
        ),
        _comparison(table),
        section("Charts", element("p", HINT, class_="soft hint"), element("div", drawn, class_="grid"), id="charts")
        if drawn
        else "",
        _predictors(findings),
        _runs(findings),
        _made(findings),
        element("footer", element("p", "Written by ", element("code", "collegium compare"), ".", class_="soft")),
    )
    return document(table.title, body, style="study.css")


def _facts(findings: Findings) -> Html:
    done = len(findings.outcomes) - len(findings.unfinished)
    facts = [f"{done} of {plural(len(findings.outcomes), 'run')} done"]
    facts += [f"peers {cohort}" for cohort in findings.cohorts()]
    return element("p", " · ".join(facts), class_="soft")


def _notices(table: StudyTable) -> list[Html]:
    return [element("p", problem, class_="notice", role="note") for problem in table.problems]


def _plan(table: StudyTable) -> Html:
    return element("ul", [element("li", sentence) for sentence in table.plan], id="plan") if table.plan else Html()


def _verdict(table: StudyTable) -> Html:
    """What came out, in plain language."""
    found = table.findings.headline
    if not found:
        return Html()
    told = []
    tested = [c for c in found if c.p is not None]
    decided = [c for c in tested if not c.verdict.startswith("undecided")]
    if tested:
        listed = "; ".join(
            f"{c.row.label} over {c.over}, {c.verdict} ({_points(c)}, p {p_value(c.p)})" for c in decided
        )
        of = f"Of {plural(table.findings.contrasts, 'contrast')}, {len(decided) or 'none'} decided"
        told.append(f"{of}: {listed}." if decided else f"{of}.")
        told.append(table.could_show)
    return element("p", " ".join(told), class_="lead") if told else Html()


def _points(comparison: Comparison) -> str:
    return f"{gain_text(comparison)} points"


def _comparison(table: StudyTable) -> Html:
    look = styles(table.findings)
    columns = [column for column in table.columns if column.key != "each"]  # every predictor has a table of its own
    several = len(table.findings.cohorts()) > 1
    rows = []
    for line in table.lines:
        name = [chip(look[line.row.method]), breakable(line.row.method, after=":")]
        name += [element("span", line.row.cohort, class_="peers")] if several else []
        rows.append([Cell(html(name), line.row.label), *(line.cells[column.key] for column in columns)])
    return section(
        "Comparison",
        Sheet([Column("method", left=True), *columns], rows).html(class_="sortable"),
        element("p", " ".join(table.caption), class_="soft"),
        element("p", "A click on a heading, or Enter, sorts by it.", class_="soft"),
        id="comparison",
    )


def _predictors(findings: Findings) -> Html:
    columns = [
        Column("row", left=True),
        Column("predictor", left=True),
        Column("n"),
        Column("accuracy", unit="%"),
        Column("over", left=True),
        Column("gain", unit="points", meaning="over the same predictor of this row"),
        Column("verdict", left=True),
        Column("wins"),
        Column("could show", unit="points", meaning="the smallest gain that the study shows 4 times of 5"),
        Column("p", meaning="paired t-test, corrected by Holm"),
        Column("parameters"),
        Column("FLOPs", meaning="For one image; a multiplication and an addition count as two"),
    ]
    rows = [_predictor(findings, row, predictor) for row in findings.rows for predictor in row.predictors]
    if not rows:
        return Html()
    corrected = (
        "p values are corrected within one kind of predictor: one network, ensemble, method's own, single peer."
        if findings.study.plan is None
        else "Only the contrasts of the plan are tested; all else is descriptive."
    )
    note = f"A method's own predictor is compared with the ensemble of the other row. {corrected}"
    known = [k for k in range(len(columns)) if any(row[k].text != MISSING for row in rows)]
    compared = any(columns[k].key == "over" for k in known)
    return section(
        "Every predictor",
        Sheet([columns[k] for k in known], [[row[k] for k in known] for row in rows]).html(class_="sortable"),
        element("p", note, class_="soft") if compared else "",
        id="predictors",
    )


def _predictor(findings: Findings, row: Row, predictor: str) -> list[Cell]:
    found, cost = row.spread(predictor), row.cost(predictor)
    assert found is not None
    name = row.name_of(predictor)
    name = f"{predictor}: {name}" if name not in (predictor, "one network") else name
    return [
        *(Cell(text) for text in (row.label, name, str(found.n))),
        Cell(written(found), found.mean),
        *comparison_cells(findings.compared(row, predictor)).values(),
        *(Cell(count(cost[key]), cost[key]) for key in ("parameters", "flops")),
    ]


def _runs(findings: Findings) -> Html:
    columns = [
        Column("row", left=True),
        Column("seed"),
        Column("state", left=True),
        Column("one network", unit="%"),
        Column("ensemble", unit="%"),
        Column("training", unit="s"),
    ]
    rows = []
    for outcome in findings.outcomes:
        failed = "failed" if outcome.state == "failed" else None
        later = ", added later" if findings.study.added_later(outcome.cell) else ""
        cells = [Cell(outcome.cell.label), Cell(str(outcome.cell.seed)), Cell(outcome.state + later, style=failed)]
        if outcome.result is None:
            cells += [Cell()] * 3
        else:
            scores = [last(outcome.result, name, "top1_accuracy") for name in (ONE_NETWORK, "ensemble")]
            cells += [Cell(number(score)) for score in scores]
            cells.append(Cell(number(outcome.result["training_seconds"], 1)))
        rows.append(cells)
    errors = [_error(findings, outcome) for outcome in findings.unfinished if outcome.state in ("failed", "broken")]
    opened = (
        element("summary", "The run" if len(rows) == 1 else f"All {len(rows)} runs"),
        Sheet(columns, rows).html(class_="sortable"),
    )
    return section("Runs", *errors, element("details", *opened), id="runs")


def _error(findings: Findings, outcome: Outcome) -> Html:
    trace = (findings.study.error(outcome.cell) or "").partition("\n\n")[2].strip()
    parts: list[object] = [element("h3", outcome.cell.name, ": ", element("span", outcome.state, class_="failed"))]
    parts.append(element("p", outcome.error or ""))
    if trace:
        parts.append(element("details", element("summary", "Traceback"), element("pre", trace[-6000:])))
    return html(parts)


def _made(findings: Findings) -> Html:
    study = findings.study
    recipes = [cell.recipe.to_dict() for cell in study.cells]
    common = {k: v for k, v in recipes[0].items() if all(recipe[k] == v for recipe in recipes)}
    entries = [(name, wording.entry(value)) for name, value in common.items()]
    shown = ("data", "epochs", "batch_size", "optimizer", "learning_rate", "schedule")
    rows: list[tuple[Any, ...]] = [(name, value) for name, value in entries if name in shown]
    devices = dict.fromkeys(row.device for row in findings.rows if row.device)
    rows += [("device", device) for device in devices]
    if isinstance(study, FinishedRuns):
        where, versions = "recipe.yaml", []
    else:
        where, versions = "study.yaml", list(study.provenance.items())
        rows.append(("study", study.folder))
    return section(
        "How it was made",
        element("p", "What all runs have in common; ", element("code", where), " says all of every run."),
        pairs([], rows, class_="left"),
        element("details", element("summary", "The whole common recipe"), pairs([], entries, class_="left")),
        element("details", element("summary", "Versions"), pairs([], versions, class_="left")) if versions else "",
        id="made",
    )
