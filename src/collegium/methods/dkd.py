"""Decoupled knowledge distillation."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, standardised
from collegium.method import Method, Progress, Terms, not_negative, positive, share


class Decoupled(NamedTuple):
    """A prediction in two parts, both as logits."""

    target: Tensor  # (..., B, 2), whether it is the true class
    others: Tensor  # (..., B, C), which it is of the other classes


class DKD(Method):
    r"""A peer imitates how sure a frozen teacher is of the true class, and apart from that how it ranks the others.

    With :math:`b = (p_y, 1 - p_y)` and :math:`\hat p_c = p_c / (1 - p_y)` for the classes c other than the true one y,
    where p is softened by T,

    .. math:: L = \sum_k \Big[ CE(z_k, y) + w(e) \, T^2 \big( \alpha \, KL(b_t \,\|\, b_k)
        + \beta \, KL(\hat p_t \,\|\, \hat p_k) \big) \Big], \qquad w(e) = \min(1, (e + 1) / W)

    The terms are the paper's TCKD and NCKD. With :math:`\alpha = 1`, and :math:`\beta = 1 - p_{t,y}` image by image,
    their sum would be that of KD.

    Source: Zhao, Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", CVPR 2022,
    https://arxiv.org/abs/2203.08679; code https://github.com/megvii-research/mdistiller, with W = 20 of 240 epochs. The
    authors set beta for each pair of networks. With ``standardise=True`` logits are standardised as in KD; the authors
    of that then take T = 2 and 9 times both weights, ``--method.temperature 2 --method.alpha 9 --method.beta 72``.

    Differs from the source: where labels are mixed or smoothed, the likeliest class is the true one.

    Known from: the authors' code.

    When to use: in place of KD, when a better network is trained already.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        temperature: T, softens both predictions.
        alpha: weight of the true class against all others.
        beta: weight of the others among themselves.
        warmup: W as a share of training; 0 switches it off.
        standardise: whether both logits are standardised.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True
    logits_only = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup: float = 20 / 240,
        standardise: bool = False,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("DKD's temperature", temperature)
        self.alpha = not_negative("DKD's alpha", alpha)
        self.beta = not_negative("DKD's beta", beta)
        self.warmup = share("DKD's warmup", warmup)
        self.standardise = standardise

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        classes = target if target.ndim == 1 else target.argmax(1)
        own, told = (self._decoupled(z, classes) for z in (out.logits, out.teacher.logits))
        w = torch.ones_like(progress.epoch)
        if self.warmup:
            w = ((progress.epoch + 1) / (self.warmup * progress.epochs)).clamp(max=1)
        scale = w * self.temperature**2
        return {
            "peers": {
                "ce": cross_entropy(out.logits, target),
                "tckd": self.alpha * scale * distill(own.target, told.target, 1.0),
                "nckd": self.beta * scale * distill(own.others, told.others, 1.0),
            }
        }

    def _decoupled(self, logits: Tensor, classes: Tensor) -> Decoupled:
        """(..., B, C), (B,)"""
        z = (standardised(logits) if self.standardise else logits.float()) / self.temperature
        true = F.one_hot(classes, z.shape[-1]).to(z.dtype)
        others = z - 1000 * true  # whose softmax leaves the true class nothing
        return Decoupled(torch.stack([(true * z).sum(-1), others.logsumexp(-1)], -1), others)
