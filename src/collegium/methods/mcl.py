"""Mutual contrastive learning."""

from itertools import permutations

import torch
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.heads import Embedding
from collegium.losses import contrastive_loss, cross_entropy, distill
from collegium.method import Method, Progress, Terms, not_negative, positive
from collegium.ranks import gather_batch


class MCL(Method):
    r"""Peers contrast their embeddings within and between each other, and imitate each other's similarities.

    .. math:: L = \sum_a CE(z_a, y) + \alpha \sum_a S(v_a, v_a)
        + \gamma \sum_{a \ne b} T^2 KL(\sigma_T(s_{bb}) \,\|\, \sigma_T(s_{aa}))
        + \beta \sum_{a \ne b} S(v_a, v_b) + \lambda \sum_{a \ne b} T^2 KL(\sigma_T(s_{ba}) \,\|\, \sigma_T(s_{ab}))
    .. math:: s_{ab}(i, j) = v_a(x_i) \cdot v_b(x_j) / \tau, \qquad
        S(v_a, v_b) = -\frac{1}{|A|} \sum_{i \in A} \frac{1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{s_{ab}(i, p)}}{\sum_{j \ne i} e^{s_{ab}(i, j)}}

    v is an embedding of unit length, P(i) the other images of i's class in the batch, A the images that have one. The
    terms are the paper's VCL, soft VCL, ICL and soft ICL; rows of similarities are imitated whole.

    Source: Yang, An, Cai and Xu, "Mutual Contrastive Learning for Visual Representation Learning", AAAI 2022,
    https://arxiv.org/abs/2104.12565; code https://github.com/winycg/MCL, whose supervised CIFAR form this is: sums
    over peers and pairs, and an image is left out between peers as it is within one.

    Two of the source's networks share no layers; more share all up to the first stage (``--share-until stage1``; on
    ImageNet up to the second).

    As the source's, batches hold pairs: two images of every class that is in them, or more where there are fewer
    classes than pairs.

    Differs from the source: it draws the pairs of each batch anew from all images, here an epoch takes an image
    once at most. Images without another of their class, which plain batches have, are left out of S. Where labels
    are mixed or smoothed, the likeliest class counts.

    Known from: the authors' code.

    When to use: with batches that are large against the number of classes. The authors report 72.96 ± 0.28 % for
    one of two ResNet-32 on CIFAR-100, 74.04 ± 0.07 % for one of four on their trunk.

    Args:
        spec: the cohort's shapes.
        vcl: alpha, weight of the contrast within each peer.
        soft_vcl: gamma, weight of the imitation of similarities within.
        icl: beta, weight of the contrast between peers.
        soft_icl: lambda, weight of the imitation of similarities between.
        tau: temperature of the similarities.
        temperature: T, softens all that is imitated.
        embedding: width of the embeddings.
        logit_kd: whether the peers also imitate the mean of their logits (the paper's "+Logit KD"; with more than two
            peers the code lets the last one alone do so).
        pairs: whether batches hold two images at least of every class that is in them; the batch size is then even.
    """

    def __init__(
        self,
        spec: CohortSpec,
        *,
        vcl: float = 0.1,
        soft_vcl: float = 1.0,
        icl: float = 0.1,
        soft_icl: float = 1.0,
        tau: float = 0.1,
        temperature: float = 3.0,
        embedding: int = 128,
        logit_kd: bool = False,
        pairs: bool = True,
    ) -> None:
        super().__init__(spec)
        if embedding < 1:
            raise UsageError(f"MCL's embedding needs a width of 1 or more, not {embedding}")
        self.vcl = not_negative("MCL's vcl", vcl)
        self.soft_vcl = not_negative("MCL's soft_vcl", soft_vcl)
        self.icl = not_negative("MCL's icl", icl)
        self.soft_icl = not_negative("MCL's soft_icl", soft_icl)
        self.tau = positive("MCL's tau", tau)
        self.temperature = positive("MCL's temperature", temperature)
        self.logit_kd = logit_kd
        self.images_per_class = 2 if pairs else 1
        self.embeddings = nn.ModuleList(Embedding(shape[0], embedding) for shape in spec.last_shapes)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        v = torch.stack([embed(f) for embed, f in zip(self.embeddings, out.last_features, strict=True)])
        v = gather_batch(v, 1)
        with torch.autocast(v.device.type, enabled=False):
            s = torch.einsum("aie,bje->abij", v, v) / self.tau  # (M, M, B, B)
        peers = range(len(z))
        own = torch.stack([s[a, a] for a in peers])
        mixed = torch.stack([s[a, b] for a, b in permutations(peers, 2)])
        swapped = torch.stack([s[b, a] for a, b in permutations(peers, 2)])
        classes = gather_batch(target if target.ndim == 1 else target.argmax(1))
        terms = {
            "ce": cross_entropy(z, target),
            "vcl": self.vcl * contrastive_loss(own, classes).sum(),
            # Each with each: what a peer already says costs it nothing.
            "soft_vcl": self.soft_vcl * distill(own[:, None], own[None], self.temperature),
            "icl": self.icl * contrastive_loss(mixed, classes).sum(),
            "soft_icl": self.soft_icl * distill(mixed, swapped, self.temperature),
        }
        if self.logit_kd:
            terms["logit_kd"] = distill(z, z.mean(0), self.temperature)
        return {"peers": terms}
