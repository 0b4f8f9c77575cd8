"""Feature-map-level online adversarial knowledge distillation."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError, brief
from collegium.heads import MatchSize, Shape
from collegium.layers import GlobalPoolClassifier, convolution
from collegium.losses import cross_entropy, distill
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, trainable


class TransferLayers(nn.Module):
    """T_k: brings every peer's map to the smallest size and the largest width among them; alike maps pass unchanged."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.match = MatchSize(shapes)
        widths = [shape[0] for shape in shapes]
        self.width = max(widths)
        alike = len(set(widths)) == 1
        self.layers = nn.ModuleList(nn.Identity() if alike else self._layer(width) for width in widths)

    def _layer(self, width: int) -> nn.Module:
        return nn.Sequential(convolution(width, self.width, 1), nn.BatchNorm2d(self.width), nn.ReLU())

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """M maps (B, D_k, H_k, W_k) -> M maps (B, D, H, W)."""
        return [layer(f) for layer, f in zip(self.layers, self.match(features), strict=True)]


class Discriminator(nn.Module):
    """How far each map of a batch looks real, from 0 to 1: (B, D, H, W) -> (B,)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = 2 * channels
        self.layers = nn.Sequential(
            convolution(channels, width, 3, stride=2),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            GlobalPoolClassifier(width, 1),
        )

    def forward(self, feature: Tensor) -> Tensor:
        return cast(Tensor, self.layers(feature)).float().squeeze(1).sigmoid()


class ReimplementedDiscriminator(nn.Module):
    """The same place by place: (B, D, H, W) -> (B, 1, H', W'), H' = (H - 1) / 2, rounded down.

    A 2x2 convolution to half the channels, norm, leaky ReLU, and one of stride 2 to a single channel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 2), nn.BatchNorm2d(width), nn.LeakyReLU(0.01), nn.Conv2d(width, 1, 2, stride=2)
        )

    def forward(self, feature: Tensor) -> Tensor:
        return cast(Tensor, self.layers(feature)).float().sigmoid()


