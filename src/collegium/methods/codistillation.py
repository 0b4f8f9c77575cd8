"""Codistillation: peers that learn from stale copies of each other."""

import torch
from torch import Tensor

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill, mean_prediction, others
from collegium.method import Method, Progress, Shadow, Terms, not_negative, positive, share


class Codistillation(Method):
    r"""After a burn-in, every peer imitates the mean prediction of stale copies of the others.

    .. math:: L = \sum_i \Big[ CE(z_i, y) + \psi\Big(\frac{1}{N-1} \sum_{j \ne i} \sigma_T(\bar z_j), \, z_i\Big) \Big],
        \qquad \psi(p, z) = \lambda \, T^2 KL(p \,\|\, \sigma_T(z))

    where the weights behind the logits :math:`\bar z_j` are those of peer j some steps ago. Stale copies are what lets
    peers on many machines exchange nothing but weights, and rarely; on one machine they show what that costs.

    Source: Anil et al., "Large Scale Distributed Neural Network Training through Online Distillation", ICLR 2018,
    https://arxiv.org/abs/1804.03235, with T = 1.

    Differs from the paper: all peers learn from the same images, where the paper also has disjoint shares of the
    data. psi is a divergence and not a cross-entropy, from which it differs by a constant. The norms of a copy see
    each batch as its peer's do. The interval is that of a public re-implementation
    (https://github.com/pfnet-research/sc20-online-codistillation).

    Known from: a public re-implementation, of two teams; its default divergence has the other direction, its
    cross-entropy this one.

    Reconstructed: the equation, the burn-in (the re-implementation has none by default) and the interval of exchange.

    When to use: to learn what stale targets cost before peers are spread over machines; on one machine ``dml``
    teaches the same without copies.

    Args:
        spec: the cohort's shapes.
        every: optimizer steps between two exchanges of copies; 0 keeps none, and peers learn from what the others
            predict now.
        burn_in: share of training before the peers begin to imitate.
        weight: lambda, weight of the imitation.
        temperature: T, softens all predictions.
    """

    logits_only = True
    reconstructed = "the equation, the burn-in and the interval of exchange"

    def __init__(
        self,
        spec: CohortSpec,
        *,
        every: int = 50,
        burn_in: float = 0.1,
        weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(spec)
        if every < 0:
            raise UsageError(
                f"Codistillation cannot exchange copies every {every} steps; take 1 or more, or 0 to keep no copies"
            )
        self.shadow = Shadow(decay=0, every=every) if every else None
        self.burn_in = share("Codistillation's burn_in", burn_in)
        self.weight = not_negative("Codistillation's weight", weight)
        self.temperature = positive("Codistillation's temperature", temperature)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        stale = z if out.shadow is None else out.shadow
        psi = torch.stack([self._imitate(z[i], others(stale, i)) for i in range(len(z))]).sum()
        begun = (progress.fraction >= self.burn_in).to(psi)
        return {"peers": {"ce": cross_entropy(z, target), "psi": begun * self.weight * psi}}

    def _imitate(self, own: Tensor, rest: Tensor) -> Tensor:
        """(B, C), (M - 1, B, C) -> ()"""
        return distill(own, mean_prediction(rest, self.temperature), self.temperature)
