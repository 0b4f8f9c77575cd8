"""Scores of predictors, gathered on the device and read once."""

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from collegium import ranks
from collegium.cohort import is_peer

_BELOW_ONE = 1 - 2**-24  # the float32 before 1

METRICS = ("top1_error", "top5_error", "nll", "ece", "average_accuracy", "kappa")


class Scores:
    """One predictor's scores over a split.

    top1_error and top5_error are shares in [0, 1]; nll is the mean negative log-likelihood in nats; ece is the
    expected calibration error with 15 equal bins (Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599).
    With fewer than six classes the top 5 are the top C - 1. average_accuracy is the mean over the classes, of those
    that the split holds, of the share of right answers; kappa is Cohen's: the agreement with the labels beyond what the
    classes' frequencies alone would give.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassCalibrationError,
            MulticlassConfusionMatrix,
        )

        k = max(1, min(5, num_classes - 1))
        among: dict[str, Any] = {"dist_sync_fn": _of_all_images}
        how = among | {"validate_args": False}
        self.top1 = MulticlassAccuracy(num_classes, average="micro", **how).to(device)
        self.top5 = MulticlassAccuracy(num_classes, top_k=k, average="micro", **how).to(device)
        self.nll = MeanMetric(**among).to(device)
        self.ece = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1", **how).to(device)
        self.confusion = MulticlassConfusionMatrix(num_classes, **how).to(device)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """(B, C), (B,)"""
        logits = logits.float()
        probabilities = logits.softmax(-1)
        self.top1.update(probabilities, target)
        self.top5.update(probabilities, target)
        self.nll.update(nn.functional.cross_entropy(logits, target, reduction="none"))
        # Certainty itself belongs to the last bin; torchmetrics would make one more for it.
        self.ece.update(probabilities.clamp(max=_BELOW_ONE), target)
        self.confusion.update(probabilities, target)

    def compute(self) -> dict[str, float]:
        """Every metric of METRICS."""
        return {
            # Rounded to undo the float32 division: 12 of 450 is 0.026667.
            "top1_error": round(1 - float(self.top1.compute()), 6),
            "top5_error": round(1 - float(self.top5.compute()), 6),
            "nll": float(self.nll.compute()),
            "ece": float(self.ece.compute()),
            "average_accuracy": fmean(share for share in self.class_accuracy() if share is not None),
            "kappa": cohen_kappa(self.confusion.compute().cpu()),
        }

    def class_accuracy(self) -> list[float | None]:
        """The share of right answers in each class, None where the split holds none of it."""
        counts = self.confusion.compute().double().cpu()
        rows = zip(counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
        return [right / all_ if all_ else None for right, all_ in rows]


def _of_all_images(state: Tensor, group: object = None) -> list[Tensor]:
    """A metric's state of every process that has scored images of its own."""
    from torchmetrics.utilities.distributed import gather_all_tensors

    # Asked for here: a metric that held the group would keep it, and its connections, after the run.
    return gather_all_tensors(state, ranks.batch_group())


def cohen_kappa(confusion: Tensor) -> float:
    """Cohen's kappa of counts (true class, answer); 1 where there is nothing to disagree about."""
    shares = confusion.double() / confusion.sum()
    observed, expected = float(shares.trace()), float(shares.sum(0) @ shares.sum(1))
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


@torch.no_grad()
def score(
    predict: Callable[[Tensor], dict[str, Tensor]], batches: Iterable[tuple[Tensor, Tensor]], num_classes: int
) -> dict[str, Scores]:
    """Every predictor's scores over the batches."""
    scores: dict[str, Scores] = {}
    for images, target in batches:
        for name, logits in predict(images).items():
            if name not in scores:
                scores[name] = Scores(num_classes, logits.device)
            scores[name].update(logits, target)
    return scores


def summary(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Predictor -> metric -> value, with ``mean_peer`` the mean over the peers' values."""
    result = {name: found.compute() for name, found in scores.items()}
    peers = {name: values for name, values in result.items() if is_peer(name)}
    mean = {metric: fmean(values[metric] for values in peers.values()) for metric in METRICS}
    return {**peers, "mean_peer": mean, **result}