class AFD(Method):
    r"""Every network learns to fool a discriminator that tells its feature maps from those of another network.

    Network k learns from network j; D_k calls the maps of j real and those of k fake, G is all below the classifier:

    .. math:: L^k_{logit} = CE(z_k, y) + T^2 KL(\sigma_T(z_j) \,\|\, \sigma_T(z_k))
    .. math:: L_{D_k} = [1 - D_k(T_j(G_j(x)))]^2 + [D_k(T_k(G_k(x)))]^2, \qquad L_{G_k} = [1 - D_k(T_k(G_k(x)))]^2

    Source: Chung, Park, Kim and Kwak, "Feature-map-level Online Adversarial Knowledge Distillation", ICML 2020,
    https://arxiv.org/abs/2002.01775. There is no code of the authors. Two networks learn from each other; more form
    a cycle, in which each learns from the one before it.

    Three players: ``peers`` descend the logit loss, ``adversarial`` (the same networks and the transfer layers T)
    the loss L_G by an Adam of its own, ``discriminators`` the loss L_D by another.

    Differs from the paper: all gradients of a batch are taken at the same weights, before any step.

    Known from: secondary accounts of the paper, one of which writes the losses out; two others agree on the roles and
    the separate optimizers. ``discriminator="reimplemented"``, ``adversarial_weight_decay=0.1`` and
    ``adversarial_milestones=(0.25, 0.5)`` are read in the first version of a re-implementation by students,
    https://github.com/yechanp/self_kd. It differs otherwise: one Adam of networks and discriminators descends the sum
    of L_D, and the predictions that are imitated are no constants.

    Reconstructed: as no text at hand states them, the layers of D (a 3x3 convolution of stride 2 to twice the
    channels, norm, leaky ReLU, then a linear layer on the pooled map) and of T (for peers of unlike widths a 1x1
    convolution, norm and ReLU; none for like ones), the settings of the adversarial step, T = 3, "mutual" for more
    than two networks, and that in the direct alignment the other's map stands still.

    When to use: to compare with it. A secondary account gives 74.03 % for one of two ResNet-32 on CIFAR-100, and
    73.38 % without the adversarial part; in another paper's comparison a row of this name lies below DML.

    Args:
        spec: the cohort's shapes.
        temperature: T, softens both predictions.
        scheme: "cyclic", each network learns from the one before it; "mutual", from every other, with a
            discriminator for each and the mean of the losses. For two networks they are the same.
        adversarial: "gan", the method; "l1", the paper's direct alignment: the mean absolute difference of the maps
            in place of the adversarial losses; "none", no transfer of maps.
        logit: whether networks imitate each other's predictions.
        logit_all_pairs: in a cycle too every network imitates the predictions of all others, on average.
        l1_weight: weight of the direct alignment.
        adversarial_learning_rate: of both Adam optimizers, in place of the run's.
        discriminator_weight_decay: of the discriminators.
        adversarial_weight_decay: of the networks and the transfer layers in the adversarial step.
        adversarial_milestones: shares of training where the rates of both Adam optimizers drop to a tenth; by default
            they follow the run's schedule.
        discriminator: "strided", or "reimplemented", without pooling: a judgement of every place, for maps of 3x3 or
            more.
    """

    reconstructed = "the discriminators, the transfer layers, the adversarial learning rate and the temperature"
    optimizers = {"adversarial": "adam", "discriminators": "adam"}

    def __init__(
        self,
        spec: CohortSpec,
        *,
        temperature: float = 3.0,
        scheme: Literal["mutual", "cyclic"] = "cyclic",
        adversarial: Literal["gan", "l1", "none"] = "gan",
        logit: bool = True,
        logit_all_pairs: bool = False,
        l1_weight: float = 1.0,
        adversarial_learning_rate: float = 2e-5,
        discriminator_weight_decay: float = 0.1,
        adversarial_weight_decay: float = 0.0,
        adversarial_milestones: tuple[float, ...] | None = None,
        discriminator: Literal["strided", "reimplemented"] = "strided",
    ) -> None:
        super().__init__(spec)
        self.temperature = positive("AFD's temperature", temperature)
        self.adversarial = adversarial
        self.l1_weight = not_negative("AFD's l1_weight", l1_weight)
        self.adversarial_learning_rate = positive("AFD's adversarial_learning_rate", adversarial_learning_rate)
        self.discriminator_weight_decay = not_negative("AFD's discriminator_weight_decay", discriminator_weight_decay)
        self.adversarial_weight_decay = not_negative("AFD's adversarial_weight_decay", adversarial_weight_decay)
        self.adversarial_milestones = adversarial_milestones
        milestones = adversarial_milestones or ()
        if len(milestones) > 100 or not all(0 < milestone < 1 for milestone in milestones):
            raise UsageError(
                f"AFD's adversarial_milestones must lie between 0 and 1, at most 100 of them, not {brief(milestones)}"
            )
        peers = range(spec.num_peers)
        everyone = [[j for j in peers if j != k] for k in peers]
        cycle = [[(k - 1) % spec.num_peers] for k in peers]
        self.teachers = everyone if scheme == "mutual" else cycle  # peer -> whose maps it learns from
        self.logit_teachers = everyone if logit_all_pairs else self.teachers
        if not logit:
            self.logit_teachers = []
        if adversarial != "none":
            self.transfer = TransferLayers(spec.last_shapes)
        if adversarial == "gan":
            kind = {"strided": Discriminator, "reimplemented": ReimplementedDiscriminator}[discriminator]
            if discriminator == "reimplemented" and min(self.transfer.match.size) < 3:
                size = "x".join(map(str, self.transfer.match.size))
                raise UsageError(
                    f"AFD's reimplemented discriminator needs maps of 3x3 or more, not {size}; take "
                    "--method.discriminator strided"
                )
            self.discriminators = nn.ModuleList(
                nn.ModuleList(kind(self.transfer.width) for _ in teachers) for teachers in self.teachers
            )

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        if self.adversarial != "gan":
            return super().players(cohort)
        networks, rate = trainable(cohort), self.adversarial_learning_rate
        fooling: ParameterGroup = {
            "params": [*networks, *trainable(self.transfer)],
            "lr": rate,
            "weight_decay": self.adversarial_weight_decay,
        }
        judging: ParameterGroup = {
            "params": trainable(self.discriminators),
            "lr": rate,
            "weight_decay": self.discriminator_weight_decay,
        }
        if self.adversarial_milestones is not None:
            fooling["milestones"] = judging["milestones"] = self.adversarial_milestones
        return {"peers": [{"params": networks}], "adversarial": [fooling], "discriminators": [judging]}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z = out.logits
        terms = {"ce": cross_entropy(z, target)}
        if self.logit_teachers:
            taught = [distill(z[k], z[j], self.temperature) / len(j) for k, j in enumerate(self.logit_teachers)]
            terms["kd"] = torch.stack(taught).sum()
        if self.adversarial == "none":
            return {"peers": terms}
        maps = self.transfer(out.last_features)
        if self.adversarial == "l1":
            return {"peers": {**terms, "l1": self.l1_weight * self._align(maps)}}
        return {"peers": terms, **self._compete(maps)}

    def _align(self, maps: list[Tensor]) -> Tensor:
        distances = [
            (maps[k].float() - maps[j].detach().float()).abs().mean() / len(teachers)
            for k, teachers in enumerate(self.teachers)
            for j in teachers
        ]
        return torch.stack(distances).sum()

    def _compete(self, maps: list[Tensor]) -> dict[str, Terms]:
        fooled, real, fake = [], [], []
        for k, teachers in enumerate(self.teachers):
            for j, discriminator in zip(teachers, cast(nn.ModuleList, self.discriminators[k]), strict=True):
                # One judgement serves both sides: each player gets the gradient of its own parameters alone.
                judged = discriminator(maps[k])
                fooled.append((1 - judged).square().mean() / len(teachers))
                fake.append(judged.square().mean() / len(teachers))
                real.append((1 - discriminator(maps[j].detach())).square().mean() / len(teachers))
        return {
            "adversarial": {"generator": torch.stack(fooled).sum()},
            "discriminators": {"real": torch.stack(real).sum(), "fake": torch.stack(fake).sum()},
        }
