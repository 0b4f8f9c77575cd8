"""Peer collaborative learning."""

import torch
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.losses import cross_entropy, distill, others, ramp_up
from collegium.method import Method, Progress, Shadow, Terms, positive, share


class PCL(Method):
    r"""A classifier of all peers' features teaches every peer, and so do the temporal means of the other peers.

    .. math:: z_{pe} = W [h_1, \dots, h_m] + b, \qquad
        \theta_j^{mt} \leftarrow \alpha \, \theta_j^{mt} + (1 - \alpha) \, \theta_j
    .. math:: L = \sum_i CE(z_i, y) + CE(z_{pe}, y) + w(e) \sum_i \Big[ T^2 KL(\sigma_T(z_{pe}) \,\|\, \sigma_T(z_i))
        + \frac{1}{m-1} \sum_{j \ne i} T^2 KL(\sigma_T(z_j^{mt}) \,\|\, \sigma_T(z_i)) \Big]

    h are the pooled last maps; the first teacher is the paper's peer ensemble (pe), the second its peer mean (pm).

    Source: Wu and Gong, "Peer Collaborative Learning for Online Knowledge Distillation", AAAI 2021,
    https://arxiv.org/abs/2006.04147. The paper has three branches on a shared trunk (``--share-until stage2``), and
    every peer, with its temporal mean, sees its own random view of an image. A peer is the paper's PCL, the
    predictor ``pcl_e`` is its PCL-E.

    Known from: secondary accounts and a public re-implementation
    (https://github.com/shaoeric/Peer-Collaborative-Learning-for-Online-Knowledge-Distillation); the authors published
    no code. Unlike there, a peer is scored by its own weights and not by their mean, w rises over the length that the
    papers state, and the views pass the trunk together, so that its norms see all of them.

    Reconstructed: the norms of the temporal means: as in the re-implementation a mean follows the weights alone,
    and its norms see each batch as the peers' do.

    When to use: with several branches on one trunk, when training may cost more: each view passes the trunk, and
    the temporal means are run too. By a copy of the table in the paper, ResNet-32 on CIFAR-100: 74.14 % (KDCL 73.76
    %, DML 73.68 %).

    Args:
        spec: the cohort's shapes.
        temperature: T, softens all predictions.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        pe: whether the peer ensemble teaches.
        pm: whether the peer means teach.
        decay: alpha, how slowly the temporal means follow the peers.
        own_views: whether each peer sees its own random view of an image.
    """

    example = "--peers 3xresnet20 --share-until stage2"
    reconstructed = "the norms of the temporal means"

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        ramp: float = 80 / 300,
        pe: bool = True,
        pm: bool = True,
        decay: float = 0.999,
        own_views: bool = True,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("PCL's temperature", temperature)
        self.ramp = share("PCL's ramp", ramp)
        self.pe = pe
        self.pm = pm
        self.shadow = Shadow(share("PCL's decay", decay)) if pm else None
        self.own_views = own_views
        self.classifier = nn.Linear(sum(shape[0] for shape in spec.last_shapes), spec.num_classes)

    def _ensemble(self, out: PeerOutputs) -> Tensor:
        h = torch.cat([feature.mean((2, 3)) for feature in out.last_features], dim=1)
        z_pe: Tensor = self.classifier(h)
        return z_pe.float()

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, z_pe = out.logits, self._ensemble(out)
        w = ramp_up(progress, self.ramp)
        terms = {"ce": cross_entropy(z, target), "ce_pe": cross_entropy(z_pe, target)}
        if self.pe:
            terms["pe"] = w * distill(z, z_pe, self.temperature)
        if self.pm:
            assert out.shadow is not None  # which Method checks
            pairs = [distill(z[i], others(out.shadow, i), self.temperature) for i in range(len(z))]
            terms["pm"] = w * torch.stack(pairs).sum() / (len(z) - 1)
        return {"peers": terms}

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"pcl_e": self._ensemble(out)}
