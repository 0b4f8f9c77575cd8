"""The peers that train together, and what a method may see of them.

Letters in shapes: M peers, B batch, C classes, D channels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.networks.network import Network, read_map


def is_peer(predictor: str) -> bool:
    """Whether a predictor's name is that of a peer: peer0, peer1, ..."""
    return re.fullmatch(r"peer\d+", predictor) is not None


@dataclass(frozen=True)
class TeacherOutputs:
    """One batch seen by a frozen, already trained network."""

    logits: Tensor  # (B, C)
    features: tuple[Tensor, ...]  # stage -> (B, D, H, W)


@dataclass(frozen=True)
class PeerOutputs:
    """One batch seen by M peers."""

    logits: Tensor  # (M, B, C), float32
    features: tuple[tuple[Tensor, ...], ...]  # peer -> stage -> (B, D, H, W); the classifier pools the last
    trunk: Tensor | None = None  # (B, D, H, W), the shared trunk's output; of the first peer's view if they have own
    teacher: TeacherOutputs | None = None
    shadow: Tensor | None = None  # (M, B, C), of copies that follow, in training alone; (1, B, C), of a hybrid, always

    @property
    def last_features(self) -> tuple[Tensor, ...]:
        """The map that each peer's classifier pools."""
        return tuple(stages[-1] for stages in self.features)


@dataclass(frozen=True)
class CohortSpec:
    """What a method may know of a cohort before training."""

    names: tuple[str, ...]  # the peers' networks
    num_classes: int
    feature_shapes: tuple[tuple[tuple[int, ...], ...], ...]  # peer -> stage -> (D, H, W)
    trunk_shape: tuple[int, ...] | None = None  # (D, H, W)
    teacher_shapes: tuple[tuple[int, ...], ...] | None = None  # stage -> (D, H, W)
    teacher_classifier: nn.Module | None = None  # of its last map to logits; frozen, for methods that start from a copy

    @property
    def num_peers(self) -> int:
        return len(self.feature_shapes)

    @property
    def last_shapes(self) -> tuple[tuple[int, ...], ...]:
        """(D, H, W) of the map that each peer's classifier pools."""
        return tuple(stages[-1] for stages in self.feature_shapes)

    @property
    def named_last_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The same with each network's name, for messages."""
        return list(zip(self.names, self.last_shapes, strict=True))


class Cohort(nn.Module):
    """Separate peers, or branches on a shared trunk, with an optional frozen teacher.

    Args:
        peers: whole networks. They must start from different weights: equal peers have nothing to teach.
        share_until: the last stage that the peers share. The first peer's stages up to there become the
            trunk, and every peer keeps the stages above for itself.
        teacher: a trained network; it is frozen, stays in evaluation mode and is never exported.

    Raises:
        UsageError: no peers, equal peers, a trunk that a peer lacks or shapes differently.
    """

    def __init__(
        self, peers: Sequence[Network], *, share_until: str | None = None, teacher: Network | None = None
    ) -> None:
        super().__init__()
        if not peers:
            raise UsageError("a cohort needs at least one peer")
        self._refuse_equal(peers)
        self.names = tuple(peer.name for peer in peers)
        self.trunk = nn.ModuleDict()
        self.branches = nn.ModuleList(peers)
        if share_until is not None:
            lows, highs = zip(*(peer.split_after(share_until) for peer in peers), strict=True)
            self._refuse_unlike_trunks(lows, share_until)
            self.trunk = nn.ModuleDict(lows[0])
            self.branches = nn.ModuleList(highs)
        self.teacher = teacher
        if teacher is not None:
            teacher.requires_grad_(False).eval()

    def _refuse_equal(self, peers: Sequence[Network]) -> None:
        for i, first in enumerate(peers):
            for j, second in enumerate(peers[:i]):
                a, b = list(first.parameters()), list(second.parameters())
                if len(a) == len(b) and all(
                    x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True)
                ):
                    raise UsageError(
                        f"peer{j} and peer{i} ({first.name}) have equal weights and would stay equal; "
                        "build each from its own random start"
                    )

    def _refuse_unlike_trunks(self, lows: Sequence[dict[str, nn.Module]], share_until: str) -> None:
        # Parameters say how wide the layers are, the text of the modules what else they do.
        shapes = [[(str(stage), *(p.shape for p in stage.parameters())) for stage in low.values()] for low in lows]
        for k, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise UsageError(
                    f"peer0 ({self.names[0]}) and peer{k} ({self.names[k]}) differ up to {share_until}, so they "
                    "cannot share a trunk there; leave share_until out or take peers of one kind"
                )

    @property
    def num_peers(self) -> int:
        return len(self.branches)

    def peer(self, index: int) -> Network:
        """Peer ``index`` as a whole network, trunk included; its modules are this cohort's own."""
        branch = self._branch(index)
        return branch.on_trunk(dict(self.trunk.items())) if self.trunk else branch

    def _branch(self, index: int) -> Network:
        branch = self.branches[index]
        assert isinstance(branch, Network)
        return branch

    def train(self, mode: bool = True) -> "Cohort":
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, images: Tensor) -> PeerOutputs:
        """Outputs of all peers, and of the teacher where there is one.

        Args:
            images: (B, in_channels, H, W), or (M, B, in_channels, H, W) where every peer sees a view of its own; the
                teacher then sees the first.
        """
        out = self.forward_peers(images)
        if self.teacher is None:
            return out
        return replace(out, teacher=self._ask(self.teacher, images[0] if images.ndim == 5 else images))

    def forward_peers(self, images: Tensor) -> PeerOutputs:
        """Images as for :meth:`forward` -> outputs of all peers; the trunk is computed once for each view."""
        views = list(images) if images.ndim == 5 else [images] * self.num_peers
        low: list[list[Tensor]] = [[] for _ in views]  # view -> map after each stage of the trunk
        if self.trunk:
            x = self._branch(0).fit(images.flatten(0, 1) if images.ndim == 5 else images)
            for stage in self.trunk.values():
                x = stage(x)
                feature = read_map(stage, x)
                parts = feature.chunk(len(views)) if images.ndim == 5 else [feature] * len(views)
                for maps, part in zip(low, parts, strict=True):
                    maps.append(part)
            views = list(x.chunk(len(views))) if images.ndim == 5 else [x] * len(views)
        features, logits = [], []
        for k, view in enumerate(views):
            branch = self._branch(k)
            high, z = branch.outputs(view if self.trunk else branch.fit(view))
            features.append((*low[k], *high))
            logits.append(z.float())
        trunk = low[0][-1] if self.trunk else None
        return PeerOutputs(logits=torch.stack(logits), features=tuple(features), trunk=trunk)

    @torch.no_grad()
    def check_trunk(self, images: Tensor) -> None:
        """Raises UsageError where a branch changes the trunk's output in place, which the others read too."""
        if not self.trunk:
            return
        x = self._branch(0).fit(images)
        for stage in self.trunk.values():
            x = stage(x)
        for k in range(self.num_peers):
            before = x._version
            self._branch(k).outputs(x)
            if x._version != before:
                raise UsageError(
                    f"peer{k} ({self.names[k]}) changes the output of {list(self.trunk)[-1]} in place, so the peers "
                    "cannot share a trunk there; cut after another stage"
                )

    @torch.no_grad()
    def _ask(self, teacher: Network, images: Tensor) -> TeacherOutputs:
        features, logits = teacher.outputs(teacher.fit(images))
        return TeacherOutputs(logits=logits.float(), features=features)


