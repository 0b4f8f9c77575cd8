"""Collaborative learning with a shared intermediate-level representation."""

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill
from collegium.method import Method, ParameterGroup, Progress, Terms, positive, share, trainable


class CLILR(Method):
    r"""Every head learns from the labels and from the mean of the other heads; what they share gets the mean gradient.

    .. math:: L = \sum_h \Big[ \beta \, CE(z^{(h)}, y) + (1 - \beta) \, T^2 KL(q^{(h)} \,\|\, \sigma_T(z^{(h)})) \Big],
        \qquad q^{(h)} = \sigma_T\Big(\frac{1}{H-1} \sum_{j \ne h} z^{(j)}\Big)

    and what n of the H heads share (the intermediate-level representation, ILR) gets 1/n of the gradient of L, so that
    it learns at the pace of one head: at every split the gradient is divided by the number of parts that meet there.

    Source: Song and Chai, "Collaborative Learning for Deep Neural Networks", NeurIPS 2018,
    https://arxiv.org/abs/1805.11761. By the accounts at hand the paper has four heads that split in a tree, two by two:
    four peers and ``--share-until stage1,stage2``. With one stage all leave one trunk, as in OKDDip's experiments with
    CL-ILR (https://github.com/DefangChen/OKDDip-AAAI2020), which weigh and ramp the terms otherwise; without any the
    peers are the paper's multiple instances, and nothing is rescaled.

    Differs from the paper: the soft loss is a divergence and not a cross-entropy, from which it differs by a
    constant.

    Known from: the abstract, a public reproduction and OKDDip's code.

    Reconstructed: the factor T^2.

    When to use: when heads share most of a network, so that training costs less than with whole ones. By a copy of
    the table in PCL's paper it gives 72.33 % with ResNet-32 on CIFAR-100 (DML 73.68 %) and 78.83 % with ResNet-110
    (DML 77.86 %).

    Args:
        spec: the cohort's shapes.
        temperature: T, softens the predictions where heads teach.
        beta: share of the labels' term, from 0 to 1.
        rescale: whether the gradient of what heads share is divided by their number.
    """

    example = "--peers 2xresnet20 --share-until stage2"
    logits_only = True
    reconstructed = "the factor T^2"

    def __init__(self, spec: CohortSpec, *, temperature: float = 2.0, beta: float = 0.5, rescale: bool = True) -> None:
        super().__init__(spec)
        self.temperature = positive("CLILR's temperature", temperature)
        self.beta = share("CLILR's beta", beta)
        self.rescale = rescale
        self._rescaling: list[RemovableHandle] = []

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        """One player owns everything; from here on the gradients of what heads share are rescaled as they come.

        The whole gradient of a part's weights comes through its output, so dividing theirs is dividing its, and a
        division at every split multiplies up to one by the number of heads. A learning rate divided instead would
        also divide what weight decay does.
        """
        for handle in self._rescaling:
            handle.remove()
        self._rescaling = [
            parameter.register_hook(lambda gradient, heads=heads: gradient / len(heads))  # type: ignore[no-untyped-call]
            for part, heads in (cohort.shared if self.rescale else [])
            for parameter in trainable(part)
        ]
        return super().players(cohort)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        rest = (z.sum(0) - z) / (len(z) - 1)
        return {
            "peers": {
                "hard": self.beta * cross_entropy(z, target),
                "soft": (1 - self.beta) * distill(z, rest, self.temperature),
            }
        }
