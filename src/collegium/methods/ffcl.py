"""Feature fusion-based collaborative learning."""

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import FusionModule
from collegium.losses import (
    cross_entropy,
    distill,
    others,
    ramp_up,
    same_size,
    unit_attention,
    virtual_teacher,
)
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, share, trainable


class FFCL(Method):
    r"""Peers teach each other by predictions and attention, learn from their fused features and from a made-up teacher.

    .. math:: L = \sum_k \big[ (1 - \alpha) \, CE(z_k, y) + \alpha \, KL(u(y) \,\|\, \sigma(z_k)) \big] + CE(z_f, y)
        + w(e) \, (R + R_f + \beta A)
    .. math:: R = \frac{1}{M - 1} \sum_{i \ne j} T^2 KL(\sigma_T(z_j) \,\|\, \sigma_T(z_i)), \qquad
        R_f = \sum_k T^2 KL(\sigma_T(z_f) \,\|\, \sigma_T(z_k)), \qquad
        A = \frac{1}{M - 1} \sum_{i \ne j} \sum_s AT(f_i^s, f_j^s)

    R is the response term, R_f the fused one with z_f = F(f_1, ..., f_M) by FFL's fusion module, AT the attention
    transfer between the last stages (in both directions, the other side constant; the maps of a stage are averaged
    down to the smallest of them), and u(y) the virtual teacher of Tf-KD, made of the label alone: softmax of (0.99 for
    the true class, an equal share of 0.01 for the others) / 20.

    Source: Li, Sun, Gou, Du and Ou, "Feature fusion-based collaborative learning for knowledge distillation",
    International Journal of Distributed Sensor Networks 17(11), 2021, https://doi.org/10.1177/15501477211057037; no
    code is public.

    Differs from the paper: it pairs a larger and a smaller network; any peers do here.

    Known from: the abstract alone, which names the parts: response- and feature-based knowledge of different
    layers, concatenated features, a network regularisation with positive knowledge.

    Reconstructed: the equations, weights and stages, from FFL, attention transfer
    (https://arxiv.org/abs/1612.03928, a tenth of the benchmark's weight of 1000 in each direction: with half of it
    networks were far worse than alone, results/ffcl_parts) and Tf-KD (https://arxiv.org/abs/1909.11723). The ramp holds
    the feature term back too: with the full weight from the start, the attention of untrained peers collapses to one
    pattern for all images, which costs nothing and teaches nothing.

    When to use: to try these parts together or, by its switches, one by one; its numbers are not those of the
    paper. In a study of its parts (results/ffcl_parts) its best form left one network as accurate as alone.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions but the virtual teacher's.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        response: whether the peers teach each other by their predictions.
        feature: whether the peers teach each other by the attention of their stages.
        fused: whether the fused features are classified and teach the peers.
        regularisation: whether the virtual teacher takes a share of the labels' weight.
        feature_weight: beta.
        stages: how many of each peer's last stages are compared, matched from the last one down; the stages of a shared
            trunk are equal and add nothing.
        alpha: share of the virtual teacher, from 0 to 1.
        fusion_weight_decay: weight decay of the fusion module.
        fused_channels: width of the fused map; by default the widest peer's.
    """

    reconstructed = "the equations, the weights and the choice of stages (the abstract alone is known)"

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        ramp: float = 80 / 300,
        response: bool = True,
        feature: bool = True,
        fused: bool = True,
        regularisation: bool = True,
        feature_weight: float = 100.0,
        stages: int = 3,
        alpha: float = 0.1,
        fusion_weight_decay: float = 1e-5,
        fused_channels: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("FFCL's temperature", temperature)
        self.ramp = share("FFCL's ramp", ramp)
        self.response = response
        self.feature = feature
        self.feature_weight = not_negative("FFCL's feature_weight", feature_weight)
        self.stages = stages
        self.alpha = share("FFCL's alpha", alpha) if regularisation else 0.0
        self.fusion_weight_decay = not_negative("FFCL's fusion_weight_decay", fusion_weight_decay)
        fewest = min(range(spec.num_peers), key=lambda k: len(spec.feature_shapes[k]))
        most = len(spec.feature_shapes[fewest])
        if feature and not 1 <= stages <= most:
            raise UsageError(
                f"FFCL cannot compare {stages} stages: peer{fewest} ({spec.names[fewest]}) has {most}; take "
                f"--method.stages {most}, or switch the comparison off with --method.feature false"
            )
        self.fusion = FusionModule(spec.last_shapes, spec.num_classes, fused_channels) if fused else None

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        fusion: ParameterGroup = {"params": trainable(self), "weight_decay": self.fusion_weight_decay}
        return {"peers": [{"params": trainable(cohort)}, fusion]}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, pairs = out.logits, len(out.logits) - 1
        w = ramp_up(progress, self.ramp)
        terms = {"ce": (1 - self.alpha) * cross_entropy(z, target)}
        if self.alpha:
            terms["regularisation"] = self.alpha * distill(z, virtual_teacher(target, z.shape[-1]), 1.0)
        if self.response:
            mutual = torch.stack([distill(z[k], others(z, k), self.temperature) for k in range(len(z))])
            terms["response"] = w * mutual.sum() / pairs
        if self.feature:
            terms["feature"] = w * self.feature_weight * self._attention(out) / pairs
        if self.fusion is not None:
            z_f = self.fusion(out.last_features)
            terms["ce_fused"] = cross_entropy(z_f, target)
            terms["fused"] = w * distill(z, z_f, self.temperature)
        return {"peers": terms}

    def _attention(self, out: PeerOutputs) -> Tensor:
        """Sum over ordered pairs of peers and over stages."""
        losses = []
        for maps in zip(*(features[-self.stages :] for features in out.features), strict=True):
            attention = [unit_attention(f) for f in same_size(*maps)]
            losses += [F.mse_loss(own, told.detach()) for own, told in permutations(attention, 2)]
        return torch.stack(losses).sum()

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {} if self.fusion is None else {"fused": self.fusion(out.last_features)}

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {} if self.fusion is None else {"fused": self.fusion.fuse(out.last_features)}
