import json
import re
from html import unescape
from typing import Any

import pytest
import torch

from collegium.pages import figures
from collegium.pages.colours import styles
from collegium.results.diversity import reliability

STYLES = styles(["peer0", "peer1"], ["fused"])


def curve(name: str = "c", x: tuple[float, ...] = (1, 2, 3), y: tuple[float, ...] = (3.0, 2.0, 1.0)) -> str:
    return figures.curves(name, {"peer0": (x, y)}, STYLES, unit="test error (%)", description="an <error>")


def ids(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))


def test_a_figure_is_one_svg_with_a_description_and_no_outside_links():
    svg = curve()
    assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")
    assert 'aria-label="an &lt;error&gt;"' in svg
    assert "http" not in svg and "metadata" not in svg and "currentColor" in svg
    assert "test error (%)" in svg and "epoch" in svg


def test_figures_are_the_same_at_every_call():
    assert curve() == curve()


def test_figures_of_one_page_share_no_ids_and_lack_none():
    first, second = curve("a"), curve("b")
    assert ids(first) and not ids(first) & ids(second)
    for svg in (first, second):
        assert {name for pair in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg) for name in pair if name} == ids(
            svg
        )


@pytest.mark.parametrize(
    "y", [(0.0, 0.0, 0.0), (5.0, 5.0, 5.0), (-1.0, 2.0, -3.0), (1e-6, 1.0, 1e3), (0.0, 1.0, 100.0)]
)
def test_curves_of_any_values_are_drawn(y: tuple[float, ...]):
    assert "<path" in curve(y=y)


def told(svg: str) -> dict[str, Any]:
    """What page.js finds in a chart."""
    found = re.search(r'data-chart="([^"]*)"', svg)
    assert found is not None
    return json.loads(unescape(found[1]))


def test_a_pointer_finds_every_value_of_the_curves_and_none_that_is_no_number():
    series = {"peer1": ((1, 2, 4), (0.123456, float("nan"), 1234.5678)), "peer0": ((2, 4), (1e-7, 2.0))}
    found = told(figures.curves("c", series, STYLES, unit="", description=""))
    assert found["x"] == [1, 2, 4] and found["digits"] is None
    assert found["y"] == {"1": [0.1235, None, 1235.0], "0": [None, 1e-7, 2.0]}
    linear = told(figures.curves("c", {"fused": ((1,), (59.996,))}, STYLES, unit="", description="", linear=True))
    assert linear["y"] == {"3": [60.0]} and linear["digits"] == 2


def test_what_a_chart_says_cannot_leave_its_attribute():
    with figures.drawing("d", 2, 2) as (figure, axes):
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        name = '"><script>alert(1)</script>'
        svg = figures.to_svg(figure, "d", name, points=[figures.Point(10, 0, 4, (name, "x"))])
    assert "<script" not in svg and svg.count(">") == svg.count("<")
    left, top, right, bottom = told(svg)["plot"]
    assert told(svg)["points"] == [[right, bottom, 4, name, "x"]]
    assert 0 < left < right < 144 and 0 < top < bottom < 144


def test_charts_are_in_the_page_s_font_with_few_digits():
    svg = curve()
    assert "DejaVu" not in svg and "font-family" not in svg and not re.search(r"\d\.\d{3}", svg)


def test_a_curve_of_one_epoch_is_drawn():
    assert "<use" in curve(x=(1,), y=(50.0,))


def test_a_wide_range_is_drawn_logarithmically_and_says_so():
    assert "log scale" in curve(y=(90.0, 20.0, 2.0))
    assert "log scale" not in curve(y=(9.0, 8.0, 2.0))


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_small_confusion_matrix_names_its_classes_and_counts_every_image():
    matrix = torch.tensor([[5, 2, 0], [0, 7, 1], [3, 0, 0]])
    svg = figures.confusion_matrix("m", matrix, ["<b>", "$x$", "日本"], description="")
    assert "&lt;b&gt;" in svg and "<b>" not in svg and "$x$" in svg and "日本" in svg
    assert sum(int(t) for t in texts(svg) if t.isdigit()) == matrix.sum()


def test_a_large_confusion_matrix_has_no_names_but_under_a_pointer():
    matrix = torch.eye(100).long() * 3
    matrix[7, 90] = 2
    svg = figures.confusion_matrix("m", matrix, [f"class {k}" for k in range(100)], description="")
    head, _, drawn = svg.partition(">")
    assert "class 7" not in drawn and "answer (class 0 to 99)" in drawn and "data:image/png;base64" in drawn
    told = re.search(r'data-chart="([^"]*)"', head)
    assert told is not None
    data = json.loads(unescape(told[1]))
    assert data["names"][7] == "class 7" and len(data["cells"]) == 101 and [7, 90, 2] in data["cells"]
    left, top, right, bottom = data["plot"]
    moved = re.search(r"<image [^>]*matrix\(([\d.]+) 0 0 ([\d.]+) ([\d.]+) ([\d.]+)\)", drawn)
    assert moved is not None  # its 100 x 100 pixels are the cells
    wide, high, x, y = map(float, moved.groups())
    assert [left, top, right, bottom] == pytest.approx([x, y, x + 100 * wide, y + 100 * high], abs=0.2)


def test_a_matrix_without_mistakes_is_drawn():
    assert "<svg" in figures.confusion_matrix("m", torch.eye(3).long() * 4, ["a", "b", "c"], description="")
    assert "<svg" in figures.agreement_matrix("m", torch.ones(1, 1), ["peer0"], description="")


def test_the_agreement_matrix_gives_percent():
    svg = figures.agreement_matrix("m", torch.tensor([[1.0, 0.75], [0.75, 1.0]]), ["peer0", "peer1"], description="")
    assert texts(svg).count("75.0") == 2


def test_reliability_leaves_out_small_bins():
    z = torch.tensor([[4.0, 0.0]] * 30 + [[0.5, 0.0]] * 3)
    bins = {"peer0": reliability(z, torch.zeros(33, dtype=torch.long))}
    few = figures.reliability_diagram("r", bins, STYLES, least=5, description="")
    all_bins = figures.reliability_diagram("r", bins, STYLES, least=1, description="")
    assert all_bins.count("<use") == few.count("<use") + 1


def test_every_predictor_has_a_look_of_its_own():
    many = styles([f"peer{k}" for k in range(20)], ["fused", "leader"])
    assert len(set(many.values())) == len(many) == 23
    averaged = styles(["peer0", "peer1"], ["fused", "peer0_ema", "peer1_ema", "ensemble_ema"])
    assert len(set(averaged.values())) == len(averaged) == 7
    assert averaged["peer1_ema"].colour == averaged["peer1"].colour
    assert averaged["fused"] == styles(["peer0", "peer1"], ["fused"])["fused"]