@torch.no_grad()
def describe(cohort: Cohort, image_shape: tuple[int, int, int], num_classes: int) -> CohortSpec:
    """The shapes of everything a method can see, found by one dry run in evaluation mode.

    Args:
        cohort: the peers.
        image_shape: (channels, height, width) of the images that they will be given.
        num_classes: classes of the data.

    Raises:
        UsageError: a peer does not take such images, or has another number of classes than the data.
    """
    networks = {f"peer{k}": cohort.peer(k) for k in range(cohort.num_peers)}
    if cohort.teacher is not None:
        networks["teacher"] = cohort.teacher
    size = "x".join(str(n) for n in image_shape[1:])
    for role, network in networks.items():
        if network.in_channels != image_shape[0]:
            raise UsageError(
                f"{role} ({network.name}) takes images of {network.in_channels} channels, the data have "
                f"{image_shape[0]}"
            )
    was_training = cohort.training
    cohort.eval()
    parameter = next(cohort.parameters())
    images = torch.ones(2, *image_shape, device=parameter.device, dtype=parameter.dtype)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    trunk_shape, teacher_classifier = None, None
    try:
        for role, network in networks.items():
            try:
                features, logits = network.outputs(network.fit(images))
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise UsageError(f"{role} ({network.name}) cannot take images of {size} pixels: {reason}") from error
            if logits.shape != (2, num_classes):
                raise UsageError(f"{role} ({network.name}) has {logits.shape[-1]} classes, the data have {num_classes}")
            shapes[role] = tuple(tuple(f.shape[1:]) for f in features)
            if role == "peer0" and cohort.trunk:
                trunk_shape = shapes[role][len(cohort.trunk) - 1]
            if role == "teacher" and _classifies(network.classifier, features[-1], logits):
                teacher_classifier = network.classifier
        cohort.check_trunk(images)
    finally:
        cohort.train(was_training)
    return CohortSpec(
        names=cohort.names,
        num_classes=num_classes,
        feature_shapes=tuple(shapes[f"peer{k}"] for k in range(cohort.num_peers)),
        trunk_shape=trunk_shape,
        teacher_shapes=shapes.get("teacher"),
        teacher_classifier=teacher_classifier,
    )


def _classifies(classifier: nn.Module, last_map: Tensor, logits: Tensor) -> bool:
    """Whether a classifier reads the last map, and not tokens or a whole image."""
    try:
        return torch.equal(classifier(last_map), logits)
    except Exception:  # whatever a whole network says of a map in place of images
        return False
