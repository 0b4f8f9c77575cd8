"""What a recipe describes: data, peers and method, built and checked before anything is written."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from collegium import data as datasets
from collegium import methods, networks
from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.data import ClassificationData
from collegium.errors import UsageError
from collegium.method import Method, Progress, Shadow, Terms
from collegium.options import check_options, keywords
from collegium.student import load_peer, start_from
from collegium.training.recipe import Recipe
from collegium.user_code import Untrusted, consents


class Learner(nn.Module):
    """Cohort and method in one module, whose forward pass is compiled as one."""

    def __init__(self, cohort: Cohort, method: Method) -> None:
        super().__init__()
        self.cohort = cohort
        self.method = method
        try:
            self.deployed_peer = f"peer{range(cohort.num_peers)[method.deployed_peer]}"
        except (IndexError, TypeError):
            wrong = f"{type(method).__name__}.deployed_peer must be the index of one of {cohort.num_peers} peers"
            raise UsageError(f"{wrong}, not {method.deployed_peer!r}") from None
        if method.starts_alike or (method.shadow is not None and method.shadow.hybrid):
            _check_alike(cohort, type(method).__name__)
        if method.starts_alike:
            for k in range(1, cohort.num_peers):
                cohort.peer(k).load_state_dict(cohort.peer(0).state_dict())
        self.shadow: Cohort | None = None
        if method.shadow is not None:
            followed = Cohort([cohort.peer(0)]) if method.shadow.hybrid else cohort
            self.shadow = copy.deepcopy(followed).requires_grad_(False)
            self._follow(method.shadow, 0.0)

    def keep(self, peers: range) -> None:
        """Leaves all other peers, and their copies, to other processes."""
        for cohort in filter(None, (self.cohort, self.shadow)):
            cohort.keep(peers)

    def local_modules(self) -> list[nn.Module]:
        """What this process trains, and the copies that follow it."""
        cohorts = filter(None, (self.cohort, self.shadow))
        return [self.method, *(cohort.local_modules() for cohort in cohorts)]

    def local_prefixes(self) -> tuple[str, ...]:
        """How the names of this process's peers and their copies begin in :meth:`state_dict`."""
        return tuple(f"{part}.branches.{k}." for part in ("cohort", "shadow") for k in self.cohort.local_peers)

    def forward(self, images: Tensor, target: Tensor, progress: Progress) -> tuple[dict[str, Terms], Tensor]:
        """Loss terms by player, and the peers' logits (M, B, C) of the first view, detached.

        Images are as for :meth:`Cohort.forward`, or (views, B, in_channels, H, W) where every peer sees several.
        """
        out = self._outputs(images if self.method.own_views or images.ndim == 4 else images.flatten(0, 1))
        return self.method(out, target, progress), out.logits[:, : len(target)].detach()

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) of every predictor: the peers, their mean ("ensemble"), and the method's own."""
        out = self._outputs(images)
        return {
            **{f"peer{k}": z for k, z in enumerate(out.logits)},
            "ensemble": out.logits.mean(0),
            **{name: z.float() for name, z in self.method.predict(out).items()},
        }

    def _outputs(self, images: Tensor) -> PeerOutputs:
        out: PeerOutputs = self.cohort(images)
        rule = self.method.shadow
        if self.shadow is None or rule is None or not (self.training or rule.hybrid):
            return out
        if rule.hybrid and images.ndim == 5:
            images = images[0]
        with torch.no_grad():
            return dataclasses.replace(out, shadow=self.shadow.forward_peers(images).logits)

    @torch.no_grad()
    def _follow(self, rule: Shadow, decay: float) -> None:
        assert self.shadow is not None
        local = self.cohort.local_peers
        peers = [self.cohort.peer(k) for k in local] if rule.hybrid else [self.cohort.local_modules()]
        shadow = self.shadow.peer(0) if rule.hybrid else self.shadow.local_modules()
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # one kernel for all parameters
        average(list(shadow.parameters()), _means([list(p.parameters()) for p in peers]), None)
        if rule.decay == 0:
            means = _means([list(p.buffers()) for p in peers])
            for stale, newest in zip(shadow.buffers(), means, strict=True):
                stale.copy_(newest)

    @torch.no_grad()
    def after_step(self, step: int, epoch_steps: int) -> None:
        """Called after the ``step``-th optimizer step of the run, counted from 1; an epoch has ``epoch_steps``."""
        rule = self.method.shadow
        if self.shadow is not None and rule is not None and step % rule.every == 0:
            self._follow(rule, min(1 - rule.every / step, rule.decay))
        self.method.after_step(self.cohort, step, epoch_steps)


def _check_alike(cohort: Cohort, method: str) -> None:
    peers = [cohort.peer(k) for k in range(cohort.num_peers)]
    shapes = {tuple((name, p.shape) for name, p in peer.named_parameters()) for peer in peers}
    if len(shapes) > 1:
        raise UsageError(
            f"{method} averages weights, so its peers must be equal networks, but the weights of "
            f"{', '.join(cohort.names)} differ in names or shapes; use one network for all peers"
        )


