"""The losses that methods are sums of. All are computed in float32, whatever the precision of the networks."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.method import Progress

_class_weights: Tensor | None = None


@contextmanager
def class_weighted(weights: Tensor | None) -> Iterator[None]:
    """Within it :func:`cross_entropy` has these weights (C,), one a class; None for none."""
    global _class_weights
    before, _class_weights = _class_weights, weights
    try:
        yield
    finally:
        _class_weights = before


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Mean cross-entropy over the batch, summed over peers: (..., B, C), (B,) or (B, C) -> ().

    .. math:: \sum_k \frac{1}{B} \sum_b -w(y_b) \log p_k(y_b \mid x_b)

    ``target`` holds class indices, or probabilities :math:`y_{bc}` where labels are smoothed or mixed:
    :math:`-\sum_c w_c \, y_{bc} \log p_k(c \mid x_b)`. The weights w are 1 but within :func:`class_weighted`, where a
    run has ``class_weights``. The sum is divided by the number of images B, not by the sum of their weights as in
    torch, so that parts of a batch on several devices make the whole batch's mean.
    """
    logits = logits.float()
    peers = math.prod(logits.shape[:-2])
    images = target.shape[0]
    target = target.expand(*logits.shape[:-2], *target.shape)
    start = logits.ndim - 2
    flat, labels = logits.flatten(0, start), target.flatten(0, start)
    if _class_weights is None:
        return F.cross_entropy(flat, labels) * peers
    return F.cross_entropy(flat, labels, weight=_class_weights.to(flat.dtype), reduction="sum") / images


def distill(student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None = None) -> Tensor:
    r"""Mean of the tempered divergence over the batch, summed over peers: (..., B, C), (..., B, C), (..., B) -> ().

    .. math:: w \, T^2 \, KL\big(\sigma(z_t / T) \,\|\, \sigma(z_s / T)\big)

    The teacher is a constant: no gradient reaches it. Leading dimensions are broadcast. Without weights w is 1.
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531.
    """
    return divergence(student, teacher.detach(), temperature, weight)


def divergence(student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None = None) -> Tensor:
    """What :func:`distill` is, for a teacher that learns from it too."""
    log_p = F.log_softmax(teacher.float() / temperature, dim=-1)
    log_q = F.log_softmax(student.float() / temperature, dim=-1)
    by_image = (log_p.exp() * (log_p - log_q)).sum(-1)
    return (by_image if weight is None else weight * by_image).mean(-1).sum() * temperature**2


def standardised(logits: Tensor) -> Tensor:
    """Logits of every image with mean 0 and standard deviation 1 over the classes: (..., C) -> (..., C).

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, https://arxiv.org/abs/2403.01427; the
    deviation is that of a sample, as in the authors' code.
    """
    logits = logits.float()
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)


def mean_prediction(logits: Tensor, temperature: float) -> Tensor:
    """Logits (..., B, C) whose softened prediction is the mean of those of (M, ..., B, C), up to a constant."""
    return temperature * (logits.float() / temperature).log_softmax(-1).logsumexp(0)


def ramp_up(progress: Progress, length: float) -> Tensor:
    r"""Sigmoid ramp from :math:`e^{-5}` to 1 over the first ``length`` (a share) of training.

    .. math:: w(e) = \exp\big(-5 (1 - \min(e, L) / L)^2\big)

    e counts completed epochs and L is ``length`` times all epochs: 80/300 gives the papers' 80 of 300 epochs.
    With ``length`` 0 the weight is 1 throughout.
    Laine and Aila, "Temporal Ensembling", https://arxiv.org/abs/1610.02242.
    """
    if length == 0:
        return torch.ones_like(progress.epoch)
    share = (progress.epoch / (length * progress.epochs)).clamp(0, 1)
    return torch.exp(-5 * (1 - share) ** 2)


def attention_map(feature: Tensor) -> Tensor:
    """Where a map is active: mean square over channels, (B, D, H, W) -> (B, H, W)."""
    feature = feature.float()
    with torch.autocast(feature.device.type, enabled=False):
        # One pass over the map, where squares and their mean are two.
        return cast(Tensor, torch.linalg.vecdot(feature, feature, dim=1)) / feature.shape[1]


def same_size(*maps: Tensor) -> list[Tensor]:
    """Maps (B, D_k, H_k, W_k), each averaged down to the smallest height and width among them."""
    size = (min(f.shape[2] for f in maps), min(f.shape[3] for f in maps))
    return [f if f.shape[2:] == size else F.adaptive_avg_pool2d(f.float(), size) for f in maps]


def unit_attention(feature: Tensor) -> Tensor:
    """An attention map as a vector of length 1 for each image, (B, D, H, W) -> (B, H W)."""
    return F.normalize(attention_map(feature).flatten(1))


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""How far two maps differ in where they are active: (B, D, H, W), (B, D', H', W') -> ().

    .. math:: \operatorname{mean} \Big( \frac{A_s}{\|A_s\|} - \frac{A_t}{\|A_t\|} \Big)^2

    A is :func:`attention_map`; a larger map is first averaged down to the smaller height and width. The teacher is a
    constant. Zagoruyko and Komodakis, "Paying More Attention to Attention", https://arxiv.org/abs/1612.03928; the mean
    over places as in the benchmark https://github.com/HobbitLong/RepDistiller.
    """
    a, b = map(unit_attention, same_size(student, teacher.detach()))
    return (a - b).square().mean()


def contrastive_loss(similarity: Tensor, classes: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""The supervised contrast of similarities: (..., B, B), (B,), (..., B) -> (...).

    .. math:: -\frac{1}{|A|} \sum_{i \in A} \frac{w_i}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{s(i, p)}}{\sum_{j \ne i} e^{s(i, j)}}

    P(i) are the other images of i's class in the batch, A the images that have one; without weights w is 1. Khosla et
    al., "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362.
    """
    self_ = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    positives = ((classes[:, None] == classes[None]) & ~self_).to(similarity.dtype)
    log_p = similarity - similarity.masked_fill(self_, -torch.inf).logsumexp(-1, keepdim=True)
    count = positives.sum(-1)
    anchors = (count > 0).sum().clamp_min(1)
    by_image = (positives * log_p).sum(-1) / count.clamp_min(1)
    return -(by_image if weight is None else weight * by_image).sum(-1) / anchors


def class_probabilities(target: Tensor, num_classes: int) -> Tensor:
    """Class indices (B,) as one-hot probabilities (B, C); probabilities as they are."""
    return F.one_hot(target, num_classes).float() if target.ndim == 1 else target.float()


def others(x: Tensor, index: int) -> Tensor:
    """All but entry ``index`` of the first dimension: (M, ...) -> (M - 1, ...)."""
    return torch.cat([x[:index], x[index + 1 :]])


def virtual_teacher(target: Tensor, num_classes: int, correct: float = 0.99, temperature: float = 20.0) -> Tensor:
    """Logits (B, C) of a teacher that is made of the labels alone, nearly uniform and always right.

    Its probabilities, ``correct`` for the true class and an equal share of the rest for each other, are softened as
    if they were logits; mixed or smoothed labels mix its teachers. Yuan et al., CVPR 2020,
    https://arxiv.org/abs/1909.11723, as in the authors' code.
    """
    wrong = (1 - correct) / (num_classes - 1)
    return (wrong + (correct - wrong) * class_probabilities(target, num_classes)) / temperature
