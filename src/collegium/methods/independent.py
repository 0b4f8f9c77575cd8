"""The baseline: the same peers, nobody teaches."""

from torch import Tensor

from collegium.cohort import PeerOutputs
from collegium.losses import cross_entropy
from collegium.method import Method, Progress, Terms


class Independent(Method):
    r"""Every peer learns from the labels alone: the baseline that every table needs.

    .. math:: L = \sum_k CE(z_k, y)

    Source: none; plain supervised training. With a shared trunk this is a multi-branch network without
    distillation, which is a baseline of its own.

    When to use: always, beside whatever else is tried.
    """

    min_peers = 1
    logits_only = True

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        return {"peers": {"ce": cross_entropy(out.logits, target)}}
