"""Feature fusion and self-distillation."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import FusionModule, Shape
from collegium.layers import convolution
from collegium.losses import (
    attention_map,
    attention_transfer,
    cross_entropy,
    distill,
    others,
    ramp_up,
    same_size,
    unit_attention,
)
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, share, trainable


class TransFusion(nn.Module):
    """Unfolds a map into all that was fused: 3x3 depth-wise and 1x1 point-wise convolution, each with norm and ReLU."""

    def __init__(self, channels: int, total: int) -> None:
        super().__init__()
        self.depthwise = convolution(channels, channels, 3, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = convolution(channels, total, 1)
        self.norm2 = nn.BatchNorm2d(total)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.depthwise(x)))
        return F.relu(self.norm2(self.pointwise(x)))


class DecoderStep(nn.Module):
    """From the map of one stage to that of the stage below: transposed 3x3 convolution of stride 2, norm and ReLU.

    Where the stage below is not twice as high and wide, the map is enlarged by repetition before a plain convolution.
    """

    def __init__(self, above: Shape, below: Shape) -> None:
        super().__init__()
        self.grow: nn.Module
        if tuple(below[1:]) == (2 * above[1], 2 * above[2]):
            self.grow = nn.ConvTranspose2d(above[0], below[0], 3, 2, padding=1, output_padding=1, bias=False)
        else:
            self.grow = nn.Sequential(nn.Upsample(size=below[1:]), convolution(above[0], below[0], 3))
        self.norm = nn.BatchNorm2d(below[0])

    def forward(self, x: Tensor, learning: bool) -> Tensor:
        norm = self.norm
        return F.relu(
            F.batch_norm(
                self.grow(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, learning and norm.training
            )
        )


class Decoder(nn.Module):
    """Rebuilds a network's lower stages from its last map.

    Args:
        shapes: (D, H, W) of the stages, from the lowest to the last.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__()
        downwards = list(shapes)[::-1]
        self.steps = nn.ModuleList(map(DecoderStep, downwards[:-1], downwards[1:]))

    def forward(self, x: Tensor, *, learning: bool) -> list[Tensor]:
        """The last map -> maps of the stages below it, the highest first; norms by the batch if it is learning."""
        maps = []
        for step in self.steps:
            x = step(x, learning)
            maps.append(x)
        return maps


