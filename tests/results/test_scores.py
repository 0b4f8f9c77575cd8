import pytest

from collegium.results.scores import METRICS, last, p_value, uneven, written
from collegium.results.statistics import Spread
from collegium.training.metrics import METRICS as MEASURED

SCORES = {"top1_error": 0.25, "top5_error": 0.125, "nll": 1.5, "ece": 0.02, "average_accuracy": 0.625, "kappa": 0.4375}


def test_every_measured_score_is_a_metric() -> None:
    assert set(MEASURED) <= {metric.source for metric in METRICS.values()}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("top1_error", 25),
        ("top1_accuracy", 75),
        ("overall_accuracy", 75),
        ("top5_error", 12.5),
        ("nll", 1.5),
        ("ece", 2),
        ("average_accuracy", 62.5),
        ("kappa", 43.75),
    ],
)
def test_metrics_are_in_their_units(metric: str, value: float) -> None:
    assert METRICS[metric].value(SCORES) == pytest.approx(value)


def test_the_direction_is_that_of_the_name() -> None:
    for key, metric in METRICS.items():
        assert metric.better == ("higher" if "accuracy" in key or key == "kappa" else "lower")


def test_the_last_epoch_of_a_predictor() -> None:
    result = {"predictors": {"peer0": {"last": SCORES}}, "mean_peer": {"last": SCORES | {"top1_error": 0.5}}}
    assert (last(result, "peer0", "top1_accuracy"), last(result, "mean_peer", "top1_accuracy")) == (75, 50)


def test_classes_are_uneven_beyond_one_and_a_half_times() -> None:
    assert not uneven([10, 15]) and uneven([10, 16])


def test_how_spreads_and_p_values_are_written() -> None:
    assert written(Spread(3, 31.416, 0.2)) == "31.42 ± 0.20"
    assert written(Spread(1, -0.5, None), sign=True) == "\N{MINUS SIGN}0.50"
    assert written(Spread(2, 1.25, 0.5), sign=True, digits=1) == "+1.2 ± 0.5"
    assert (p_value(0.0409), p_value(0.0004)) == ("0.041", "< 0.001")
