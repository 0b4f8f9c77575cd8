"""Competitive distillation."""

from typing import Literal

import torch
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Terms, not_negative, positive
from collegium.ranks import mean_over_ranks


class Competitive(Method):
    r"""In every batch the peer that knows the labels best teaches the others, and learns from the labels alone.

    .. math:: t = \arg\min_i CE(z_i, y), \qquad
        L = \sum_i CE(z_i, y) + \sum_{i \ne t} \big[ T^2 KL(\sigma_T(z_t) \,\|\, \sigma_T(z_i))
        + \lambda \, \overline{(h_i - h_t)^2} \big]

    h are the pooled last maps, a bar is the mean over their entries and the batch.

    Source: Shi, Diao, Chen and John, "Competitive Distillation: A Simple Learning Strategy for Improving Visual
    Classification", ICCV 2025, https://arxiv.org/abs/2506.23285; code
    https://github.com/XiaoleiDiao/Competitive-Distillation. With T = 1; ``teachers="better"`` is the code's form for
    more than two peers, in which each learns from all that know the labels better than it does, on average; for two the
    forms are the same. The term of the features is in the paper; in the code it is commented out, with
    :math:`\lambda = 0.1`, and so it is left out by default.

    Differs from the source: the stochastic perturbation is not here, that is, one peer drawn at random does not see its
    images strongly changed (mixup, noise, blur, rotation, mirroring) in every tenth batch.

    Known from: the authors' code; what the paper says from secondary accounts.

    When to use: to compare with DML, of which it is the one-way form: a peer that is ahead is not drawn to those
    behind it.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens the predictions that are imitated.
        teachers: "best", the peer of the lowest cross-entropy teaches all others; "better", each peer learns from
            every one of a lower cross-entropy than its own.
        features: lambda, weight of the features; where it is above 0 the last maps of all peers must be equally wide.
    """

    logits_only = True  # without the term of the features

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 1.0,
        teachers: Literal["best", "better"] = "best",
        features: float = 0.0,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("Competitive's temperature", temperature)
        self.teachers = teachers
        self.features = not_negative("Competitive's features", features)
        self.logits_only = not features
        if features and len({shape[0] for shape in spec.last_shapes}) > 1:
            listed = ", ".join(f"{name} {shape[0]}" for name, shape in spec.named_last_shapes)
            raise UsageError(
                f"maps of unlike widths cannot be compared ({listed}); take peers of one kind, or leave "
                "--method.features out"
            )

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        ce = torch.stack([cross_entropy(one, target) for one in z])
        weight = self._weights(mean_over_ranks(ce.detach()))
        terms = {
            "ce": ce.sum(),
            "kd": distill(z[:, None], z[None], self.temperature, weight[..., None]),
        }
        if self.features:
            h = torch.stack([f.mean((2, 3)).float() for f in out.last_features])  # (M, B, D)
            distance = (h[:, None] - h[None].detach()).square().mean((2, 3))
            terms["features"] = self.features * (weight * distance).sum()
        return {"peers": terms}

    def _weights(self, ce: Tensor) -> Tensor:
        """How much peer i learns from peer j: (M,) -> (M, M)"""
        better = (ce[None] < ce[:, None]).to(ce.dtype)
        if self.teachers == "better":
            return better / better.sum(1, keepdim=True).clamp_min(1)
        # A peer that is as good as the best learns from nobody.
        return better * torch.nn.functional.one_hot(ce.argmin(), len(ce)).to(ce.dtype)