def _means(networks: list[list[Tensor]]) -> list[Tensor]:
    """The mean of each tensor over equal networks; a single network's own tensors."""
    if len(networks) == 1:
        return networks[0]
    return [torch.stack(tensors).double().mean(0).to(tensors[0].dtype) for tensors in zip(*networks, strict=True)]


@dataclass(frozen=True)
class Experiment:
    """What a recipe describes, ready to train."""

    recipe: Recipe
    data: ClassificationData[Any]
    spec: CohortSpec
    learner: Learner
    notes: tuple[str, ...] = ()  # what a reader of its scores must know


@consents()
def build(
    recipe: Recipe,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
    begun: bool = False,
) -> Experiment:
    """Builds everything that a recipe names; what is given from Python replaces it.

    Each peer starts from random weights of its own, which are the same for every method, so that methods can be
    compared peer by peer; or as a copy of the first, where the method asks for that. The global random state is left
    unchanged.

    Args:
        recipe: the run.
        peers: networks from Python in place of those that the recipe names.
        data: data from Python in place of those that the recipe names.
        teacher: a trained network from Python in place of the one that the recipe names.
        begun: the weights will come from a checkpoint; neither start_from nor pretrained weights are loaded.

    Raises:
        UsageError: what the recipe names does not exist or does not fit together.
        DataError: the data cannot be read.
    """
    method_class = methods.get(recipe.method_name)
    check_options(method_class.__name__, method_class, recipe.method_options, skip="spec")
    for given, named, what in (
        (peers, recipe.peers, "peers"),
        (data, recipe.data_name, "data"),
        (teacher, recipe.teacher, "teacher"),
    ):
        if given is None and named is not None and named.startswith("python:"):
            raise UsageError(f"this run was given its {what} from Python ({named}): pass {what}= in the call")
    names = networks.parse_peers(recipe.peers) if peers is None else []
    for name in set(names):  # a wrong name is found before any data are fetched
        networks.check(name)
    if data is None:
        data = datasets.load(recipe.data_name, **recipe.data_options)
    recipe = resolve(recipe)
    shape: dict[str, Any] = dict(num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size)
    cohort_peers = [networks.as_network(peer, data.image_shape) for peer in peers or ()]
    for k, name in enumerate(names):
        with _seeded(recipe.resolved_weight_seed, k):
            cohort_peers.append(networks.build(networks.untrained(name) if begun else name, **shape))
    if teacher is None and recipe.teacher is not None:
        teacher = load_peer(recipe.teacher)
    own_notes = dict.fromkeys(peer.note for peer in cohort_peers if peer.note)
    notes = [*data.notes, *_resized(cohort_peers, data.image_size), *own_notes]
    if recipe.start_from is not None and begun:
        notes += [f"The peers started from {recipe.start_from}."]
    elif recipe.start_from is not None:
        notes += [start_from(peer, k, recipe.start_from) for k, peer in enumerate(cohort_peers)]
    frozen = None if teacher is None else networks.as_network(teacher, data.image_shape)
    cohort = Cohort(
        cohort_peers, share_until=recipe.share_until, teacher=frozen, recompute=recipe.activation_checkpointing
    )
    spec = describe(cohort, data.image_shape, data.num_classes)
    with _seeded(recipe.resolved_weight_seed, -1):
        method = method_class(spec, **recipe.method_options)
    return Experiment(recipe, data, spec, Learner(cohort, method), tuple(notes))


def _resized(peers: Sequence[networks.Network], image_size: tuple[int, int]) -> list[str]:
    """A sentence for each peer that takes images of another size than the data's."""
    given = "x".join(map(str, image_size))
    return [
        f"peer{k} ({peer.name}) takes {'x'.join(map(str, peer.image_size))} only: images of {given} are resized for it."
        for k, peer in enumerate(peers)
        if peer.image_size is not None and peer.image_size != image_size
    ]


@consents()
def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every default of its method and data filled in, but of a method that may not be imported."""
    try:
        method = {name: p.default for name, p in keywords(methods.get(recipe.method_name), skip="spec").items()}
    except Untrusted:  # the recipes that runs and studies write have them filled in already
        method = {}
    data: dict[str, Any] = {}
    if not recipe.data_name.startswith("python:"):
        data = datasets.options(recipe.data_name)
    return dataclasses.replace(
        recipe,
        method={"name": recipe.method_name} | method | dict(recipe.method),
        data={"name": recipe.data_name} | data | dict(recipe.data),
    )


@contextmanager
def _seeded(seed: int, part: int) -> Iterator[None]:
    """Seeds torch's random state for one part of a run, and restores it at the end."""
    with torch.random.fork_rng(devices=[]):  # networks are built on the CPU
        torch.default_generator.manual_seed(int(np.random.SeedSequence([seed, part + 1]).generate_state(1)[0]))
        yield
