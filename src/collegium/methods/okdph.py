"""Online knowledge distillation with parameter hybridization."""

import torch
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Shadow, Terms, positive, share


class OKDPH(Method):
    r"""The mean of the peers' weights is a network of its own; it joins the ensemble, and the peers return to it.

    .. math:: \theta_h = \frac{1}{M} \sum_k \theta_k, \qquad \bar z = \frac{1}{M + 1} \Big( \sum_k z_k + z_h \Big)
    .. math:: L = \sum_k \big[ \omega \, CE(z_k, y) + \beta \, T^2 KL(\sigma_T(\bar z) \,\|\, \sigma_T(z_k)) \big],
        \qquad \theta_k \leftarrow (1 - \gamma) \, \theta_k + \gamma \, \theta_h \text{ after every } n \text{ steps}

    Source: Zhang et al., "Generalization Matters: Loss Minima Flattening via Parameter Hybridization for Efficient
    Online Knowledge Distillation", CVPR 2023, https://arxiv.org/abs/2303.14666; code
    https://github.com/tianlizhang/OKDPH. The predictor ``hybrid`` is the network of the mean weights. The paper's
    :math:`(1 - \omega) CE(z_h, y)` is left out: in the code the network is a copy, through which no gradient
    reaches the peers.

    Differs from the source: its peers start from one set of weights, these take their mean after the first step. It
    returns them towards the mean from before the last step, which they lose by the share gamma. Each of its networks
    has another kind of augmentation (rotation, cutout, ...), here another draw of one kind; its mean network sees a
    view of its own, here the first peer's.

    Known from: the authors' code.

    When to use: with peers of one kind, when one network of their mean weights is to be taken home
    (``collegium export RUN --predictor hybrid``). A secondary account gives 79.68 % with ResNet-110 on CIFAR-100.

    Args:
        spec: the cohort's shapes; all peers must be of one kind.
        temperature: T, softens all predictions.
        omega: weight of the labels.
        beta: weight of the ensemble.
        gamma: how far the peers return to the mean, from 0 to 1.
        interval: n, the number of steps between two returns; by default an epoch's.
    """

    own_views = True
    one_network = {"hybrid": 0}
    shadow = Shadow(decay=0.0, hybrid=True)

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 4.0,
        omega: float = 0.8,
        beta: float = 0.8,
        gamma: float = 0.5,
        interval: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("OKDPH's temperature", temperature)
        self.omega = omega
        self.beta = beta
        self.gamma = share("OKDPH's gamma", gamma)
        if interval is not None and interval < 1:
            raise UsageError(f"OKDPH's interval must be 1 step or more, not {interval}")
        self.interval = interval
        if len(set(zip(spec.names, spec.feature_shapes, strict=True))) > 1:
            raise UsageError(
                f"OKDPH averages weights, so its peers must be of one kind, not {', '.join(spec.names)}; "
                f"write for example --peers {spec.num_peers}x{spec.names[0]}"
            )

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        assert out.shadow is not None  # which Method checks
        kd = distill(z, torch.cat([z, out.shadow]).mean(0), self.temperature)
        return {"peers": {"ce": self.omega * cross_entropy(z, target), "kd": self.beta * kd}}

    def after_step(self, cohort: Cohort, step: int, epoch_steps: int) -> None:
        if step > 1 and step % (self.interval or epoch_steps):
            return
        gamma = 1.0 if step == 1 else self.gamma
        peers = [cohort.peer(k) for k in range(cohort.num_peers)]
        for tensors in zip(*(peer.state_dict().values() for peer in peers), strict=True):
            if tensors[0].is_floating_point():
                mean = torch.stack(tensors).mean(0)
                for tensor in tensors:
                    tensor.lerp_(mean, gamma)

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {} if out.shadow is None else {"hybrid": out.shadow[0]}
