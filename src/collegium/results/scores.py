"""What is measured of a predictor: names, units, which side is better, and how values are read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from collegium.cohort import is_peer
from collegium.formatting import MISSING, number
from collegium.results.statistics import Spread

Result = Mapping[str, Any]
"""The content of a run's result.json."""

UNEVEN = 1.5  # times as many test images of one class as of another
TOP = 5  # classes: where there are no more, the top-5 accuracy says next to nothing


@dataclass(frozen=True)
class Metric:
    """A measure of a predictor.

    Args:
        name: as tables show it.
        better: which side is.
        source: its key among the scores in result.json, "" where runs do not say it.
        complement: whether it is 1 minus the source, as an accuracy is of an error.
        unit: of its values; all but those in nats are hundredths of what the source holds.
        meaning: in a sentence.
    """

    name: str
    better: Literal["lower", "higher"]
    source: str
    complement: bool = False
    unit: str = "%"
    meaning: str = ""

    @property
    def digits(self) -> int:
        """After the point, as tables show them."""
        return 3 if self.unit == "nats" else 2

    def value(self, scores: Mapping[str, float]) -> float:
        """The metric in its unit, of a predictor's scores in result.json."""
        found = float(scores[self.source])
        found = 1 - found if self.complement else found
        return found if self.unit == "nats" else 100 * found


METRICS = {
    "top1_error": Metric(
        "top-1 error",
        "lower",
        "top1_error",
        meaning="Share of test images whose most probable class is wrong, in percent",
    ),
    "top5_error": Metric(
        "top-5 error",
        "lower",
        "top5_error",
        meaning="Share of test images whose true class is not among the five surest, in percent",
    ),
    "nll": Metric(
        "NLL",
        "lower",
        "nll",
        unit="nats",
        meaning="Negative log-likelihood: mean of -log of the probability given to the true class, in nats",
    ),
    "ece": Metric(
        "ECE",
        "lower",
        "ece",
        meaning="Expected calibration error: mean gap between confidence and accuracy over 15 bins, in percent",
    ),
    "top1_accuracy": Metric(
        "top-1 accuracy",
        "higher",
        "top1_error",
        complement=True,
        meaning="Share of test images whose most probable class is right, in percent",
    ),
    "top5_accuracy": Metric(
        "top-5 accuracy",
        "higher",
        "top5_error",
        complement=True,
        meaning="Share of test images whose true class is among the five most probable, in percent",
    ),
    "overall_accuracy": Metric("overall accuracy", "higher", "top1_error", complement=True),
    "average_accuracy": Metric("average accuracy", "higher", "average_accuracy"),
    "kappa": Metric("kappa × 100", "higher", "kappa", unit=""),
    "class_accuracy": Metric("accuracy of one class", "higher", ""),
}
"""The metrics of results, of tables and of published values, by their keys there."""


def all_predictors(result: Result) -> dict[str, Any]:
    """The predictors of a run, with ``mean_peer`` after the peers."""
    peers = {name: values for name, values in result["predictors"].items() if is_peer(name)}
    return peers | {"mean_peer": result["mean_peer"]} | dict(result["predictors"])


def last(result: Result, predictor: str, metric: str) -> float:
    """A predictor's metric in the last epoch, in its unit."""
    return METRICS[metric].value(all_predictors(result)[predictor]["last"])


def wrong_labels(result: Result) -> str:
    """ ", 27.2 % of the training labels wrong", "" where that is not known to be so."""
    share = result.get("wrong_labels")
    return "" if share is None else f", {100 * share:.1f} % of the training labels wrong"


def one_answer(result: Result) -> str:
    """That peers have learned a single answer, and what helps, in a sentence; "" where none has.

    Such a peer is right on every test image of one class and on none of the others.
    """
    found: dict[str, list[str]] = {}
    for name, shares in result["class_accuracy"].items():
        known = [
            (share, label) for share, label in zip(shares, result["class_names"], strict=True) if share is not None
        ]
        right = [label for share, label in known if share]
        if is_peer(name) and len(known) > 1 and len(right) == 1 and (1.0, right[0]) in known:
            found.setdefault(right[0], []).append(name)
    told = [
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} right on every test image of class {label} and on "
        "none of the others"
        for label, names in found.items()
    ]
    if not told:
        return ""
    return (
        f"{'; '.join(told)}: it may be that every image gets the same answer. Start from trained weights, lower the "
        "learning rate, or take smaller batches or more epochs, which make more steps."
    )


def uneven(images_per_class: Sequence[int]) -> bool:
    """Whether some classes have so many more test images that the average over classes tells something of its own."""
    return max(images_per_class) > UNEVEN * min(images_per_class)


def accuracies(classes: int) -> tuple[str, ...]:
    """The accuracies over all images that a table of a run shows, of so many classes."""
    return ("top1_accuracy", "top5_accuracy") if classes > TOP else ("top1_accuracy",)


def written(found: Spread, *, sign: bool = False, digits: int = 2) -> str:
    """``"31.42 ± 0.20"``, without the deviation where there is one value."""
    mean = number(found.mean, digits, sign=sign)
    return mean if found.std is None else f"{mean} ± {found.std:.{digits}f}"


def p_value(p: float | None) -> str:
    """``"0.041"``, ``"< 0.001"``."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
