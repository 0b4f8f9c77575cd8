"""Attention transfer from a frozen teacher."""

import torch
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import attention_transfer, cross_entropy
from collegium.method import Method, Progress, Terms, not_negative, positive


class AT(Method):
    r"""A peer's maps are to be active in the places where those of a trained teacher are.

    .. math:: L = \sum_k \Big[ CE(z_k, y) + \beta \sum_l \mathrm{mean}
        \Big( \frac{A_{k,l}}{\|A_{k,l}\|} - \frac{A_{t,l}}{\|A_{t,l}\|} \Big)^2 \Big], \qquad
        A = \frac{1}{D} \sum_d f_d^2

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017,
    https://arxiv.org/abs/1612.03928; code https://github.com/szagoruyko/attention-transfer. The mean over places
    and beta are those of the common benchmark protocol (https://github.com/HobbitLong/RepDistiller). A larger map
    is averaged down to the size of the smaller.

    Differs from the source: the last map of ``wrn_*`` is read after the final norm and ReLU, there before;
    ``wrn_*_pre`` is read before.

    Known from: the code of that benchmark.

    When to use: with a trained teacher, when what it says of places is to be passed on: no layer is added, and maps
    may differ in width and size.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        beta: weight of the attention.
        stages: how many of the last stages l are compared, counted from the end of each network; 3 are all but the
            stem of ResNets and wide ResNets for small images. Of VGG and MobileNetV2 the benchmark takes 4. Where a
            network has fewer, all of its stages.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True

    def __init__(self, spec: CohortSpec, *, beta: float = 1000.0, stages: int = 3) -> None:
        super().__init__(spec)
        self.beta = not_negative("AT's beta", beta)
        self.stages = int(positive("AT's stages", stages))

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        taught = out.teacher.features[-self.stages :]
        pairs = [pair for own in out.features for pair in zip(own[::-1], taught[::-1], strict=False)]
        attention = torch.stack([attention_transfer(student, teacher) for student, teacher in pairs]).sum()
        return {"peers": {"ce": cross_entropy(out.logits, target), "attention": self.beta * attention}}
