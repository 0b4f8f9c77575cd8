"""FitNets: hints from the middle of a frozen teacher."""

import torch
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import Shape, regressor
from collegium.losses import cross_entropy
from collegium.method import Method, Progress, Terms, not_negative


class FitNets(Method):
    r"""A regressor predicts the map of a trained teacher's middle stage (hint) from a peer's (guided stage).

    .. math:: L = \sum_k \Big[ CE(z_k, y) + \beta \mathrm{mean} \big( r_k(f_k) - f_t \big)^2 \Big]

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, https://arxiv.org/abs/1412.6550. The
    defaults are those of the common benchmark protocol (https://github.com/HobbitLong/RepDistiller).

    Differs from the paper: as in the benchmark, hint and labels teach together throughout; in the paper the hint
    trains the lower half first, and then the whole network learns from labels and softened predictions. A map that
    is neither as large as the teacher's, nor twice or half as large, is pooled to its size; paper and benchmark take
    a convolution with a kernel as large as the difference.

    Known from: the code of that benchmark.

    When to use: with a trained teacher, when peers are to learn a map of it and not only its predictions.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        beta: weight of the hint.
        hint: the teacher's stage that gives the hint, counted from 0 (the first is often the stem), or from the
            last as -1; by default the middle one, which is stage2 of ResNets and wide ResNets for small images.
        guided: the peers' stage that learns it, counted alike; by default each peer's middle one.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True

    def __init__(
        self, spec: CohortSpec, *, beta: float = 100.0, hint: int | None = None, guided: int | None = None
    ) -> None:
        super().__init__(spec)
        assert spec.teacher_shapes is not None
        self.beta = not_negative("FitNets's beta", beta)
        self.hint = _stage("the teacher", spec.teacher_shapes, hint, "hint")
        self.guided = [
            _stage(f"peer{k} ({name})", shapes, guided, "guided")
            for k, (name, shapes) in enumerate(zip(spec.names, spec.feature_shapes, strict=True))
        ]
        self.regressors = nn.ModuleList(
            nn.Sequential(regressor(shapes[stage], spec.teacher_shapes[self.hint]), nn.ReLU())
            for shapes, stage in zip(spec.feature_shapes, self.guided, strict=True)
        )

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        f_t = out.teacher.features[self.hint].detach().float()
        errors = [
            (regress(stages[stage]).float() - f_t).square().mean()
            for regress, stages, stage in zip(self.regressors, out.features, self.guided, strict=True)
        ]
        return {
            "peers": {"ce": cross_entropy(out.logits, target), "hint": self.beta * torch.stack(errors).sum()},
        }


def _stage(role: str, shapes: tuple[Shape, ...], asked: int | None, option: str) -> int:
    """The stage that is asked for, or the middle one."""
    stage = len(shapes) // 2 if asked is None else asked
    if not -len(shapes) <= stage < len(shapes):
        raise UsageError(
            f"{role} has {len(shapes)} stages and no stage {stage}; take --method.{option} from 0 to {len(shapes) - 1}"
        )
    return stage
