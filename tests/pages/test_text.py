from dataclasses import replace

from collegium.pages.text import doubt, verdict
from collegium.results.analysis import RunAnalysis


def test_the_verdict_holds_the_runs_numbers_and_compares_with_no_baseline(analysis: RunAnalysis):
    text = verdict(analysis)
    for name in ("ensemble", "fused"):
        assert f"{100 - 100 * analysis.result['predictors'][name]['last']['top1_error']:.2f} %" in text
    assert f"{100 - 100 * analysis.result['mean_peer']['last']['top1_error']:.2f} % of the 450 test images" in text
    used = f"peer0, which is deployed, {100 - 100 * analysis.result['predictors']['peer0']['last']['top1_error']:.2f} %"
    assert used in text
    assert "better" not in text and "improve" not in text


def test_unlike_peers_have_no_mean_and_the_deployed_one_comes_first(analysis: RunAnalysis):
    result = analysis.result | {"peers": ["resnet8", "wrn"], "deployed_peer": "peer1"}
    right = {n: f"{100 - 100 * s['last']['top1_error']:.2f} %" for n, s in result["predictors"].items()}
    text = verdict(replace(analysis, result=result))
    assert f"peer1 (wrn), which is deployed, gets {right['peer1']} of the 450 test images right; peer0" in text
    assert f"peer0 (resnet8) {right['peer0']}." in text and "mean of" not in text


def test_the_standard_error_is_the_binomials(analysis: RunAnalysis):
    """sqrt(0.2 * 0.8 / 400) is 2 points."""
    scores = {name: {"last": {"top1_error": 0.2}} for name in analysis.predictors}
    told = doubt(replace(analysis, result=analysis.result | {"test_images": 400, "predictors": scores}))
    assert "about 2.00 points" in told
