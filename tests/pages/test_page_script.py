"""Charts under a pointer, a finger and the keyboard, in a real browser: all in one visit at the width of a phone."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from chromium import needs_chromium, visit
from collegium.pages import figures
from collegium.pages.document import document
from collegium.pages.html import element
from collegium.pages.run_page import render
from collegium.results.analysis import RunAnalysis

EPOCHS = 2

USE = """
const svg = document.querySelector("#curves svg"), frame = svg.parentNode, box = frame.querySelector(".values");
const said = () => getComputedStyle(box).visibility === "hidden" ? null
  : [box.querySelector(".title").innerText, ...[...box.querySelectorAll("li")].map(row => row.innerText)];
const point = (type, share, pointerType = "mouse") => {
  const area = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent(type, {bubbles: true, pointerType,
    clientX: area.left + share * area.width, clientY: area.top + area.height / 2}));
  return said();
};
const press = key => { svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); return said(); };
const found = {before: said(), early: point("pointermove", 0.2)};
found.late = point("pointermove", 0.9);
found.line = svg.querySelector(".cursor").getAttribute("d");
found.edges = [box.getBoundingClientRect().left, box.getBoundingClientRect().right];
found.left = point("pointerleave", 0.9);
found.touched = point("pointerdown", 0.2, "touch");
found.lifted = point("pointerleave", 0.2, "touch");

press("Escape"); svg.focus(); found.focused = said();
svg.blur(); found.blurred = said();
found.keys = ["ArrowLeft", "ArrowLeft", "ArrowRight", "Home", "End", "Escape"].map(press);
press("Home");
found.spoken = ["role", "aria-label", "aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"]
  .map(name => svg.getAttribute(name));

const button = frame.parentNode.querySelector(".key button");
button.focus(); found.button = document.activeElement === button && button.tagName;
const drawn = [...svg.querySelectorAll("[data-style='0']")];
const visible = () => drawn.every(line => getComputedStyle(line).display !== "none");
found.visible = [visible()];
button.click(); found.visible.push(visible()); found.without = point("pointermove", 0.9);
found.pressed = button.ariaPressed;
button.click(); found.visible.push(visible()); found.again = point("pointermove", 0.9);

