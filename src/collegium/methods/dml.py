"""Deep mutual learning."""

from typing import Literal

import torch
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, mean_prediction, others
from collegium.method import Method, Progress, Terms, positive


class DML(Method):
    r"""Every peer imitates the predictions of the others.

    .. math:: L = \sum_i \Big[ CE(z_i, y)
        + \frac{1}{M-1} \sum_{j \ne i} T^2 KL(\sigma_T(z_j) \,\|\, \sigma_T(z_i)) \Big]

    Source: Zhang, Xiang, Hospedales and Lu, "Deep Mutual Learning", CVPR 2018, https://arxiv.org/abs/1706.00384,
    with T = 1; code https://github.com/YingZhangDUT/Deep-Mutual-Learning.

    Differs from the source: the peers update together from one forward pass. In the authors' code, as by all accounts
    in the paper, they update in turn, each on a batch of its own, and the code sums over the others
    (``reduction="sum"``).

    Known from: the authors' code; the mean over the others and the updates in turn were not checked against the
    paper's text.

    When to use: when one of two networks is deployed, with few or wrongly labelled images and many steps (then with
    T of 2 or 3), or when a network is to be better calibrated.

    Args:
        spec: the cohort's shapes.
        temperature: T; the paper uses none (1), many later papers call DML what uses 3.
        target: "pairwise", each of the others is a target; "ensemble", the mean of their probabilities is
            the one target (the paper's DML_e).
        reduction: whether the pairwise terms of a peer are averaged or summed over the others.
    """

    logits_only = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 1.0,
        target: Literal["pairwise", "ensemble"] = "pairwise",
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("DML's temperature", temperature)
        self.target = target
        self.reduction = reduction

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        mutual = torch.stack([self._imitate(z[i], others(z, i)) for i in range(len(z))]).sum()
        return {"peers": {"ce": cross_entropy(z, target), "mutual": mutual}}

    def _imitate(self, own: Tensor, rest: Tensor) -> Tensor:
        """(B, C), (M - 1, B, C) -> ()"""
        if self.target == "ensemble":
            return distill(own, mean_prediction(rest, self.temperature), self.temperature)
        total = distill(own, rest, self.temperature)
        return total / len(rest) if self.reduction == "mean" else total
