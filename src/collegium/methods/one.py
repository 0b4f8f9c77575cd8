"""On-the-fly native ensemble."""

import torch.nn.functional as F
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill, ramp_up
from collegium.method import Method, Progress, Terms, positive, share


class Gate(nn.Module):
    """How much each branch counts for an image: pooled trunk map, linear, norm, ReLU, softmax. -> (B, M)"""

    def __init__(self, channels: int, num_peers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_peers)
        self.norm = nn.BatchNorm1d(num_peers)

    def forward(self, trunk: Tensor) -> Tensor:
        return F.relu(self.norm(self.linear(trunk.mean((2, 3))))).float().softmax(-1)


class ONE(Method):
    r"""A gate mixes the branches' logits into an ensemble, which learns from the labels and teaches the branches.

    .. math:: z_e = \sum_i g_i(x) \, z_i, \qquad
        L = \sum_i CE(z_i, y) + CE(z_e, y) + w(e) \sum_i T^2 KL(\sigma_T(z_e) \,\|\, \sigma_T(z_i))

    Source: Lan, Zhu and Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS 2018,
    https://arxiv.org/abs/1806.04606; code https://github.com/Lan1991Xu/ONE_NeurIPS2018. The paper has three
    branches. A peer is the paper's ONE; the predictor ``one_e`` is its ONE-E. The ramp w is from the code.

    Differs from the source: its code adds 1e-7 to the probabilities that are imitated.

    Known from: the authors' code.

    When to use: when branches on one trunk are to be trained at less than the cost of whole networks.

    Args:
        spec: the cohort's shapes; the gate needs a shared trunk.
        temperature: T, softens both predictions.
        ramp: share of training over which w rises from 0 to 1; 0 switches the ramp off.
        gate: False mixes by the plain mean, the paper's ablation.
    """

    example = "--peers 3xresnet20 --share-until stage2"

    def __init__(
        self, spec: CohortSpec, *, temperature: float = 3.0, ramp: float = 80 / 300, gate: bool = True
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("ONE's temperature", temperature)
        self.ramp = share("ONE's ramp", ramp)
        self.gate = None
        if gate:
            if spec.trunk_shape is None:
                raise UsageError(
                    "ONE's gate reads the output of a shared trunk: share the low stages, for example with "
                    "--share-until stage2, or switch the gate off with --method.gate false"
                )
            self.gate = Gate(spec.trunk_shape[0], spec.num_peers)

    def _ensemble(self, out: PeerOutputs) -> Tensor:
        if self.gate is None:
            return out.logits.mean(0)
        assert out.trunk is not None
        weights: Tensor = self.gate(out.trunk)  # (B, M)
        return (weights.T[..., None] * out.logits).sum(0)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z_e = self._ensemble(out)
        w = ramp_up(progress, self.ramp)
        return {
            "peers": {
                "ce": cross_entropy(out.logits, target),
                "ce_ensemble": cross_entropy(z_e, target),
                "kd": w * distill(out.logits, z_e, self.temperature),
            }
        }

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {"one_e": self._ensemble(out)}
