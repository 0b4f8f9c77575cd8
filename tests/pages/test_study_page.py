"""The page of a study, in a real browser where there is one."""

import re
from pathlib import Path

import pytest

from chromium import needs_chromium, visit
from collegium.api import publish
from collegium.pages.study_table import in_lines
from collegium.study.plan import PlanOptions
from collegium.study.study import Study
from helpers_study import cell, finish, made_up

LOOK = """
const head = document.querySelector("#comparison thead th:nth-child(3)");
const column = () => [...document.querySelectorAll("#comparison tbody tr")].map(row => row.cells[2].innerText);
const sorted = [];
head.click(); sorted.push(column());
head.click(); sorted.push(column());
head.focus();
const focused = document.activeElement === head;
const press = key => head.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
press("Enter"); sorted.push(column());
press(" "); sorted.push(column());
const name = document.querySelector("#comparison tbody th");
name.append("x".repeat(40));
const told = [...document.querySelectorAll("#charts svg")].map(chart => {
  chart.focus();
  return chart.parentNode.querySelector(".values").innerText.split("\\n");
});
const sizes = [...document.querySelectorAll("p, td, th")].map(e => parseFloat(getComputedStyle(e).fontSize));
return {sorted, focused, told, name: name.offsetWidth, aria: head.ariaSort, smallest: Math.min(...sizes),
  charts: document.querySelectorAll("#charts svg").length,
  loaded: performance.getEntriesByType("resource").map(entry => entry.name)};
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three rows of three seeds, and a run that failed."""
    folder = tmp_path_factory.mktemp("page") / "study"
    accuracies = {"independent": [0.90, 0.91, 0.92], "ffl": [0.93, 0.95, 0.94], "dml": [0.91, 0.915, 0.90]}
    study = made_up(folder, accuracies)
    lost = cell("okddip", 0)
    Study(folder, [lost], left_out={"one · a,b": "<they> differ"}).write()
    study.errors.mkdir()
    study.error_file(lost).write_text("failed: the loss is <nan>\n\nTraceback (most recent call last): <here>\n")
    publish(folder)
    return Study.open(folder)


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return (study.folder / "report.html").read_text()


@needs_chromium
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser_it_sorts_fits_and_loads_nothing(width: int, study: Study, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text((study.folder / "report.html").read_text())
    seen = visit(page, LOOK, width=width)
    assert (seen["problems"], seen["width"], seen["overflow"]) == ([], width, 0)
    found = seen["found"]
    means = ["91.00 ± 1.00", "90.83 ± 0.76", "94.00 ± 1.00"]
    up = [means[1], means[0], means[2]]
    for order, expected in zip(found["sorted"], [up, up[::-1], up, up[::-1]], strict=True):  # clicks, then keys
        assert [text for text in order if text != "–"] == expected
    assert found["name"] < width / 2  # it stays in place while the numbers scroll
    assert found["focused"] and found["aria"] == "descending"
    assert found["loaded"] == [] and found["charts"] == 4 and found["smallest"] >= 12
    gains, time, parameters, curves = found["told"]  # each at its right
    assert gains == ["ffl · 2xresnet8, seed 1", "+4.00 points"]
    assert time[1:] == ["one network: 94.00 ± 1.00 %", "20.0 s"] and time[0] == "ffl · 2xresnet8"
    assert parameters[1] == "fused: 96.00 ± 1.00 %" and parameters[2].endswith(" k parameters")
    assert curves == ["epoch 2", "ffl", "94.00", "independent", "91.00", "dml", "90.83"]


def test_a_chart_has_long_names_in_lines() -> None:
    assert in_lines("dml · resnet8,wrn_10_1 − independent", 40) == "dml · resnet8,wrn_10_1 − independent"
    found = in_lines("module:my_method.Surest:ramp=0.5 · 2xresnet8 − dml:temperature=3:divergence=renyi", 30)
    assert found.splitlines() == [
        "module:my_method.Surest:",
        "ramp=0.5 · 2xresnet8 − dml:",
        "temperature=3:divergence=renyi",
    ]


def test_nothing_in_it_comes_from_the_network(page: str) -> None:
    assert not re.search(r'<(?:link|iframe|img|script)[^>]* (?:src|href)="(?!data:)', page)
    assert "@import" not in page and "url(http" not in page


def test_it_says_what_came_out_and_what_did_not(page: str, study: Study) -> None:
    assert "Undecided: the best of 2 contrasts is ffl, which made one network 3.00 points (−0.58 to 6.58) more" in page
    assert "Of 2 contrasts, none decided. This study could have shown gains of 4.62 to 7.43 points." in page
    assert "Failed: okddip · 2xresnet8, seed 0: the loss is &lt;nan&gt;" in page
    assert "most recent call last): &lt;here&gt;" in page
    assert "Left out: one · a,b: &lt;they&gt; differ" in page
    assert page.count("<h1>") == 1 and "9 of 10 runs done" in page
    for anchor in ("comparison", "charts", "predictors", "runs", "made"):
        assert f'id="{anchor}"' in page


def test_ids_are_unique_and_the_page_is_the_same_each_time(page: str, study: Study) -> None:
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    publish(study.folder)
    assert (study.folder / "report.html").read_text() == page


def test_a_study_without_a_finished_run_has_a_page(tmp_path: Path) -> None:
    Study(tmp_path / "s", [cell("ffl", 0)]).write()
    publish(tmp_path / "s")
    page = (tmp_path / "s" / "report.html").read_text()
    assert "No run is finished yet." in page and 'id="charts"' not in page


def test_one_row_has_no_charts_and_no_columns_of_comparison(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"ffl": [0.9]})
    publish(study.folder)
    page = page_of(study)
    assert 'id="charts"' in page and page.count("<svg") == 1, "the curve alone"
    (predictors,) = re.findall(r'<section id="predictors">.*?</section>', page)
    assert "verdict" not in predictors and "could show" not in predictors and "compared with" not in predictors
    assert "accuracy" in predictors and "parameters" in predictors
    rows = [{"epoch": 1.0, "test/mean_peer/top1_error": 0.1, "seconds": 1.0}]
    study.run_folder(study.cells[0]).write_metrics(rows)
    publish(study.folder)
    assert 'id="charts"' not in page_of(study) and "<svg" not in page_of(study)


