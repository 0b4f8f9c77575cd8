"""Online knowledge distillation with parameter hybridization."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress, Shadow, Terms, not_negative, positive, share


class Settings(NamedTuple):
    """What the authors' script sets for a data set and a network."""

    omega: float
    beta: float
    gamma: float
    interval: int | None = None  # steps, an epoch's by default


PRESETS = {
    "cifar10_resnet32": Settings(0.8, 0.8, 0.5),
    "cifar10_vgg16": Settings(0.3, 0.3, 1.0),
    "cifar10_densenet40_12": Settings(0.8, 0.8, 0.5, 5),
    "cifar10_wrn_20_8": Settings(0.8, 0.8, 0.5),
    "cifar10_resnet110": Settings(0.8, 0.8, 0.5, 5),
    "cifar100_resnet32": Settings(1.0, 0.5, 1.0, 5),
    "cifar100_vgg16": Settings(0.3, 0.3, 1.0),
    "cifar100_densenet40_12": Settings(1.0, 0.5, 0.5, 5),
    "cifar100_wrn_20_8": Settings(0.5, 0.5, 0.5, 5),
    "cifar100_resnet110": Settings(0.8, 0.8, 0.5, 5),
}
Preset = Literal[
    "cifar10_resnet32",
    "cifar10_vgg16",
    "cifar10_densenet40_12",
    "cifar10_wrn_20_8",
    "cifar10_resnet110",
    "cifar100_resnet32",
    "cifar100_vgg16",
    "cifar100_densenet40_12",
    "cifar100_wrn_20_8",
    "cifar100_resnet110",
]


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

    The peers start as copies of the first and part by their views; where images are not augmented they never part.

    The authors set omega, beta, gamma and n for each data set and network, and so does ``preset``; nothing is read off
    the data or the peers:

    - 0.8, 0.8, 0.5, an epoch: ``cifar10_resnet32``, ``cifar10_wrn_20_8``
    - 0.8, 0.8, 0.5, 5 steps: ``cifar10_resnet110``, ``cifar10_densenet40_12``, ``cifar100_resnet110``
    - 0.3, 0.3, 1, an epoch: ``cifar10_vgg16``, ``cifar100_vgg16``
    - 1, 0.5, 1, 5 steps: ``cifar100_resnet32``
    - 1, 0.5, 0.5, 5 steps: ``cifar100_densenet40_12``
    - 0.5, 0.5, 0.5, 5 steps: ``cifar100_wrn_20_8``

    Differs from the source: it returns its peers towards the mean from before the last step, which they lose by the
    share gamma, and counts n within an epoch, from its first step on. Each of its networks has another kind of
    augmentation (rotation, cutout, ...), here another draw of one kind; its mean network sees a view of its own, here
    the first peer's.

    Known from: the authors' code.

    When to use: with peers of one kind, when one network of their mean weights is to be deployed
    (``collegium export RUN --predictor hybrid``). A secondary account gives 79.68 % with ResNet-110 on CIFAR-100.

    Args:
        spec: the cohort's shapes; all peers must be of one kind.
        temperature: T, softens all predictions.
        preset: what omega, beta, gamma and n are where nothing else is said.
        omega: weight of the labels.
        beta: weight of the ensemble.
        gamma: how far the peers return to the mean, from 0 to 1.
        interval: n, the number of steps between two returns.
    """

    own_views = True
    one_network = {"hybrid": 0}
    shadow = Shadow(decay=0.0, hybrid=True)
    starts_alike = True

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 4.0,
        preset: Preset = "cifar10_resnet32",
        omega: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        interval: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("OKDPH's temperature", temperature)
        if interval is not None and interval < 1:
            raise UsageError(f"OKDPH's interval must be 1 step or more, not {interval}")
        known = PRESETS[preset]
        self.omega = not_negative("OKDPH's omega", known.omega if omega is None else omega)
        self.beta = not_negative("OKDPH's beta", known.beta if beta is None else beta)
        self.gamma = share("OKDPH's gamma", known.gamma if gamma is None else gamma)
        self.interval = known.interval if interval is None else interval
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
        if step % (self.interval or epoch_steps):
            return
        peers = [cohort.peer(k) for k in range(cohort.num_peers)]
        for tensors in zip(*(peer.state_dict().values() for peer in peers), strict=True):
            if tensors[0].is_floating_point():
                mean = torch.stack(tensors).mean(0)
                for tensor in tensors:
                    tensor.lerp_(mean, self.gamma)

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        return {} if out.shadow is None else {"hybrid": out.shadow[0]}
