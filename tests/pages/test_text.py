from dataclasses import replace

import pytest

from collegium.pages import text as words
from collegium.results.analysis import Evidence


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (83892, "83.9 k"), (999_999, "1.00 M"), (25_014_784, "25.0 M"), (8.1e9, "8.10 G")],
)
def test_counts_have_three_digits(number: float, text: str):
    assert words.count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (100, "2 min"), (4000, "1 h 7 min")])
def test_durations(seconds: float, text: str):
    assert words.duration(seconds) == text


def test_a_recipes_options_are_written_in_one_line():
    entry = {"name": "ffl", "temperature": 3.0, "ekd": True, "fused_channels": None}
    assert words.entry(entry) == "ffl (temperature 3, ekd yes)"


@pytest.mark.parametrize(
    ("share_until", "text"),
    [
        (None, "nothing"),
        ("stage2", "all up to stage2"),
        ("stem, stage1,stage2", "all up to stem, halves up to stage1, halves of those up to stage2"),
    ],
)
def test_what_peers_share_is_said(share_until: str | None, text: str):
    assert words.shared(share_until) == text


def test_the_verdict_holds_the_runs_numbers_and_compares_with_no_baseline(evidence: Evidence):
    text = words.verdict(evidence)
    for name in ("ensemble", "fused"):
        assert f"{100 * evidence.result['predictors'][name]['last']['top1_error']:.2f} %" in text
    assert f"{100 * evidence.result['mean_peer']['last']['top1_error']:.2f} % of the 450 test images" in text
    assert "better" not in text and "improve" not in text


def test_the_standard_error_is_the_binomials(evidence: Evidence):
    """sqrt(0.2 * 0.8 / 400) is 2 points."""
    scores = {name: {"last": {"top1_error": 0.2}} for name in evidence.predictors}
    told = words.doubt(replace(evidence, result={"test_images": 400, "predictors": scores}))
    assert "about 2.00 points" in told


def test_a_method_that_is_not_ours_has_no_source():
    assert words.about_method("mine") == ("", [])
    assert words.method_title("mine") == "mine"
