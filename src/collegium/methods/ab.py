"""Distillation of activation boundaries from a frozen teacher."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.heads import regressor
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Terms, not_negative, positive, share


class AB(Method):
    r"""At first a peer learns where the neurons of a trained teacher are active, afterwards from the labels.

    During the share ``initialisation`` of training, with s = r_{k,l}(f_{k,l}) a connector's output, t the teacher's
    map, and sums over all neurons i of the last n stages:

    .. math:: L = \frac{3}{1000} \sum_k \sum_{l=1}^{n} 2^{l-n} \frac{1}{B} \sum_i
        \mathbb{1}[t_i > 0] \max(0, \mu - s_i)^2 + \mathbb{1}[t_i \le 0] \max(0, \mu + s_i)^2

    and then:

    .. math:: L = \sum_k \Big[ (1 - \alpha) \, CE(z_k, y)
        + \alpha \, T^2 KL(\sigma_T(z_t) \,\|\, \sigma_T(z_k)) \Big]

    Source: Heo, Lee, Yun and Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
    Neurons", AAAI 2019, https://arxiv.org/abs/1811.03233; code https://github.com/bhheo/AB_distillation. Weights
    and lengths are those of the common benchmark protocol (https://github.com/HobbitLong/RepDistiller), where 30
    epochs of initialisation come before 240 others.

    Differs from the source: the peers' maps are read where the stages end, after the ReLU of networks that end in one,
    not before it; for such a teacher, whose sign alone counts, that is the same. The stages of networks that normalise
    before they convolve (``wrn_*``) end in sums, whose sign is not the boundary. Both phases share one optimizer and
    one schedule of the learning rate, and every map has a connector, also where the shapes are equal. The benchmark
    has the peer's norms in evaluation mode during the initialisation.

    Known from: the code of that benchmark.

    When to use: with a trained teacher whose last maps are convolutional.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        initialisation: share of training that the boundaries alone teach.
        margin: mu, how far beyond its boundary a neuron must be to cost nothing.
        beta: weight of the boundaries, besides the 3/1000.
        stages: n, how many of the last stages are compared, counted from the end of each network; 3 are all but the
            stem of ResNets and wide ResNets for small images. Of VGG and MobileNetV2 the benchmark takes 4. Where a
            network has fewer, all of its stages.
        alpha: share of the teacher's predictions after the initialisation, from 0 (labels alone) to 1.
        temperature: T, softens these predictions.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        initialisation: float = 30 / 270,
        margin: float = 1.0,
        beta: float = 1.0,
        stages: int = 3,
        alpha: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(spec)
        assert spec.teacher_shapes is not None
        self.initialisation = share("AB's initialisation", initialisation)
        self.margin = positive("AB's margin", margin)
        self.beta = not_negative("AB's beta", beta)
        self.stages = int(positive("AB's stages", stages))
        self.alpha = share("AB's alpha", alpha)
        self.temperature = positive("AB's temperature", temperature)
        taught = spec.teacher_shapes[-self.stages :]
        self.connectors = nn.ModuleList(  # peer -> stage, the last one first
            nn.ModuleList(regressor(s, t) for s, t in zip(own[::-1], taught[::-1], strict=False))
            for own in spec.feature_shapes
        )

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        beginning = (progress.fraction < self.initialisation).float()  # a tensor: the second phase compiles nothing
        afterwards = 1 - beginning
        terms = {
            "boundary": beginning * self.beta * self._boundaries(out),
            "ce": afterwards * (1 - self.alpha) * cross_entropy(out.logits, target),
        }
        if self.alpha > 0:
            imitation = distill(out.logits, out.teacher.logits, self.temperature)
            terms["kd"] = afterwards * self.alpha * imitation
        return {"peers": terms}

    def _boundaries(self, out: PeerOutputs) -> Tensor:
        assert out.teacher is not None
        losses = []
        for own, connectors in zip(out.features, self.connectors, strict=True):
            for above, connect in enumerate(cast(nn.ModuleList, connectors)):
                losses.append(
                    0.5**above * boundary_loss(connect(own[-1 - above]), out.teacher.features[-1 - above], self.margin)
                )
        return torch.stack(losses).sum() * 3 / 1000


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """How far neurons are from the teacher's side of their boundary, squared: (B, D, H, W) twice -> (), mean over B."""
    side = torch.where(teacher.detach() > 0, 1.0, -1.0)
    return F.relu(margin - side * student.float()).square().sum((1, 2, 3)).mean()
