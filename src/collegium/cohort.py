"""The peers that train together, and what a method may see of them.

Letters in shapes: M peers, B batch, C classes, D channels.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from collegium import ranks
from collegium.errors import UsageError, nearest
from collegium.networks.network import Network, read_map
from collegium.networks.overlap import outputs_of_patches
from collegium.networks.recompute import recomputed
from collegium.tiles import Tile
from collegium.torch_private import writes

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


AVERAGED = "_ema"
"""How the names of predictors end that answer with the moving average of the peers' weights: peer0_ema."""


def freezes(pattern: str, index: int, name: str) -> bool:
    """Whether a pattern of :meth:`Cohort.freeze` matches the parameter of this name of peer ``index``."""
    short = name.removeprefix("stages.")
    return any(fnmatchcase(form, pattern) for form in (name, short, f"peer{index}.{name}", f"peer{index}.{short}"))


def freeze_patterns(text: str) -> list[str]:
    """``"stem*, peer0.stage1*"`` -> ``["stem*", "peer0.stage1*"]``"""
    return [pattern.strip() for pattern in text.split(",") if pattern.strip()]


def is_peer(predictor: str) -> bool:
    """Whether a predictor's name is that of a peer: peer0, peer1, ..."""
    return re.fullmatch(r"peer\d+", predictor) is not None


@dataclass(frozen=True)
class TeacherOutputs:
    """One batch seen by a frozen, already trained network."""

    logits: Tensor  # (B, C)
    features: Sequence[Tensor]  # stage -> (B, D, H, W)


@dataclass(frozen=True)
class PeerOutputs:
    """One batch seen by M peers."""

    logits: Tensor  # (M, B, C), float32
    features: tuple[Sequence[Tensor], ...]  # peer -> stage -> (B, D, H, W); the classifier pools the last
    # Peers of other processes have logits alone, see Cohort.keep.
    trunk: Tensor | None = None  # (B, D, H, W), output of what all share; of the first peer's view if they have own
    teacher: TeacherOutputs | None = None
    shadow: Tensor | None = None  # (M, B, C), of the copies, in training only; (1, B, C), of a hybrid, always
    rerun: "Rerun | None" = None  # of this batch by the same peers with other weights

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
    trunk_shape: tuple[int, ...] | None = None  # (D, H, W), of the output of what all peers share
    teacher_shapes: tuple[tuple[int, ...], ...] | None = None  # stage -> (D, H, W)
    teacher_classifier: nn.Module | None = None  # of its last map to logits; frozen, for methods that start from a copy

    @property
    def num_peers(self) -> int:
        return len(self.feature_shapes)

    @property
    def last_shapes(self) -> tuple[tuple[int, ...], ...]:
        """(D, H, W) of the map that each peer's classifier pools.

        Raises:
            UsageError: the networks give logits alone.
        """
        if not all(self.feature_shapes):
            raise UsageError("these options need the peers' maps, and these networks give logits alone; leave them out")
        return tuple(stages[-1] for stages in self.feature_shapes)

    @property
    def named_last_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The same with each network's name, for messages."""
        return list(zip(self.names, self.last_shapes, strict=True))


