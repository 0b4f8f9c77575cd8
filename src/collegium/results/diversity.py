"""How predictors differ, from their answers and probabilities alone.

Letters in shapes: M predictors, N images, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from collegium.training.metrics import bin_of


def agreement(answers: Tensor) -> Tensor:
    """Share of images with the same answer, for each pair: (M, N) -> (M, M)."""
    return (answers[:, None] == answers[None]).double().mean(-1)


def kappa(answers: Tensor, num_classes: int) -> Tensor:
    r"""Cohen's kappa, agreement beyond chance, for each pair: (M, N) -> (M, M).

    .. math:: \kappa = \frac{p_o - p_e}{1 - p_e}, \qquad p_e = \sum_c p_i(c) \, p_j(c)

    p_o is the agreement, p_i(c) how often predictor i answers c. Where both always give one and the same answer
    nothing is left beyond chance, and kappa is 1. Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    frequency = torch.stack([torch.bincount(a, minlength=num_classes) for a in answers]).double() / answers.shape[1]
    chance = frequency @ frequency.T
    value = (agreement(answers) - chance) / (1 - chance).clamp_min(1e-12)
    return torch.where(chance > 1 - 1e-12, torch.ones_like(value), value)


def double_fault(answers: Tensor, target: Tensor) -> Tensor:
    """Share of images that both get wrong, for each pair: (M, N), (N,) -> (M, M)."""
    wrong = (answers != target).double()
    return wrong @ wrong.T / len(target)


def jensen_shannon(logits: Tensor) -> Tensor:
    r"""Mean Jensen-Shannon divergence in nats, at most ln 2, for each pair: (M, N, C) -> (M, M).

    .. math:: JS(p, q) = \tfrac12 KL(p \,\|\, m) + \tfrac12 KL(q \,\|\, m), \qquad m = \tfrac12 (p + q)
    """
    p = logits.double().softmax(-1)
    entropy = -torch.special.xlogy(p, p).sum(-1)  # (M, N)
    result = torch.zeros(len(p), len(p), dtype=torch.float64)
    for i in range(len(p)):
        for j in range(i):
            middle = (p[i] + p[j]) / 2
            divergence = -torch.special.xlogy(middle, middle).sum(-1) - (entropy[i] + entropy[j]) / 2
            result[i, j] = result[j, i] = divergence.mean().clamp_min(0)
    return result


def confusion(answers: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Counts of images by true class (row) and answer (column): (N,), (N,) -> (C, C)."""
    return torch.bincount(target * num_classes + answers, minlength=num_classes**2).view(num_classes, num_classes)


def most_confused(matrix: Tensor, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes as (true class, answer, images); ties in the order of the classes."""
    errors = matrix.clone().fill_diagonal_(0).flatten()
    order = torch.sort(errors, descending=True, stable=True).indices[:count]
    return [(int(i) // len(matrix), int(i) % len(matrix), int(errors[i])) for i in order if errors[i] > 0]


@dataclass(frozen=True)
class Reliability:
    """Equal bins of confidence: how sure, how often right, and how many images."""

    confidence: Tensor  # (bins,), mean in the bin
    accuracy: Tensor  # (bins,)
    count: Tensor  # (bins,)

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, weighted by images."""
        return float(((self.confidence - self.accuracy).abs() * self.count).sum() / self.count.sum())


def reliability(logits: Tensor, target: Tensor, bins: int = 15) -> Reliability:
    """The bins behind the expected calibration error: (N, C), (N,). Empty bins hold zeros.

    Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599.
    """
    confidence, answer = logits.double().softmax(-1).max(-1)
    index = bin_of(confidence, bins)
    count = torch.bincount(index, minlength=bins).double()

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(index, weights=values, minlength=bins) / count.clamp_min(1)

    return Reliability(mean(confidence), mean((answer == target).double()), count)
