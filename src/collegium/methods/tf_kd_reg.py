"""Teacher-free knowledge distillation by a regulariser."""

from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill, virtual_teacher
from collegium.method import Method, Progress, Terms, positive, share


class TfKDReg(Method):
    r"""Each peer imitates a designed teacher, which is nearly uniform and always right; peers ignore each other.

    .. math:: L = \sum_k \Big[ (1 - \alpha) \, CE(z_k, y) + \alpha \, KL(u \,\|\, \sigma_1(z_k)) \Big], \qquad
        u = \sigma_\tau(p), \qquad p_c = a \text{ if } c = y, \text{ else } \frac{1 - a}{C - 1}

    Source: Yuan, Tay, Li, Wang and Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization",
    CVPR 2020, https://arxiv.org/abs/1909.11723; code
    https://github.com/yuanli2333/Teacher-free-Knowledge-Distillation. As in the code the probabilities p are
    softened as if they were logits, and the peer's prediction is not softened.

    Differs from the code: the divergence is the mean over the batch for any number of classes; the code takes the mean
    over the classes too and a factor for each network, 100 for ResNet-18, which for 100 classes comes to the same.
    Labels that are mixed or smoothed mix the designed teachers.

    Known from: the authors' code.

    When to use: when neither a teacher nor a second network can be afforded. Its target is almost uniform (with 100
    classes 0.0105 for the true one, 0.00999 for each other), so compare it with ``--label-smoothing``.

    Args:
        spec: the cohort's shapes.
        alpha: share of the designed teacher, from 0 to 1 (the authors' value for ResNet-18).
        temperature: tau, softens the designed teacher.
        correct: a, its probability of the true class before that.
    """

    example = "--peers resnet20"
    min_peers = 1
    logits_only = True

    def __init__(
        self, spec: CohortSpec, *, alpha: float = 0.1, temperature: float = 20.0, correct: float = 0.99
    ) -> None:
        super().__init__(spec)
        self.alpha = share("TfKDReg's alpha", alpha)
        self.temperature = positive("TfKDReg's temperature", temperature)
        self.correct = share("TfKDReg's correct", correct)
        if spec.num_classes < 2:
            raise UsageError("Tf-KD's designed teacher needs 2 or more classes, the data have 1")

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        designed = virtual_teacher(target, out.logits.shape[-1], self.correct, self.temperature)
        return {
            "peers": {
                "ce": (1 - self.alpha) * cross_entropy(out.logits, target),
                "regulariser": self.alpha * distill(out.logits, designed, 1.0),
            }
        }