class Cohort(nn.Module):
    """Separate peers, branches on a shared trunk, or the leaves of a tree, with an optional frozen teacher.

    Args:
        peers: whole networks. They must start from different weights: equal peers have nothing to teach.
        share_until: the last stage that the peers share. The first peer's stages up to there become the
            trunk, and every peer keeps the stages above for itself. With more stages, "stage1,stage2", the trunk
            ends after the first; there the peers part in two halves, each of which shares a limb, its first peer's
            stages up to the next; and so on, until above the last stage each is alone.
        teacher: a trained network; it is frozen, stays in evaluation mode and is no peer.
        recompute: whether the backward pass keeps the ends of stages alone and computes what lies between again.
        input_ndim: dimensions of a batch of inputs, 4 for images; with one more, every peer sees a view of its own.

    Raises:
        UsageError: no peers, equal peers, a trunk or limb that a peer lacks or shapes differently, stages out of
            order, or peers that cannot be halved so often.
    """

    def __init__(
        self,
        peers: Sequence[Network],
        *,
        share_until: str | None = None,
        teacher: Network | None = None,
        recompute: bool = False,
        input_ndim: int = 4,
    ) -> None:
        super().__init__()
        if not peers:
            raise UsageError("a cohort needs at least one peer")
        self._refuse_equal(peers)
        self.names = tuple(peer.name for peer in peers)
        stages = [] if share_until is None else [stage.strip() for stage in share_until.split(",")]
        self._refuse_impossible_splits(peers, stages)
        parts: list[nn.ModuleDict] = []
        self._sharing: list[range] = []  # the peers of each part
        for split, stage in enumerate(stages):
            lows, peers = zip(*(peer.split_after(stage) for peer in peers), strict=True)
            size = len(peers) // 2**split
            for first in range(0, len(peers), size):
                self._refuse_unlike(lows, range(first, first + size), stage)
                parts.append(nn.ModuleDict(lows[first]))
                self._sharing.append(range(first, first + size))
        self.trunk = parts[0] if parts else nn.ModuleDict()
        self.limbs = nn.ModuleList(parts[1:])
        self.recompute = recompute
        self.input_ndim = input_ndim
        self.branches = nn.ModuleList(peer.recomputing() for peer in peers) if recompute else nn.ModuleList(peers)
        self.frozen_norms: list[nn.Module] = []  # which stay in evaluation mode
        self.local_peers = range(len(peers))  # those that this process computes
        self.teacher = teacher
        if teacher is not None:
            teacher.requires_grad_(False).eval()

    def freeze(self, patterns: str) -> None:
        """Leaves parameters untrained, and batch norms all of whose parameters are among them in evaluation mode.

        Args:
            patterns: comma-separated, as of :mod:`fnmatch`, on names of parameters as they are saved, the prefix
                "stages." left out or not; after "peer0." on that peer's alone: "stem*,stage1*", "peer0.layer1.*".

        Raises:
            UsageError: a pattern matches nothing, or a peer has nothing left to train.
        """
        known: list[str] = []
        matched = dict.fromkeys(freeze_patterns(patterns), 0)
        if not matched:
            raise UsageError("freeze names no parameters: give patterns like 'stem*,stage1*', or leave it out")
        for k in range(self.num_peers):
            network = self.peer(k).plain()
            for name, parameter in network.named_parameters():
                short = name.removeprefix("stages.")
                known += (short, short.partition(".")[0])
                fitting = [pattern for pattern in matched if freezes(pattern, k, name)]
                for pattern in fitting:
                    matched[pattern] += 1
                if fitting:
                    parameter.requires_grad_(False)
        for pattern, count in matched.items():
            if not count:
                near = nearest(pattern.strip("*."), sorted(set(known)))
                raise UsageError(f"no parameter of the peers is called like {pattern!r}, which was to be frozen{near}")
        for k in range(self.num_peers):
            if not any(p.requires_grad for p in self.peer(k).parameters()):
                raise UsageError(
                    f"peer{k} ({self.names[k]}) would have nothing left to train: freeze less; a network that is "
                    "trained already teaches as --teacher of kd, dkd, fitnets, at or ab"
                )
        self.frozen_norms = [
            module
            for module in (*self.trunk.modules(), *self.limbs.modules(), *self.branches.modules())
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and list(module.parameters())
            and not any(p.requires_grad for p in module.parameters())
        ]

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

    def _refuse_impossible_splits(self, peers: Sequence[Network], stages: Sequence[str]) -> None:
        known = list(peers[0].stage_names)
        places = [known.index(stage) for stage in stages if stage in known]
        if places != sorted(set(places)):
            raise UsageError(
                f"the peers cannot share until {','.join(stages)}: name each stage once and in the order that "
                f"{self.names[0]} runs them, {', '.join(known)}"
            )
        unlike = next((k for k, peer in enumerate(peers) if stages and not peer.normalises_like(peers[0])), None)
        if unlike is not None:
            raise UsageError(
                f"peer0 ({self.names[0]}) and peer{unlike} ({self.names[unlike]}) normalise images differently, so "
                "they cannot share a trunk; give all peers one normalise="
            )
        halves = 2 ** (len(stages) - 1) if stages else 1
        if halves > 1 and (len(peers) % halves or len(peers) < 2 * halves):
            raise UsageError(
                f"{len(peers)} peers cannot share until {','.join(stages)}: they part in two halves after each stage "
                f"but the last; give {2 * halves}, {3 * halves}, {4 * halves} or another multiple of {halves}"
            )

    def _refuse_unlike(self, lows: Sequence[dict[str, nn.Module]], peers: range, share_until: str) -> None:
        # Parameters say how wide the layers are, the text of the modules what else they do.
        shapes = [[(str(stage), *(p.shape for p in stage.parameters())) for stage in low.values()] for low in lows]
        a = peers[0]
        for k in peers:
            if shapes[k] != shapes[a]:
                raise UsageError(
                    f"peer{a} ({self.names[a]}) and peer{k} ({self.names[k]}) differ up to {share_until}, so they "
                    "cannot share a trunk there; leave share_until out or take peers of one kind"
                )

    @property
    def num_peers(self) -> int:
        return len(self.branches)

    @property
    def shared(self) -> list[tuple[nn.ModuleDict, range]]:
        """The trunk, then the limbs, each with the peers that share it."""
        # Where nothing is shared the trunk is empty.
        parts = cast(Sequence[nn.ModuleDict], (self.trunk, *self.limbs)[: len(self._sharing)])
        return list(zip(parts, self._sharing, strict=True))

    def peer(self, index: int) -> Network:
        """Peer ``index`` as a whole network, what it shares included; its modules are this cohort's own."""
        branch = self._branch(index)
        low = {name: stage for part, peers in self.shared if index in peers for name, stage in part.items()}
        return branch.on_trunk(low) if low else branch

    def has_views(self, images: Tensor | Tile) -> TypeGuard[Tensor]:
        """Whether these are several views of each image: (views, B, in_channels, H, W)."""
        return isinstance(images, Tensor) and images.ndim > self.input_ndim

    def _branch(self, index: int) -> Network:
        branch = self.branches[index]
        assert isinstance(branch, Network)
        return branch

    def keep(self, peers: range) -> None:
        """Leaves all other peers to other processes, from which this one receives their logits, without gradient.

        Their weights stay on the CPU, for checkpoints.
        """
        self.local_peers = peers
        for k in range(self.num_peers):
            if k not in peers:
                self.branches[k].cpu()

    def local_modules(self) -> nn.ModuleList:
        """The modules that this process computes, without the teacher."""
        return nn.ModuleList([self.trunk, self.limbs, *(self.branches[k] for k in self.local_peers)])

    def train(self, mode: bool = True) -> "Cohort":
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        for norm in self.frozen_norms:
            norm.eval()
        return self

    def forward(self, images: Tensor | Tile) -> PeerOutputs:
        """Outputs of all peers, and of the teacher where there is one.

        Args:
            images: (B, in_channels, H, W), or (M, B, in_channels, H, W) where every peer sees a view of its own; the
                teacher then sees the first. Or B patches of a tile.
        """
        out = replace(self.forward_peers(images), rerun=Rerun(self, images))
        if self.teacher is None:
            return out
        return replace(out, teacher=self._ask(self.teacher, images[0] if self.has_views(images) else images))

    def forward_peers(self, images: Tensor | Tile) -> PeerOutputs:
        """Images as for :meth:`forward` -> outputs of all peers; what they share is computed once for each view."""
        if isinstance(images, Tile):
            return self._patches(images)
        own = self.has_views(images)

        def by_peer(x: Tensor, count: int) -> Sequence[Tensor]:
            return x.chunk(count) if own else [x] * count

        if self.trunk:
            fitting = self._branch(0).fit(images.flatten(0, 1) if own else images)
            states = dict(enumerate(by_peer(fitting, self.num_peers)))
        else:
            states = {k: self._branch(k).fit(images[k] if own else images) for k in self.local_peers}
        maps: list[list[Tensor]] = [[] for _ in range(self.num_peers)]  # peer -> map after each stage
        for part, peers in self.shared:
            x = torch.cat([states[k] for k in peers]) if own else states[peers[0]]
            for stage in part.values():
                x = recomputed(stage, stage, x) if self.recompute else stage(x)
                for k, feature in zip(peers, by_peer(read_map(stage, x), len(peers)), strict=True):
                    maps[k].append(feature)
            states.update(zip(peers, by_peer(x, len(peers)), strict=True))
        local_logits = []
        for k, state in states.items():
            high, z = self._branch(k).outputs(state)
            maps[k] += high
            local_logits.append(z.float())
        return self._gathered(local_logits, tuple(map(tuple, maps)))

    def _patches(self, tile: Tile) -> PeerOutputs:
        """Outputs of all peers, each as a whole network: what it shares is little beside its own."""
        logits = []
        features: list[Sequence[Tensor]] = [()] * self.num_peers
        for k in self.local_peers:
            features[k], z = outputs_of_patches(self.peer(k), tile)
            logits.append(z.float())
        return self._gathered(logits, tuple(features))

    def _gathered(self, local_logits: Sequence[Tensor], features: tuple[Sequence[Tensor], ...]) -> PeerOutputs:
        logits = torch.stack(tuple(local_logits))
        if len(self.local_peers) < self.num_peers:
            logits = ranks.gather_peers(logits)
        trunk = features[0][len(self.trunk) - 1] if self.trunk else None
        return PeerOutputs(logits=logits, features=features, trunk=trunk)

    @torch.no_grad()
    def check_trunk(self, images: Tensor) -> None:
        """Raises UsageError where a limb or branch changes in place what it is given, which others read too."""
        if not self.trunk:
            return
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            for module in self.modules():
                if isinstance(module, DROPOUTS):
                    module.train()  # in evaluation mode it changes nothing
            self._check_trunk(images)

    def _check_trunk(self, images: Tensor) -> None:
        states = [self._branch(0).fit(images)] * self.num_peers
        ends = [""] * self.num_peers  # the last stage that each peer has come through
        for part, peers in self.shared:
            x = states[peers[0]]
            before = writes(x)
            for stage in part.values():
                x = stage(x)
            if ends[peers[0]]:
                self._refuse_changed(states[peers[0]], before, peers[0], ends[peers[0]])
            for k in peers:
                states[k], ends[k] = x, list(part)[-1]
        for k, state in enumerate(states):
            before = writes(state)
            self._branch(k).outputs(state)
            self._refuse_changed(state, before, k, ends[k])

    def _refuse_changed(self, state: Tensor, version: int, peer: int, stage: str) -> None:
        if writes(state) != version:
            raise UsageError(
                f"peer{peer} ({self.names[peer]}) changes the output of {stage} in place, so the peers cannot share a "
                "trunk there; cut after another stage"
            )

    @torch.no_grad()
    def _ask(self, teacher: Network, images: Tensor | Tile) -> TeacherOutputs:
        if isinstance(images, Tile):
            features, logits = outputs_of_patches(teacher, images)
        else:
            features, logits = teacher.outputs(teacher.fit(images))
        return TeacherOutputs(logits=logits.float(), features=features)


