"""Online knowledge distillation with diverse peers."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill, divergence, ramp_up
from collegium.method import Method, Progress, Terms, positive, share


class Attention(nn.Module):
    """How much each auxiliary peer listens to each, for an image: the softmax of L(h_a) E(h_b) over b.

    All peers share L and E. Pooled features h of another width than the widest are first brought to it, each by a
    linear layer of its own.
    """

    def __init__(self, widths: list[int], reduction: int) -> None:
        super().__init__()
        width = max(widths)
        self.match = nn.ModuleList(nn.Identity() if w == width else nn.Linear(w, width, bias=False) for w in widths)
        self.l = nn.Linear(width, max(width // reduction, 1), bias=False)
        self.e = nn.Linear(width, max(width // reduction, 1), bias=False)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """K maps (B, D_k, H_k, W_k) -> log alpha (K, K, B): the listener, the one it listens to, the image."""
        h = torch.stack([match(f.mean((2, 3))) for match, f in zip(self.match, features, strict=True)])
        energy = (self.l(h).float()[:, None] * self.e(h).float()[None]).sum(-1)
        return cast(Tensor, energy.log_softmax(1))


class OKDDip(Method):
    r"""Each auxiliary peer learns from its own mixture of the peers; their mean teaches the leader, the last peer.

    .. math:: \alpha_{ab} = \mathrm{softmax}_b \, L(h_a)^\top E(h_b), \qquad t_a = \sum_b \alpha_{ab} \, z_b
    .. math:: L = \sum_{a \le m} CE(z_a, y) + w(e) \Big[ \sum_{a < m} T^2 KL(\sigma_T(t_a) \,\|\, \sigma_T(z_a))
        + T^2 KL\big(\sigma_T(\tfrac{1}{m-1} \sum_{a < m} z_a) \,\|\, \sigma_T(z_m)\big) \Big]

    h are the pooled last maps, and a peer listens to itself too. The targets are no constants here, as in the authors'
    code: the attention learns from them alone, and the peers learn also as targets.

    Source: Chen, Mei, Wang, Feng and Chen, "Online Knowledge Distillation with Diverse Peers", AAAI 2020,
    https://arxiv.org/abs/1912.00350; code https://github.com/DefangChen/OKDDip-AAAI2020. The paper has four peers:
    three auxiliary ones and the leader, as branches (``--share-until stage2``) or as networks of their own. The
    predictor ``leader`` is the last peer, which the paper deploys; ``auxiliaries`` is the mean of the others.

    Differs from the paper: it mixes softened predictions, by a secondary account; the default is the authors' code,
    which mixes logits, but for the 1e-7 that it adds to the probabilities that are imitated. Peers of unlike widths are
    our addition.

    Known from: the authors' code.

    When to use: when one network, the leader, is to be deployed and training may cost at least three. By a copy
    of the table in PCL's paper, CIFAR-100: 73.25 % with ResNet-32 (DML 73.68 %) and 78.54 % with ResNet-110 (DML
    77.86 %).

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        reduction: the pooled width divided by that of L and E.
        mix: "logits", t_a is a mixture of logits; "probs", of softened predictions.
        detach_values: True makes the peers constants where they are targets; the attention still learns.
    """

    example = "--peers 3xresnet20 --share-until stage2"
    min_peers = 3
    deployed_peer = -1
    one_network = {"leader": -1}

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        ramp: float = 80 / 300,
        reduction: int = 8,
        mix: Literal["logits", "probs"] = "logits",
        detach_values: bool = False,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("OKDDip's temperature", temperature)
        self.ramp = share("OKDDip's ramp", ramp)
        self.mix = mix
        self.detach_values = detach_values
        if reduction < 1:
            raise UsageError(f"OKDDip's reduction must be 1 or more, not {reduction}")
        self.attention = Attention([shape[0] for shape in spec.last_shapes[:-1]], reduction)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, leader = out.logits[:-1], out.logits[-1]
        values = z.detach() if self.detach_values else z
        t = self._mixtures(self.attention(out.last_features[:-1]), values)
        teach = distill if self.detach_values else divergence
        w = ramp_up(progress, self.ramp)
        return {
            "peers": {
                "ce": cross_entropy(out.logits, target),
                "dis1": w * divergence(z, t, self.temperature),
                "dis2": w * teach(leader, z.mean(0), self.temperature),
            }
        }

    def _mixtures(self, log_alpha: Tensor, values: Tensor) -> Tensor:
        """(K, K, B), (K, B, C) -> what each auxiliary peer is taught, as logits (K, B, C)"""
        if self.mix == "logits":
            return (log_alpha.exp()[..., None] * values).sum(1)
        log_q = (values / self.temperature).log_softmax(-1)
        return self.temperature * (log_alpha[..., None] + log_q).logsumexp(1)

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"leader": out.logits[-1], "auxiliaries": out.logits[:-1].mean(0)}
