from dataclasses import replace

from collegium.pages.text import doubt, verdict
from collegium.results.analysis import Evidence


def test_the_verdict_holds_the_runs_numbers_and_compares_with_no_baseline(evidence: Evidence):
    text = verdict(evidence)
    for name in ("ensemble", "fused"):
        assert f"{100 * evidence.result['predictors'][name]['last']['top1_error']:.2f} %" in text
    assert f"{100 * evidence.result['mean_peer']['last']['top1_error']:.2f} % of the 450 test images" in text
    assert "better" not in text and "improve" not in text


def test_the_standard_error_is_the_binomials(evidence: Evidence):
    """sqrt(0.2 * 0.8 / 400) is 2 points."""
    scores = {name: {"last": {"top1_error": 0.2}} for name in evidence.predictors}
    told = doubt(replace(evidence, result=evidence.result | {"test_images": 400, "predictors": scores}))
    assert "about 2.00 points" in told
