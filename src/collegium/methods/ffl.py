"""Feature fusion learning."""

from typing import Literal

from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import FusionModule, MapMatching, SumFusion
from collegium.losses import cross_entropy, distill, ramp_up
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, share, trainable


class FFL(Method):
    r"""The peers' last maps are fused; their mean teaches the fused classifier (EKD), which teaches every peer (FKD).

    .. math:: z_e = \frac{1}{K} \sum_k z_k, \qquad z_f = F(f_1, \dots, f_K)
    .. math:: L = \sum_k CE(z_k, y) + CE(z_f, y) + w(e) \Big[ T^2 KL(\sigma_T(z_e) \,\|\, \sigma_T(z_f))
        + \sum_k T^2 KL(\sigma_T(z_f) \,\|\, \sigma_T(z_k)) \Big]

    Source: Kim, Hyun, Chung and Kwak, "Feature Fusion for Online Mutual Knowledge Distillation", ICPR 2020,
    https://arxiv.org/abs/1904.09058; code https://github.com/Jangho-Kim/FFL-pytorch. The predictor ``fused`` is the
    paper's FFL, a peer is its FFL-S. In the paper like peers share all but the last stage (``--share-until stage2``),
    unlike peers share none.

    The ablation of the paper, cases A to D by our reading of its table: A is the default; B is
    ``fusion="sum"``; C is ``ekd=False``; D is ``fusion="sum", ekd=False, fkd=False``.

    Differs from the source: with ``ensemble_ce=True`` the mean of the logits learns from the labels too,
    :math:`CE(z_e, y)`: the figure of the paper draws this term, the authors' code has none. The code adds 1e-7 to the
    probabilities that are imitated.

    Known from: the authors' code and poster; how maps of unlike sizes and widths are matched is ours.

    When to use: when two networks are trained and one is deployed, or both with the fused classifier.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        fusion: "conv", the fusion module; "sum", the mean of the maps as in DualNet, for equal shapes.
        ekd: whether the ensemble of the peers teaches the fused classifier.
        fkd: whether the fused classifier teaches the peers.
        ensemble_ce: whether the mean of the peers' logits learns from the labels.
        detach_fusion_inputs: True keeps the fused classifier's losses from training the peers.
        fusion_weight_decay: weight decay of the fusion module (the authors' is a tenth of the peers').
        fused_channels: width of the map that is fused by convolution; by default the widest peer's.
        matching: how the maps of unlike peers are brought to one size: "learned", to the smallest by convolutions;
            "pooled", to the smallest by average pooling; "enlarged", to the largest by bilinear interpolation.
    """

    example = "--peers 2xresnet20 --share-until stage2"

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        ramp: float = 80 / 300,
        fusion: Literal["conv", "sum"] = "conv",
        ekd: bool = True,
        fkd: bool = True,
        ensemble_ce: bool = False,
        detach_fusion_inputs: bool = False,
        fusion_weight_decay: float = 1e-5,
        fused_channels: int | None = None,
        matching: MapMatching = "learned",
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("FFL's temperature", temperature)
        self.ramp = share("FFL's ramp", ramp)
        self.ekd = ekd
        self.fkd = fkd
        self.ensemble_ce = ensemble_ce
        self.detach_fusion_inputs = detach_fusion_inputs
        self.fusion_weight_decay = not_negative("FFL's fusion_weight_decay", fusion_weight_decay)
        self.fusion: FusionModule | SumFusion
        if fusion == "sum" and fused_channels is not None:
            raise UsageError(
                "FFL's sum of maps is as wide as they are: leave --method.fused_channels out, or fuse by convolution"
            )
        if fusion == "conv":
            self.fusion = FusionModule(spec.last_shapes, spec.num_classes, fused_channels, matching)
        else:
            self.fusion = SumFusion(spec.named_last_shapes, spec.num_classes)

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        fusion: ParameterGroup = {"params": trainable(self), "weight_decay": self.fusion_weight_decay}
        return {"peers": [{"params": trainable(cohort)}, fusion]}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        features = out.last_features
        if self.detach_fusion_inputs:
            features = tuple(f.detach() for f in features)
        z, z_e, z_f = out.logits, out.logits.mean(0), self.fusion(features)
        w = ramp_up(progress, self.ramp)
        terms = {"ce": cross_entropy(z, target), "ce_fused": cross_entropy(z_f, target)}
        if self.ensemble_ce:
            terms["ce_ensemble"] = cross_entropy(z_e, target)
        if self.ekd:
            terms["ekd"] = w * distill(z_f, z_e, self.temperature)
        if self.fkd:
            terms["fkd"] = w * distill(z, z_f, self.temperature)
        return {"peers": terms}

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion(out.last_features)}

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion.fuse(out.last_features)}
