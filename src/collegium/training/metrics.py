"""Scores of predictors, summed on the device and read once."""

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import TypeVar

import torch
from torch import Tensor, nn

from collegium import ranks
from collegium.cohort import is_peer
from collegium.wide import in_double

METRICS = ("top1_error", "top5_error", "nll", "ece", "average_accuracy", "kappa")
BINS = 15  # of the calibration error


Images = TypeVar("Images")


class Scores:
    """One predictor's scores over a split, from sums over its images that stay on the device.

    top1_error and top5_error are shares in [0, 1]; nll is the mean negative log-likelihood in nats; ece is the
    expected calibration error with 15 equal bins (Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599).
    With fewer than six classes the top 5 are the top C - 1. average_accuracy is the mean, over the classes that the
    split holds, of the share of correct answers; kappa is Cohen's: the agreement with the labels beyond the agreement
    that the classes' frequencies alone would give. Ranks that share the images must call :meth:`compute` together.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._top = max(1, min(5, num_classes - 1))
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)
        self._top_right = torch.zeros((), dtype=torch.long, device=device)
        self._nll = in_double(torch.zeros((), device=device))
        self._bins = in_double(torch.zeros(2, BINS, device=device))  # confidences, correct answers

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch: logits (B, C), class indices (B,)."""
        log_p = logits.float().log_softmax(-1)
        confidence, answer = log_p.exp().max(-1)
        cell = target * logits.shape[-1] + answer
        self._confusion.view(-1).scatter_add_(0, cell, torch.ones_like(cell))
        self._top_right += (log_p.topk(self._top).indices == target[:, None]).sum()
        self._nll += in_double(nn.functional.nll_loss(log_p, target, reduction="none")).sum()
        in_bin = bin_of(confidence)[:, None] == torch.arange(BINS, device=target.device)  # (B, bins)
        self._bins += in_double(torch.stack([confidence, answer == target])) @ in_double(in_bin)

    def compute(self) -> dict[str, float]:
        """The value of every metric of METRICS."""
        counts, top_right = self._counts(), int(ranks.sum_over_ranks(self._top_right))
        images, right = int(counts.sum()), int(counts.trace())
        confidence, right_in_bin = ranks.sum_over_ranks(self._bins)
        return {
            "top1_error": (images - right) / images,
            "top5_error": (images - top_right) / images,
            "nll": float(ranks.sum_over_ranks(self._nll)) / images,
            "ece": float((confidence - right_in_bin).abs().sum()) / images,
            "average_accuracy": fmean(share for share in _shares(counts) if share is not None),
            "kappa": cohen_kappa(counts),
        }

    def class_accuracy(self) -> list[float | None]:
        """The share of correct answers in each class, None for classes without images."""
        return _shares(self._counts())

    def _counts(self) -> Tensor:
        """Number of images by true class and answer, (C, C)."""
        return ranks.sum_over_ranks(self._confusion).cpu()


def bin_of(confidence: Tensor, bins: int = BINS) -> Tensor:
    """The index of the bin that holds a confidence, of equal bins of [0, 1], each closed above: (N,) -> (N,)."""
    return ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)


def _shares(counts: Tensor) -> list[float | None]:
    rows = zip(counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return [right / images if images else None for right, images in rows]


def cohen_kappa(confusion: Tensor) -> float:
    """Cohen's kappa of counts (true class, answer); 1 where chance agreement is certain."""
    shares = confusion.double() / confusion.sum()
    observed, expected = float(shares.trace()), float(shares.sum(0) @ shares.sum(1))
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


@torch.no_grad()
def score(
    predict: Callable[[Images], dict[str, Tensor]], batches: Iterable[tuple[Images, Tensor]], num_classes: int
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