@dataclass(frozen=True, eq=False)
class Rerun:
    """A batch and the peers that have seen it, for methods that ask what other weights would make of it."""

    cohort: Cohort
    images: Tensor | Tile

    @property
    def weights(self) -> dict[str, Tensor]:
        """The peers' trainable weights by name."""
        return {name: p for name, p in self.cohort.named_parameters() if p.requires_grad}

    def __call__(self, weights: Mapping[str, Tensor]) -> PeerOutputs:
        """Outputs with these weights in place of the peers' own; running statistics stay as they are.

        Raises:
            UsageError: the cohort computes stages again in the backward pass, which would find its own weights.
        """
        if self.cohort.recompute:
            raise UsageError("a method that runs peers with other weights needs --activation-checkpointing false")
        statistics = {name: b.clone() for name, b in self.cohort.named_buffers()}
        out: PeerOutputs = functional_call(self.cohort, {**weights, **statistics}, (self.images,))
        return out


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
    networks = _by_role(cohort)
    size = "x".join(str(n) for n in image_shape[1:])
    for role, network in networks.items():
        if network.in_channels != image_shape[0]:
            raise UsageError(
                f"{role} ({network.name}) takes images of {network.in_channels} channels, the data have "
                f"{image_shape[0]}"
            )
    parameter = next(cohort.parameters())
    images = torch.ones(2, *image_shape, device=parameter.device, dtype=parameter.dtype)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    trunk_shape, teacher_classifier = None, None
    with _evaluating(cohort):
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
            if role == "teacher" and _classifies(network.head, features[-1], logits):
                teacher_classifier = network.head
        cohort.check_trunk(images)
    return CohortSpec(
        names=cohort.names,
        num_classes=num_classes,
        feature_shapes=tuple(shapes[f"peer{k}"] for k in range(cohort.num_peers)),
        trunk_shape=trunk_shape,
        teacher_shapes=shapes.get("teacher"),
        teacher_classifier=teacher_classifier,
    )


