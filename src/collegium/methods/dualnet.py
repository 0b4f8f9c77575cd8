"""DualNet, the baseline that FFL is compared with."""

import copy

import torch
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import SumFusion
from collegium.losses import cross_entropy
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, trainable


class DualNet(Method):
    r"""The peers' last maps are averaged and classified together; each peer keeps a weakly weighted classifier.

    .. math:: f = \frac{1}{K} \sum_k f_k, \qquad L = CE(z_f, y) + \lambda \sum_k CE(z_k, y), \qquad
        z = z_f + \lambda \sum_k z_k

    Source: Hou, Liu and Wang, "DualNet: Learn Complementary Features for Image Recognition", ICCV 2017,
    https://doi.org/10.1109/ICCV.2017.62; code https://github.com/ustc-vim/dualnet.

    Two forms:

    - joint (no teacher): all extractors in one run; with ``alternate`` they take turns, one epoch each.
    - two-stage (the cohort has a teacher): the frozen teacher is the first extractor, the peers are trained to
      complete it, and the fused classifier starts as the teacher's.

    Predictors: ``fused`` is z above; ``fused_classifier`` is z_f alone; ``classifiers_mean`` is the mean of the
    probabilities of all classifiers.

    Differs from the source: the authors published no recipe of the joint form. Its loss weights and the scores are
    those of the released configurations, the alternation is our reading of the FFL paper's description; the
    classifier of a resting peer rests with it. In the two-stage form the peers' own classifiers learn at the run's
    rate (the authors' at a tenth of it on CIFAR-100).

    Known from: the authors' released configurations.

    Reconstructed: the schedule of the joint form.

    When to use: as the baseline of FFL, or when all extractors are kept at inference.

    Args:
        spec: the cohort's shapes; all last maps must have one shape.
        auxiliary: lambda, weight of the peers' own classifiers.
        alternate: joint form only: in each epoch one peer gets gradients and the others rest (their momentum
            and weight decay go on); the fused classifier always learns.
        fused_learning_rate_scale: two-stage form only: learning rate of the fused classifier relative to the
            run's (the authors' value for CIFAR-100).
    """

    reconstructed = "the joint training schedule"
    min_peers = 1
    may_have_teacher = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        auxiliary: float = 0.3,
        alternate: bool = True,
        fused_learning_rate_scale: float = 0.01,
    ) -> None:
        super().__init__(spec)
        self.auxiliary = not_negative("DualNet's auxiliary", auxiliary)
        self.two_stage = spec.teacher_shapes is not None
        if self.two_stage:
            self.reconstructed = ""  # the authors released this form
        self.alternate = alternate and not self.two_stage
        scale = not_negative("DualNet's fused_learning_rate_scale", fused_learning_rate_scale)
        self.fused_learning_rate_scale = scale if self.two_stage else 1.0
        shapes = spec.named_last_shapes
        if spec.teacher_shapes is not None:
            shapes = [("teacher", spec.teacher_shapes[-1]), *shapes]
        if len(shapes) < 2:
            raise UsageError(
                "DualNet needs two extractors: two peers (--peers 2xNAME) for the joint form, or one peer and "
                "a trained first extractor (--teacher RUN) for the two-stage form"
            )
        self.fusion = SumFusion(shapes, spec.num_classes)
        if self.two_stage:
            if spec.teacher_classifier is None:
                raise UsageError(
                    "DualNet's two-stage form starts from the teacher's classifier, and this teacher's does not read "
                    "its last map; take a convolutional teacher, such as resnet20 or timm/resnet18"
                )
            self.fusion.classifier = copy.deepcopy(spec.teacher_classifier).requires_grad_(True)

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        fused: ParameterGroup = {
            "params": trainable(self),
            "lr_scale": self.fused_learning_rate_scale,
        }
        return {"peers": [{"params": trainable(cohort)}, fused]}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, features = out.logits, out.last_features
        if self.alternate:
            # 1 for the peer whose turn it is, 0 for the others; a tensor, so that a new epoch compiles nothing.
            turn = torch.arange(len(z), device=z.device) == progress.epoch.to(z.device) % len(z)
            features = tuple(_gate_gradient(f, turn[k]) for k, f in enumerate(features))
            z = _gate_gradient(z, turn[:, None, None])
        return {
            "peers": {
                "ce": self.auxiliary * cross_entropy(z, target),
                "ce_fused": cross_entropy(self.fusion(self._extractors(out, features)), target),
            }
        }

    def _extractors(self, out: PeerOutputs, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return features if out.teacher is None else (out.teacher.features[-1], *features)

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        z_f, z = self.fusion(self._extractors(out, out.last_features)), out.logits
        if out.teacher is not None:
            z = torch.cat([out.teacher.logits[None], z])
        probabilities = torch.cat([z_f[None], z]).softmax(-1)
        return {
            "fused": z_f + self.auxiliary * z.sum(0),
            "fused_classifier": z_f,
            "classifiers_mean": probabilities.mean(0).clamp_min(1e-12).log(),
        }

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"fused": self.fusion.fuse(self._extractors(out, out.last_features))}


def _gate_gradient(x: Tensor, open_: Tensor) -> Tensor:
    """x itself; its gradient passes where ``open_`` holds."""
    return torch.where(open_, x, x.detach())