class FFSD(Method):
    r"""Students teach each other and are fused; the fused map and classifier teach a leader, the last peer.

    With students 1..K, leader L, fusion F and decoders D, all targets constant, A the attention of a map:

    .. math:: z_f = F(f_1, \dots, f_K), \qquad z_e = \frac{1}{K} \sum_k z_k, \qquad
        KD(s, t) = T^2 KL(\sigma_T(t) \,\|\, \sigma_T(s))
    .. math:: L_k = CE(z_k, y) + \frac{1}{K - 1} \sum_{j \ne k} KD(z_k, z_j)
        + \lambda_d \big[ d(A_k, \tilde A_{k-1}) + \sum_s d(A_k^s, A(D_k^s(\tilde f_{k-1}))) \big]
    .. math:: L_F = CE(z_f, y) + KD(z_f, z_e)
    .. math:: L_L = CE(z_L, y) + KD(z_L, z_f)
        + \lambda_f \big[ d(A_L, A_f) + d(A(U(f_L)), A(f_{1 \dots K})) + \sum_s d(A_L^s, A(D_L^s(f_f))) \big]
    .. math:: L_D = \lambda_s \sum_D \sum_s d(D^s(f), f^s) + d(A(D^s(f)), A(f^s))

    d is the mean squared difference of vectors of unit length. The students k > 1 alone have the terms of
    :math:`\lambda_d`: their attention moves towards a shifted one, in which all places but the third that the student
    before them heeds least are reflected (:math:`\tilde a = \|A\| - a`). A decoder rebuilds the lower stages of its
    own network and has Adam; U is the opposite of the fusion. The weights :math:`\lambda` rise by a ramp.

    Source: Li, Lin, Wang, Wu, Tian, Shao and Ji, "Distilling a Powerful Student Model via Online Knowledge
    Distillation", https://arxiv.org/abs/2103.14473; code https://github.com/SJLeo/FFSD. The terms are those of the
    code. What is kept is the leader; the predictors ``leader`` and ``fused`` are it and the fused classifier.

    Differs from the source: its networks are all of one kind, and share nothing. Here students' maps of several
    sizes are matched as in FFL, attention of several sizes is averaged down to the smaller, and with a trunk the
    leader's losses train that too. A third of very few places is one place, and the last of the third is kept like
    the rest of it (the code moves it to half the length). Its ramp begins an epoch further on.

    Known from: the authors' code.

    When to use: when one network, the leader, is to be deployed and training may cost at least three. The authors
    report 74.8 to 74.9 % in three runs for a ResNet-32 on CIFAR-100.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions.
        diversity: lambda_d, weight of what makes students differ.
        fusion: lambda_f, weight of what the leader learns from maps.
        decoding: lambda_s, weight of the decoders' own losses.
        ramp: share of training over which these three weights rise; 0 switches the ramp off.
        self_distillation: who learns from a decoder: "all", the leader and all students but the first; "leader", the
            leader alone; "none", nobody.
        levels: how many stages below the last are rebuilt by a decoder.
        fusion_weight_decay: weight decay of the fusion module.
        decoder_learning_rate: top learning rate of the decoders (Adam's own default).
    """

    example = "--peers 3xresnet20"
    min_peers = 3
    deployed_peer = -1
    one_network = {"leader": -1}
    optimizers = {"decoders": "adam"}

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 2.0,
        diversity: float = 1e-5,
        fusion: float = 10.0,
        decoding: float = 1000.0,
        ramp: float = 5 / 300,
        self_distillation: Literal["all", "leader", "none"] = "all",
        levels: int = 2,
        fusion_weight_decay: float = 1e-5,
        decoder_learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("FFSD's temperature", temperature)
        self.diversity = not_negative("FFSD's diversity", diversity)
        self.fusion_weight = not_negative("FFSD's fusion", fusion)
        self.decoding = not_negative("FFSD's decoding", decoding)
        self.ramp = share("FFSD's ramp", ramp)
        self.levels = levels
        self.fusion_weight_decay = not_negative("FFSD's fusion_weight_decay", fusion_weight_decay)
        self.decoder_learning_rate = not_negative("FFSD's decoder_learning_rate", decoder_learning_rate)
        students, leader = spec.last_shapes[:-1], spec.last_shapes[-1]
        # A decoder of the leader reads the fused map too: both have one width.
        self.fusion = FusionModule(students, spec.num_classes, leader[0])
        self.trans_fusion = TransFusion(leader[0], sum(shape[0] for shape in students))
        learners = {"all": range(1, spec.num_peers), "leader": range(spec.num_peers - 1, spec.num_peers), "none": ()}
        self.decoders = nn.ModuleDict()
        for k in learners[self_distillation]:
            self._check_decoder(spec, k)
            self.decoders[str(k)] = Decoder(spec.feature_shapes[k][-levels - 1 :])

    def _check_decoder(self, spec: CohortSpec, k: int) -> None:
        most = len(spec.feature_shapes[k]) - 1
        if most < 1:
            raise UsageError(
                f"FFSD's decoders rebuild stages below the last, and peer{k} ({spec.names[k]}) has none; "
                "set --method.self_distillation none"
            )
        if not 1 <= self.levels <= most:
            raise UsageError(
                f"FFSD cannot rebuild {self.levels} stages below the last of peer{k} ({spec.names[k]}), which has "
                f"{most}; set --method.levels from 1 to {most}, or --method.self_distillation none"
            )
        if k < spec.num_peers - 1 and spec.last_shapes[k][0] != spec.last_shapes[k - 1][0]:
            shapes = " and ".join(f"peer{i} {'x'.join(map(str, spec.last_shapes[i]))}" for i in (k - 1, k))
            raise UsageError(
                f"FFSD's decoder of a student also reads the last map of the one before it, and these differ: {shapes};"
                " take students of one kind, or leave this to the leader with --method.self_distillation leader"
            )

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        fusion: ParameterGroup = {"params": trainable(self.fusion), "weight_decay": self.fusion_weight_decay}
        trans_fusion: ParameterGroup = {"params": trainable(self.trans_fusion)}
        players: dict[str, list[ParameterGroup]] = {"peers": [{"params": trainable(cohort)}, fusion, trans_fusion]}
        if self.decoders:
            players["decoders"] = [
                {"params": trainable(self.decoders), "lr": self.decoder_learning_rate},
            ]
        return players

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        w, f = ramp_up(progress, self.ramp), out.last_features
        z, z_leader, students = out.logits[:-1], out.logits[-1], [x.detach() for x in f[:-1]]
        fused = self.fusion.fuse(students)
        z_f = self.fusion.classifier(fused).float()
        together = torch.cat([F.adaptive_avg_pool2d(x, self.fusion.match.size) for x in students], dim=1)
        mutual = torch.stack([distill(z[k], others(z, k), self.temperature) for k in range(len(z))])
        shifts = torch.stack([diversity_loss(f[k], f[k - 1]) for k in range(1, len(z))])
        unfolded = self.trans_fusion(f[-1])
        terms = {
            "ce": cross_entropy(out.logits, target),
            "kd": mutual.sum() / (len(z) - 1),
            "diversity": w * self.diversity * shifts.sum(),
            "ce_fused": cross_entropy(z_f, target),
            "kd_fused": distill(z_f, z.mean(0), self.temperature),
            "kd_leader": distill(z_leader, z_f, self.temperature),
            "fusion": w * self.fusion_weight * attention_transfer(f[-1], fused),
            "trans_fusion": w * self.fusion_weight * attention_transfer(unfolded, together),
        }
        if not self.decoders:
            return {"peers": terms}
        feature, attention, taught = [], [], []
        for name, decoder in self.decoders.items():
            k = int(name)
            own = out.features[k][-self.levels - 1 :]
            below = [x.float() for x in own[-2::-1]]  # once: all losses are computed in float32
            leads = k == len(z)
            told = decoder(fused if leads else shifted_feature(f[k - 1]), learning=False)
            learned = [y.float() for y in decoder(own[-1].detach(), learning=self.training)]
            weight = self.fusion_weight if leads else self.diversity
            taught += [weight * attention_transfer(x, y) for x, y in zip(below, told, strict=True)]
            feature += [feature_loss(y, x) for x, y in zip(below, learned, strict=True)]
            attention += [attention_transfer(y, x) for x, y in zip(below, learned, strict=True)]
        terms["self_distillation"] = w * torch.stack(taught).sum()
        decoding = {
            "feature": w * self.decoding * torch.stack(feature).sum(),
            "attention": w * self.decoding * torch.stack(attention).sum(),
        }
        return {"peers": terms, "decoders": decoding}

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"leader": out.logits[-1], "fused": self.fusion(out.last_features[:-1])}

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion.fuse(out.last_features[:-1])}


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """d of whole maps of one shape, (B, D, H, W) -> (); the teacher is a constant.

    For vectors of unit length it is 2 - 2 cos over their number of places: written so, nothing as large as the maps is
    made but their float32 copies.
    """
    # Channels last: a view of maps that are laid out so, and no copy.
    a, b = (f.float().permute(0, 2, 3, 1).flatten(1) for f in (student, teacher.detach()))
    with torch.autocast(a.device.type, enabled=False):
        lengths = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
        cosine: Tensor = torch.linalg.vecdot(a, b) / lengths
    return 2 * (1 - cosine).mean() / a.shape[1]


def shifted_attention(feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of unit length (B, H W), the same shifted, and the length that it had (B, 1)."""
    unit, length = unit_attention(feature), attention_map(feature).flatten(1).norm(dim=1, keepdim=True)
    lowest = unit.topk(max(1, unit.shape[1] // 3), largest=False).values.amax(1, keepdim=True)
    return unit, torch.where(unit > lowest, length - unit, unit), length


def diversity_loss(own: Tensor, before: Tensor) -> Tensor:
    """d of a student's attention and the shifted attention of the one before it, which is a constant."""
    own, before = same_size(own, before.detach())
    return (unit_attention(own) - shifted_attention(before)[1]).square().mean()


def shifted_feature(feature: Tensor) -> Tensor:
    """The map, a constant, moved equally in all channels to where its attention is shifted to."""
    feature = feature.detach()
    unit, shifted, length = shifted_attention(feature)
    step = (shifted - unit) * length / feature.shape[1]
    return feature + step.view(len(step), 1, *feature.shape[2:])