const bins = document.querySelector("#confidence svg"), area = bins.getBoundingClientRect();
const [x, y] = JSON.parse(bins.dataset.chart).points[0], scale = area.width / bins.viewBox.baseVal.width;
bins.dispatchEvent(new PointerEvent("pointermove", {clientX: area.left + x * scale, clientY: area.top + y * scale}));
found.bin = bins.parentNode.querySelector(".values").innerText.split("\\n");
found.scroll = document.scrollingElement.scrollWidth;
found.loaded = performance.getEntriesByType("resource").map(entry => entry.name);
return found;
"""

USE_MATRIX = """
const svg = document.querySelector("svg"), area = svg.getBoundingClientRect(), told = [];
const scale = area.width / svg.viewBox.baseVal.width, [left, top, right, bottom] = JSON.parse(svg.dataset.chart).plot;
const said = () => told.push(svg.parentNode.querySelector(".values").innerText.split("\\n"));
for (const [type, pointerType, row] of [["pointermove", "mouse", 3.5], ["pointerdown", "touch", 4.3]]) {
  svg.dispatchEvent(new PointerEvent(type, {bubbles: true, pointerType,
    clientX: area.left + scale * (left + 20.5 / 30 * (right - left)),
    clientY: area.top + scale * (top + row / 30 * (bottom - top))}));
  said();
}
for (const key of ["Home", "ArrowRight"]) {
  svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  said();
}
return told;
"""


@pytest.fixture(scope="module")
def page(analysis: RunAnalysis) -> str:
    return render(analysis)


@pytest.fixture(scope="module")
def seen(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("browser") / "run.html"
    file.write_text(page)
    return visit(file, USE, width=390)


def expected(analysis: RunAnalysis, epoch: int) -> list[str]:
    """What the chart of test accuracies shows: the highest first."""
    row = analysis.history[epoch - 1]
    values = {name: round(100 * (1 - row[f"test/{name}/top1_error"]), 2) for name in analysis.predictors}
    ordered = sorted(values, key=lambda name: -values[name])
    return [f"epoch {epoch}", *(f"{name}\n{values[name]:.2f}" for name in ordered)]


@needs_chromium
def test_a_pointer_shows_the_values_of_an_epoch(seen: dict[str, Any], analysis: RunAnalysis) -> None:
    found = seen["found"]
    assert seen["problems"] == [] and found["loaded"] == []
    assert found["before"] is None and found["left"] is None
    assert found["early"] == expected(analysis, 1) and found["late"] == expected(analysis, EPOCHS)
    assert re.fullmatch(r"M[\d.]+ [\d.]+V[\d.]+", found["line"])
    assert 0 <= found["edges"][0] < found["edges"][1] <= 390


@needs_chromium
def test_a_finger_leaves_the_values_until_it_goes_elsewhere(seen: dict[str, Any], analysis: RunAnalysis) -> None:
    found = seen["found"]
    assert found["touched"] == found["lifted"] == expected(analysis, 1)


@needs_chromium
def test_keys_go_from_epoch_to_epoch(seen: dict[str, Any], analysis: RunAnalysis) -> None:
    found = seen["found"]
    first, last = expected(analysis, 1), expected(analysis, EPOCHS)
    assert found["blurred"] is None and found["focused"] == last
    assert found["keys"] == [first, first, last, first, last, None]
    role, label, low, high, now, text = found["spoken"]
    assert (role, label) == ("slider", "Top-1 test accuracy of every predictor over the epochs")
    assert (low, high, now) == ("0", str(EPOCHS - 1), "0")
    assert text == ", ".join(first).replace("\n", " ")


@needs_chromium
def test_an_entry_of_the_key_turns_its_line_off_and_on(seen: dict[str, Any], analysis: RunAnalysis) -> None:
    found = seen["found"]
    assert found["button"] == "BUTTON" and found["pressed"] == "false"
    assert found["visible"] == [True, False, True]
    assert found["without"] == [row for row in found["late"] if not row.startswith("peer0")]
    assert found["again"] == found["late"] and any(row.startswith("peer0") for row in found["late"])


@needs_chromium
def test_a_point_of_a_line_is_told_where_each_has_its_own(seen: dict[str, Any]) -> None:
    title, right, sure, images = seen["found"]["bin"]
    assert title == "peer0" and right.endswith(" % right") and sure.endswith(" % confidence") and "image" in images


@needs_chromium
def test_a_cell_of_a_large_matrix_is_told_under_a_pointer_a_finger_and_by_keys(tmp_path: Path) -> None:
    matrix = torch.diag(torch.full((30,), 8))
    matrix[3, 20] = 2
    picture = figures.confusion_matrix("m", matrix, [f"<b>{k}</b>" for k in range(30)], description="mistakes")
    file = tmp_path / "matrix.html"
    file.write_text(document("matrix", element("main", element("figure", picture))))
    seen = visit(file, USE_MATRIX, width=390)
    assert seen["problems"] == [] and seen["overflow"] <= 0
    mistake = ["<b>3</b>", "answer <b>20</b>", "2 of 10 images"]
    assert seen["found"] == [
        mistake,
        mistake,
        ["<b>0</b>", "right", "8 of 8 images"],
        ["<b>1</b>", "right", "8 of 8 images"],
    ]


@needs_chromium
def test_a_run_fits_a_phone(seen: dict[str, Any]) -> None:
    assert seen["width"] == 390 and seen["found"]["scroll"] <= 390


def test_what_a_chart_shows_lies_where_it_is_drawn(page: str) -> None:
    charts = re.findall(r'<svg[^>]*data-chart="([^"]*)">(.*?)</svg>', page, re.DOTALL)
    assert len(charts) == 2 + 5 + 1  # accuracies, terms and rate, confidence
    for told, drawn in charts:
        data = json.loads(unescape(told))
        left, top, right, bottom = data["plot"]
        places = {
            style: [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"', lines)]
            for style, lines in re.findall(r'<g data-style="(\d+)">(.*?)</g></g>', drawn, re.DOTALL)
        }
        assert places
        for style, marks in places.items():
            if "points" in data:
                shown = [tuple(point[:2]) for point in data["points"] if point[2] == int(style)]
            else:
                low, high = data["span"]
                shown = [(left + (x - low) / (high - low) * (right - left), None) for x in data["x"]]
                assert len(data["y"][style]) == len(shown)
            assert len(shown) == len(marks)
            for (x, y), (drawn_x, drawn_y) in zip(shown, marks, strict=True):
                assert x == pytest.approx(drawn_x, abs=0.1) and (y is None or y == pytest.approx(drawn_y, abs=0.1))
                assert left <= drawn_x <= right and top - 0.1 <= drawn_y <= bottom + 0.1


@needs_chromium
def test_the_policy_of_a_page_stops_scripts_that_are_not_its_own(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    bad = '<img src="https://example.org/x.png"><b onclick="window.ran = 1">x</b><script>window.ran = 2</script>'
    file.write_text(page.replace("<main>", f"<main>{bad}"))
    seen = visit(file, 'document.querySelector("b").click(); return window.ran ?? null')
    assert seen["found"] is None
    assert {"img-src", "script-src-elem"} <= {problem.split()[0] for problem in seen["problems"]}
