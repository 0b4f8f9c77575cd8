"""Knowledge distillation from a frozen teacher."""

from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, standardised
from collegium.method import Method, Progress, Terms, not_negative, positive, share


class KD(Method):
    r"""Each peer imitates the softened predictions of one trained, frozen teacher; peers ignore each other.

    .. math:: L = \sum_k \Big[ (1 - \alpha) \, CE(z_k, y) + \alpha \, T^2 KL(\sigma_T(z_t) \,\|\, \sigma_T(z_k)) \Big]

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531. The defaults are those of the common benchmark protocol
    (https://github.com/HobbitLong/RepDistiller).

    With ``standardise=True`` both logits have mean 0 and standard deviation 1 over the classes before T divides them:
    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, https://arxiv.org/abs/2403.01427; code
    https://github.com/sunshangquan/logit-standardization-KD. Its authors then take T = 2 and give the teacher's term a
    weight of 9 beside 0.1 for the labels, ``--method.temperature 2 --method.teacher_weight 9``.

    Known from: the code of that benchmark; the authors' code of the standardisation.

    When to use: when a better network is trained already; without one, its training is part of the cost.

    Args:
        spec: the cohort's shapes; it must have a teacher.
        temperature: T, softens both predictions.
        alpha: share of the teacher's term, from 0 to 1.
        standardise: whether both logits are standardised.
        teacher_weight: weight of the teacher's term, where it is not its share alpha.
    """

    example = "--peers resnet20"
    min_peers = 1
    needs_teacher = True
    logits_only = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 4.0,
        alpha: float = 0.9,
        standardise: bool = False,
        teacher_weight: float | None = None,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("KD's temperature", temperature)
        self.alpha = share("KD's alpha", alpha)
        self.standardise = standardise
        self.teacher_weight = not_negative("KD's teacher_weight", alpha if teacher_weight is None else teacher_weight)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        assert out.teacher is not None
        z, told = out.logits, out.teacher.logits
        if self.standardise:
            z, told = standardised(z), standardised(told)
        return {
            "peers": {
                "ce": (1 - self.alpha) * cross_entropy(out.logits, target),
                "kd": self.teacher_weight * distill(z, told, self.temperature),
            }
        }