def test_a_single_seed_is_shown_without_a_test(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9], "ffl": [0.95]}, peers="resnet8,wrn_10_1")
    finish(Study(tmp_path / "s", [cell("dml", 0)]), cell("dml", 0), 0.8)
    publish(study.folder)
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Nothing was tested: that takes two seeds or more." in page and "significant" not in page


def test_runs_without_metrics_have_no_learning_curve(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9, 0.91], "ffl": [0.95, 0.94], "dml": [0.9, 0.92]})
    for lost in (study.cells[0], *study.cells[2:4]):  # one seed of independent, both of ffl
        study.run_folder(lost).metrics_file.unlink()
    publish(study.folder)
    (curves,) = re.findall(r"<figure>(?:(?!</figure>).)*after each epoch.*?</figure>", page_of(study), re.DOTALL)
    assert "dml" in curves and "ffl" not in curves and "independent" not in curves
    for lost in study.cells[4:]:
        study.run_folder(lost).metrics_file.unlink()
    publish(study.folder)
    assert "after each epoch" not in page_of(study) and 'id="charts"' in page_of(study)


def page_of(study: Study) -> str:
    return (study.folder / "report.html").read_text()


def test_the_plan_stands_at_the_top_and_what_came_later_is_marked(tmp_path: Path) -> None:
    accuracies = {"independent": [0.90, 0.91, 0.92], "ffl": [0.93, 0.94, 0.951], "dml": [0.91, 0.915, 0.90]}
    study = made_up(tmp_path / "s", accuracies, PlanOptions("FFL <beats> it", "ffl:independent"))
    later = cell("dml", 3)
    Study(study.folder, [later]).write()
    finish(study, later, 0.9)
    publish(study.folder)
    page = (study.folder / "report.html").read_text()
    assert "Hypothesis: FFL &lt;beats&gt; it" in page and page.index('id="plan"') < page.index('id="comparison"')
    assert "Of 1 contrast, 1 decided: ffl · 2xresnet8 over independent, better (+3.03 [" in page
    assert page.count("done, added later") == 1 and "4, 1 added later" in page
    assert "Only the contrasts of the plan are tested; all else is descriptive." in page
