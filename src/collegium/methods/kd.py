"""Knowledge distillation from a frozen teacher."""

from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Terms, positive, share


class KD(Method):
    r"""Each peer imitates the softened predictions of one trained, frozen teacher; peers ignore each other.

    .. math:: L = \sum_k \Big[ (1 - \alpha) \, CE(z_k, y) + \alpha \, T^2 KL(\sigma_T(z_t) \,\|\, \sigma_T(z_k)) \Big]

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531. The defaults are those of the common benchmark protocol
    (https://github.com/HobbitLong/RepDistiller).

    Known from: the code of that benchmark.

    When to use: when a better network is trained already; without one, its training is part of the cost.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        temperature: T, softens both predictions.
        alpha: share of the teacher's term, from 0 to 1.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True
    logits_only = True

    def __init__(self, spec: CohortSpec, *, temperature: float = 4.0, alpha: float = 0.9) -> None:
        super().__init__(spec)
        self.temperature = positive("KD's temperature", temperature)
        self.alpha = share("KD's alpha", alpha)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        return {
            "peers": {
                "ce": (1 - self.alpha) * cross_entropy(out.logits, target),
                "kd": self.alpha * distill(out.logits, out.teacher.logits, self.temperature),
            }
        }