class LogitsShape(NamedTuple):
    """How networks lay out the logits of a batch."""

    ndim: int
    class_dim: int  # counted from the end


@torch.no_grad()
def describe_logits(cohort: Cohort, example: Tensor, num_classes: int) -> tuple[CohortSpec, LogitsShape]:
    """What a method that reads logits alone may know, and how they are laid out, found by one dry run.

    Args:
        cohort: the peers.
        example: a batch such as they will be given.
        num_classes: classes of the data.

    Raises:
        UsageError: a peer does not take such a batch, gives no logits for it, or others than the first peer's, or it
            cannot be told which dimension is that of the classes.
    """
    example = example.to(next(cohort.parameters()).device)
    shapes: dict[str, tuple[int, ...]] = {}
    with _evaluating(cohort):
        for role, network in _by_role(cohort).items():
            try:
                shapes[role] = tuple(network(example).shape)
            except Exception as error:  # whatever a stranger's module raises
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise UsageError(
                    f"{role} ({network.name}) cannot take example_input, of shape {tuple(example.shape)}: {reason}"
                ) from error
    first = shapes["peer0"]
    for role, shape in shapes.items():
        if shape != first:
            raise UsageError(f"{role} gives logits of shape {shape}, peer0 of {first}: they cannot be compared")
    found = {dim for dim in (1 - len(first), -1) if len(first) > 1 and first[dim] == num_classes}
    if first[:1] != example.shape[:1] or not found:
        raise UsageError(
            f"peer0 ({cohort.names[0]}) gives {first} for a batch of shape {tuple(example.shape)}, not logits "
            f"(B, {num_classes}, ...) or (B, ..., {num_classes}) of {num_classes} classes"
        )
    if len(found) > 1:
        raise UsageError(
            f"it cannot be told which dimension of logits {first} is that of the {num_classes} classes; give an "
            "example_input of another size"
        )
    spec = CohortSpec(
        names=cohort.names,
        num_classes=num_classes,
        feature_shapes=((),) * cohort.num_peers,
        teacher_shapes=None if cohort.teacher is None else (),
    )
    return spec, LogitsShape(len(first), found.pop())


def _by_role(cohort: Cohort) -> dict[str, Network]:
    networks = {f"peer{k}": cohort.peer(k) for k in range(cohort.num_peers)}
    return networks if cohort.teacher is None else {**networks, "teacher": cohort.teacher}


@contextmanager
def _evaluating(cohort: Cohort) -> Iterator[None]:
    """Every module of the cohort in evaluation mode; afterwards as it was."""
    modes = [(module, module.training) for module in cohort.modules()]
    cohort.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _classifies(classifier: nn.Module, last_map: Tensor, logits: Tensor) -> bool:
    """Whether a classifier reads the last map, and not tokens or a whole image."""
    try:
        return torch.equal(classifier(last_map), logits)
    except Exception:  # whatever a whole network says of a map in place of images
        return False
