from dataclasses import replace

import pytest

from collegium.pages.colours import styles
from collegium.pages.run_class_table import by_class
from collegium.results.analysis import RunAnalysis


@pytest.fixture
def uneven(analysis: RunAnalysis) -> RunAnalysis:
    """The same run, as if one class had twice as many test images and another were not among them."""
    counts = list(analysis.result["test_images_per_class"])
    counts[0] *= 2
    shares = {name: [None, *shares[1:]] for name, shares in analysis.result["class_accuracy"].items()}
    return replace(analysis, result=analysis.result | {"test_images_per_class": counts, "class_accuracy": shares})


def test_even_classes_need_no_table(analysis: RunAnalysis):
    assert by_class(analysis, styles(analysis.peers, analysis.own)) == ""


def test_every_class_and_summary_has_a_row(uneven: RunAnalysis):
    page = by_class(uneven, styles(uneven.peers, uneven.own))
    assert page.count("<tr>") == 1 + 10 + 3
    assert '<td data-value="">–</td>' in page
    for name in uneven.predictors:
        share = uneven.result["class_accuracy"][name][3]
        assert f"<td>{100 * share:.2f}</td>" in page
        last = uneven.result["predictors"][name]["last"]
        for text in (f"{100 - 100 * last['top1_error']:.2f}", f"{100 * last['average_accuracy']:.2f}"):
            assert f"<b>{text}</b>" in page
        assert f"<b>{100 * last['kappa']:.2f}</b>".replace("-", "−") in page
