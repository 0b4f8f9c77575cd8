"""Online knowledge distillation via collaborative learning."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Terms, not_negative, positive, share
from collegium.ranks import gather_batch, mean_over_ranks


class KDCL(Method):
    r"""All peers imitate one soft target, which is made of their logits and the labels in every batch.

    .. math:: L = \sum_i \Big[ CE(z_i, y) + \lambda \, T^2 KL(\sigma_T(z_t) \,\|\, \sigma_T(z_i)) \Big]

    and the target is one of

    .. math::
        \text{naive:} \quad & z_t = z_k, \quad k = \arg\min_i CE(z_i, y) \quad \text{for each image} \\
        \text{linear:} \quad & z_t = \sum_i \alpha_i z_i, \quad
            \alpha = \arg\min_{\alpha \ge 0, \, \sum \alpha_i = 1} CE\big(\textstyle\sum_i \alpha_i z_i, y\big)
            \quad \text{for each batch} \\
        \text{minlogit:} \quad & z_{t, j} = \min_i \, (z_{i, j} - z_{i, y}) \\
        \text{general:} \quad & z_t = \sum_i w_i z_i, \quad w \propto C^{-1} \mathbf{1}, \quad
            C_{ij} = \mathbb{E} \, (p_i - y)^\top (p_j - y)

    Source: Guo et al., "Online Knowledge Distillation via Collaborative Learning", CVPR 2020,
    https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html;
    the authors published no code. Two public re-implementations take the plain mean of the logits as target:
    numbers of theirs are of another method.

    Differs from the paper: it measures the covariance of "general" on held-out images after every epoch; here it is
    a running mean over the training batches before this one, and weights below 0 become 0, because a target beyond
    what the peers say can run away. "linear" takes 32 steps of exponentiated gradients on the device. Where labels
    are mixed or smoothed, the logit of the true class is the mean of the logits by the label's weights.

    Known from: secondary accounts of the paper; the formulas of the targets were not checked against its text. A public
    re-implementation (https://github.com/wangz3066/OnlineDistillGCN) has "minlogit" alike, and "naive" with the k of
    the least cross-entropy of a batch.

    Reconstructed: the temperature and the weight of the soft target, and for "general" the estimate of the
    covariance.

    When to use: with a small and a large network, and own views. A secondary account gives 74.30 % for ResNet-32
    and 75.50 % for WRN-16-2 on CIFAR-100 with "general", 69.90 % and 72.20 % for each alone.

    Args:
        spec: the cohort's shapes.
        target: how the soft target is made, see above.
        temperature: T, softens all predictions.
        weight: lambda, weight of the soft target.
        own_views: whether each peer sees its own random view of an image (the paper's invariant collaborative
            learning).
        memory: of "general": the share of the running covariance that stays in every batch.
    """

    example = "--peers resnet20,wrn_16_2"
    logits_only = True
    reconstructed = "the formulas of the targets, the temperature and the weight of the soft target"
    covariance: Tensor

    def __init__(
        self,
        spec: CohortSpec,
        *,
        target: Literal["naive", "linear", "minlogit", "general"] = "minlogit",
        temperature: float = 3.0,
        weight: float = 1.0,
        own_views: bool = True,
        memory: float = 0.99,
    ) -> None:
        super().__init__(spec)
        self.target = target
        self.gathers_batch = target == "linear"
        self.temperature = positive("KDCL's temperature", temperature)
        self.weight = not_negative("KDCL's weight", weight)
        self.own_views = own_views
        self.memory = share("KDCL's memory", memory)
        if target == "general":
            self.reconstructed = f"{self.reconstructed}, the estimate of the errors' covariance"
            self.register_buffer("covariance", torch.eye(spec.num_peers))  # as of peers that err alike, each alone

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        y = F.one_hot(target, z.shape[-1]).float() if target.ndim == 1 else target.float()
        with torch.no_grad():
            taught = self._soft_target(z.float(), y)
        return {
            "peers": {
                "ce": cross_entropy(z, target),
                "kd": self.weight * distill(z, taught, self.temperature),
            }
        }

    def _soft_target(self, z: Tensor, y: Tensor) -> Tensor:
        """(M, B, C), (B, C) -> logits (B, C)"""
        if self.target == "minlogit":
            return (z - (y * z).sum(-1, keepdim=True)).amin(0)
        if self.target == "naive":
            best = -(y * z.log_softmax(-1)).sum(-1)  # (M, B)
            return z.take_along_dim(best.argmin(0)[None, :, None], 0)[0]
        if self.target == "linear":
            return _mix(_best_mixture(gather_batch(z, 1), gather_batch(y)), z)
        weights = _least_error(self.covariance)
        if self.training:
            self.covariance.lerp_(mean_over_ranks(_products(z.softmax(-1) - y)), 1 - self.memory)
        return _mix(weights, z)


def _mix(weights: Tensor, z: Tensor) -> Tensor:
    """(M,), (M, B, C) -> (B, C)"""
    return (weights[:, None, None] * z).sum(0)


def _products(x: Tensor) -> Tensor:
    """Inner products over classes, mean over the batch: (M, B, C) -> (M, M)"""
    with torch.autocast(x.device.type, enabled=False):
        return x.flatten(1) @ x.flatten(1).T / x.shape[1]


def _best_mixture(z: Tensor, y: Tensor, steps: int = 32) -> Tensor:
    """The convex weights (M,) by which a mixture of logits (M, B, C) has the least cross-entropy to y (B, C)."""
    log_weights = torch.full_like(z[:, 0, 0], 1 / len(z)).log()
    for _ in range(steps):
        p = _mix(log_weights.exp(), z).softmax(-1)
        slope = ((p - y) * z).sum((1, 2)) / len(y)
        variance = _products((z - (p * z).sum(-1, keepdim=True)) * p.sqrt())
        alone = variance.diagonal()
        # The largest curvature along an edge of the simplex; no weight may change by more than a factor e in one step.
        curvature = (alone[:, None] + alone - 2 * variance).amax() / 4
        rate = torch.maximum(curvature, slope.amax() - slope.amin()).clamp_min(1e-6)
        log_weights = (log_weights - slope / rate).log_softmax(0)
    return log_weights.exp()


def _least_error(covariance: Tensor) -> Tensor:
    """The weights (M,) by which errors of such a covariance (M, M) cancel best, none below 0."""
    ridge = 1e-3 * covariance.diagonal().mean() + 1e-12  # peers that err alike have a singular one
    regular = covariance + ridge * torch.eye(len(covariance), device=covariance.device)
    solved, _ = torch.linalg.solve_ex(regular, torch.ones_like(regular[0]))  # solve would wait for the device
    weights: Tensor = (solved / solved.sum()).clamp_min(0)
    return weights / weights.sum()
