"""Multi-scale feature extraction and fusion."""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import FusionModule
from collegium.layers import convolution
from collegium.losses import cross_entropy, distill, others, ramp_up
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, share, trainable


class PyramidConvolution(nn.Module):
    """Channels in groups, each seen by a kernel of another size, then norm and ReLU. (B, D, H, W) -> (B, D, H, W)"""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        width = channels // scales
        # PyConv's numbers of groups for kernels of 3, 5, 7, 9: 1, 4, 8, 16.
        self.convolutions = nn.ModuleList(
            convolution(width, width, 3 + 2 * s, groups=math.gcd(width, 2 ** (s + 1) if s else 1))
            for s in range(scales)
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.convolutions), dim=1)
        y = [conv(part) for conv, part in zip(self.convolutions, parts, strict=True)]
        return F.relu(self.norm(torch.cat(y, dim=1)))


class CascadedConvolution(nn.Module):
    """Res2Net's cascade: each group also sees what the one before it gave. (B, D, H, W) -> (B, D, H, W)"""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        width = channels // scales
        self.steps = nn.ModuleList(_normed(width, 3) for _ in range(scales - 1))
        self.mix = _normed(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.chunk(len(self.steps) + 1, dim=1)
        y = [first]
        for step, part in zip(self.steps, rest, strict=True):
            y.append(step(part + y[-1]))
        return cast(Tensor, self.mix(torch.cat(y, dim=1)))


def _normed(channels: int, kernel_size: int) -> nn.Module:
    return nn.Sequential(convolution(channels, channels, kernel_size), nn.BatchNorm2d(channels), nn.ReLU())


class ChannelAttention(nn.Module):
    """Weighs every channel by what its mean and its maximum say. (B, D, H, W) -> (B, D, H, W)"""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()
        return x * weights[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs every place by the mean and the maximum over its channels. (B, D, H, W) -> (B, D, H, W)"""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.stack([x.mean(1), x.amax(1)], dim=1)
        return x * cast(Tensor, self.convolution(seen)).sigmoid()


class MFEF(Method):
    r"""The peers' last maps pass multi-scale extraction and dual attention, then are fused; both sides teach.

    .. math:: g_k = A_s(A_c(E(f_k))), \qquad z_f = F(g_1, \dots, g_K), \qquad z_e = \frac{1}{K} \sum_k z_k
    .. math:: L = \sum_k CE(z_k, y) + CE(z_f, y) + w(e) \Big[ T^2 KL(\sigma_T(z_e) \,\|\, \sigma_T(z_f))
        + \sum_k T^2 KL(\sigma_T(z_f) \,\|\, \sigma_T(z_k)) \Big]

    E extracts at several scales, A_c and A_s are channel and spatial attention, F is FFL's fusion module. All of it
    serves training alone: a peer stays a plain network. The predictor ``fused`` is z_f.

    Source: Zou, Teng and Niu, "Multi scale Feature Extraction and Fusion for Online Knowledge Distillation", ICANN
    2022, https://arxiv.org/abs/2206.08224; no code is public.

    With ``multi_scale="none"`` and both attentions off this is FFL.

    Known from: the abstract and the list of references alone; the abstract names the parts: extraction by dividing
    and concatenating along channels, dual attention, fusion.

    Reconstructed: how each part is built, the loss and its weights, from pyramidal convolution
    (https://arxiv.org/abs/2006.11538) or Res2Net (https://arxiv.org/abs/1904.01169) and FFL's fusion and loss,
    which it cites, and from CBAM's attention (https://arxiv.org/abs/1807.06521).

    When to use: to try what multi-scale, attended maps add to ``ffl``; its numbers are not those of the paper. In a
    study of its parts (results/mfef_parts) the two teachers helped, the maps' parts did not, and ``peer_kd`` did.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        multi_scale: "pyconv", every group of channels has a kernel of another size; "res2net", every group also sees
            what the one before it gave; "none", maps as they are.
        scales: number of groups; fewer where the channels cannot be divided by it.
        channel_attention: whether channels are weighed.
        spatial_attention: whether places are weighed.
        reduction: by how much the channel attention's hidden layer is narrower than the map.
        ekd: whether the ensemble of the peers teaches the fused classifier.
        fkd: whether the fused classifier teaches the peers.
        peer_kd: whether the peers also teach each other, each learning from the mean loss to the others.
        fusion_weight_decay: weight decay of all that the peers do without.
        fused_channels: width of the fused map; by default the widest peer's.
    """

    reconstructed = "the multi-scale block, the attention, the loss and its weights (the abstract alone is known)"

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        ramp: float = 80 / 300,
        multi_scale: Literal["pyconv", "res2net", "none"] = "pyconv",
        scales: int = 4,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        reduction: int = 16,
        ekd: bool = True,
        fkd: bool = True,
        peer_kd: bool = False,
        fusion_weight_decay: float = 1e-5,
        fused_channels: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("MFEF's temperature", temperature)
        self.ramp = share("MFEF's ramp", ramp)
        if min(scales, reduction) < 1:
            raise UsageError(f"MFEF's scales and reduction must be 1 or more, not {scales} and {reduction}")
        self.ekd = ekd
        self.fkd = fkd
        self.peer_kd = peer_kd
        self.fusion_weight_decay = not_negative("MFEF's fusion_weight_decay", fusion_weight_decay)

        def enricher(channels: int) -> nn.Module:
            groups = next(s for s in range(scales, 0, -1) if channels % s == 0)
            layers: list[nn.Module] = []
            if multi_scale != "none":
                block = PyramidConvolution if multi_scale == "pyconv" else CascadedConvolution
                layers.append(block(channels, groups))
            if channel_attention:
                layers.append(ChannelAttention(channels, reduction))
            if spatial_attention:
                layers.append(SpatialAttention())
            return nn.Sequential(*layers)

        self.enrichers = nn.ModuleList(enricher(shape[0]) for shape in spec.last_shapes)
        self.fusion = FusionModule(spec.last_shapes, spec.num_classes, fused_channels)

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        fusion: ParameterGroup = {"params": trainable(self), "weight_decay": self.fusion_weight_decay}
        return {"peers": [{"params": trainable(cohort)}, fusion]}

    def _enriched(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [enrich(f) for enrich, f in zip(self.enrichers, features, strict=True)]

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, z_e, z_f = out.logits, out.logits.mean(0), self.fusion(self._enriched(out.last_features))
        w = ramp_up(progress, self.ramp)
        terms = {"ce": cross_entropy(z, target), "ce_fused": cross_entropy(z_f, target)}
        if self.ekd:
            terms["ekd"] = w * distill(z_f, z_e, self.temperature)
        if self.fkd:
            terms["fkd"] = w * distill(z, z_f, self.temperature)
        if self.peer_kd:
            mutual = torch.stack([distill(z[k], others(z, k), self.temperature) for k in range(len(z))])
            terms["peer_kd"] = w * mutual.sum() / (len(z) - 1)
        return {"peers": terms}

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion(self._enriched(out.last_features))}

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion.fuse(self._enriched(out.last_features))}
