"""Consistent predictions for two views of an image."""

from itertools import permutations

import torch
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, divergence
from collegium.method import Method, Progress, Terms, not_negative, positive


class TwoViews(Method):
    r"""A network sees two random views of every image and is to say the same of both; peers ignore each other.

    .. math:: L = \sum_k \Big[ \tfrac{1}{2} \big( CE(z_k^1, y) + CE(z_k^2, y) \big) + \tfrac{\alpha}{2} \, T^2 \big(
        KL(\sigma_T(z_k^1) \,\|\, \sigma_T(z_k^2)) + KL(\sigma_T(z_k^2) \,\|\, \sigma_T(z_k^1)) \big) \Big]

    Both views pass the network in one batch, so that norms see both; what dropout draws is another for each.

    Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks", NeurIPS 2021,
    https://arxiv.org/abs/2106.14448; code https://github.com/dropreg/R-Drop, with T = 1. Two augmented views, each of
    which is a constant to the other (``constant=True``), are the form of Yao et al., "CR-CTC: Consistency
    Regularization on CTC for Improved Speech Recognition", ICLR 2025, https://arxiv.org/abs/2410.05101; code
    https://github.com/k2-fsa/icefall, with an alpha of 0.2 that rises over the first 2,000 steps, here it does not.

    Differs from the source: in R-Drop the views are one image and two draws of dropout. Here they are two random
    augmentations of the run's own kind, with whatever dropout the network has. Its loss is twice ours at half its
    alpha, which its authors choose by task; its image classifier sums the divergences of a batch.

    Known from: the authors' code of both.

    When to use: for one network alone, where no memory is left for a second one: it costs the images of two batches a
    step. Without augmentation or dropout both views are one, and nothing is gained.

    Args:
        spec: the cohort's shapes.
        alpha: weight of the consistency.
        temperature: T, softens the predictions that are compared.
        constant: whether each view is a constant to the other, which halves the gradient where they nearly agree.
    """

    example = "--peers resnet20"
    min_peers = 1
    logits_only = True
    views = 2

    def __init__(
        self, spec: CohortSpec, *, alpha: float = 1.0, temperature: float = 1.0, constant: bool = False
    ) -> None:
        super().__init__(spec)
        self.alpha = not_negative("TwoViews's alpha", alpha)
        self.temperature = positive("TwoViews's temperature", temperature)
        self.constant = constant

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = torch.stack(torch.split(out.logits, len(target), 1))  # (views, M, B, C)
        compare = distill if self.constant else divergence
        pairs = [compare(z[i], z[j], self.temperature) for i, j in permutations(range(len(z)), 2)]
        consistency = torch.stack(pairs).mean() if pairs else z.new_zeros(())
        return {"peers": {"ce": cross_entropy(z, target) / len(z), "consistency": self.alpha * consistency}}
