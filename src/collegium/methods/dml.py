"""Deep mutual learning."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, mean_prediction, others
from collegium.method import Method, Progress, Terms, positive


class DML(Method):
    r"""Every peer imitates the predictions of the others.

    .. math:: L = \sum_i \Big[ CE(z_i, y)
        + \frac{1}{M-1} \sum_{j \ne i} T^2 KL(\sigma_T(z_j) \,\|\, \sigma_T(z_i)) \Big]

    With ``divergence="renyi"`` the divergence of order :math:`\alpha` takes the place of KL, which is that of order 1:

    .. math:: D_\alpha(p_j \,\|\, p_i) = \frac{1}{\alpha - 1} \log \sum_c p_j(c)^\alpha \, p_i(c)^{1 - \alpha}

    Source: Zhang, Xiang, Hospedales and Lu, "Deep Mutual Learning", CVPR 2018, https://arxiv.org/abs/1706.00384,
    with T = 1; code https://github.com/YingZhangDUT/Deep-Mutual-Learning. The Rényi divergence is that of Huang, Tran,
    Feng, Lin and Xu, "Rényi Divergence Deep Mutual Learning", ECML PKDD 2023, https://arxiv.org/abs/2209.05732, with
    T = 1; code https://github.com/parklize/rdml.

    Differs from the source: the peers update together from one forward pass. In the authors' code, as by all accounts
    in the paper, they update in turn, each on a batch of its own, and the code sums over the others
    (``reduction="sum"``), with 1e-8 in its logarithm. The code of the Rényi divergence clips probabilities at 1e-8;
    this clips none, and takes orders within 0.001 of 1 for 1. The annealed order is that of the epoch, there from
    the second epoch on that of the one before.

    Known from: the authors' code of both divergences; the mean over the others and the updates in turn were not
    checked against the paper's text.

    When to use: when one of two networks is deployed, with few or wrongly labelled images and many steps (then with
    T of 2 or 3), or when a network is to be better calibrated.

    Args:
        spec: the cohort's shapes.
        temperature: T; the paper uses none (1), many later papers call DML what uses 3.
        target: "pairwise", each of the others is a target; "ensemble", the mean of their probabilities is
            the one target (the paper's DML_e).
        reduction: whether the pairwise terms of a peer are averaged or summed over the others.
        divergence: "kl", or "renyi".
        alpha: order of the Rényi divergence.
        anneal: whether this order falls to 0 over training along a cosine; at order 0 nothing is imitated.
    """

    logits_only = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 1.0,
        target: Literal["pairwise", "ensemble"] = "pairwise",
        reduction: Literal["mean", "sum"] = "mean",
        divergence: Literal["kl", "renyi"] = "kl",
        alpha: float = 2.0,
        anneal: bool = False,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("DML's temperature", temperature)
        self.target = target
        self.reduction = reduction
        self.divergence = divergence
        self.alpha = positive("DML's alpha", alpha)
        self.anneal = anneal

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        alpha = torch.full_like(progress.epoch, self.alpha)
        if self.anneal:
            alpha = alpha * (1 + torch.cos(math.pi * progress.epoch / progress.epochs)) / 2
        mutual = torch.stack([self._imitate(z[i], others(z, i), alpha) for i in range(len(z))]).sum()
        return {"peers": {"ce": cross_entropy(z, target), "mutual": mutual}}

    def _imitate(self, own: Tensor, rest: Tensor, alpha: Tensor) -> Tensor:
        """(B, C), (M - 1, B, C), () -> ()"""
        if self.target == "ensemble":
            return self._divergence(own, mean_prediction(rest, self.temperature), alpha)
        total = self._divergence(own, rest, alpha)
        return total / len(rest) if self.reduction == "mean" else total

    def _divergence(self, own: Tensor, told: Tensor, alpha: Tensor) -> Tensor:
        kl = distill(own, told, self.temperature)
        return kl if self.divergence == "kl" else _renyi(own, told, self.temperature, alpha, kl)


def _renyi(own: Tensor, told: Tensor, temperature: float, alpha: Tensor, kl: Tensor) -> Tensor:
    """T^2 D_alpha(told || own), averaged and summed as ``kl`` is; this itself where alpha is too near 1 to divide."""
    near = (alpha - 1).abs() < 1e-3
    order = torch.where(near, 2.0, alpha)
    log_p = F.log_softmax(told.detach().float() / temperature, dim=-1)
    log_q = F.log_softmax(own.float() / temperature, dim=-1)
    by_image = torch.logsumexp(order * log_p + (1 - order) * log_q, -1) / (order - 1)
    return torch.where(near, kl, by_image.mean(-1).sum() * temperature**2)
