"""What a recipe describes: data, peers and method, built and checked before anything is written."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from collegium import data as datasets
from collegium import methods, networks
from collegium.cohort import CohortSpec
from collegium.data import ClassificationData
from collegium.distiller import Distiller, check_class_weights
from collegium.errors import UsageError
from collegium.options import check_options, keywords
from collegium.student import load_peer, start_from
from collegium.training.optimizers import check_optimizer
from collegium.training.recipe import Recipe
from collegium.training.trial_step import try_step
from collegium.user_code import Untrusted, consents


@dataclass(frozen=True)
class Experiment:
    """What a recipe describes, ready to train."""

    recipe: Recipe
    data: ClassificationData[Any]
    spec: CohortSpec
    learner: Distiller
    notes: tuple[str, ...] = ()  # what a reader of its scores must know
    weights: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # peer -> the file that it started from
    contiguous: bool = False  # whether a network refuses the channels-last layout

    @property
    def channels_last(self) -> bool:
        """Whether images and convolutions have this layout: where the recipe says so and all networks can."""
        return self.recipe.channels_last and not self.contiguous


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
        begun: the weights will come from a checkpoint; neither start_from nor other trained weights are loaded.

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
    asked = networks.parse_peers(recipe.peers) if peers is None else []
    names = [networks.untrained(name) for name in asked] if begun else asked
    for name in set(names):  # a wrong name is found before any data are fetched
        networks.check(name)
    if not begun:
        check_optimizer(recipe)
    if data is None:
        data = datasets.load(recipe.data_name, **recipe.data_options)
    recipe = resolve(recipe)
    shape: dict[str, Any] = dict(num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size)
    normalised = networks.Statistics(data.mean, data.std)
    cohort_peers = [networks.as_network(peer, data.image_shape) for peer in peers or ()]
    for k, peer in enumerate(cohort_peers):
        _check_trainable(peer, k)
    for k, name in enumerate(names):
        with _seeded(recipe.resolved_weight_seed, k):
            cohort_peers.append(networks.build(name, **shape, **normalised._asdict()))
    if teacher is None and recipe.teacher is not None:
        teacher = load_peer(recipe.teacher)
    own_notes = dict.fromkeys(peer.note for peer in cohort_peers if peer.note)
    notes = [*data.notes, *_resized(cohort_peers, data.image_size), *own_notes]
    for k, (name, peer) in enumerate(zip(asked, cohort_peers, strict=False)):
        if note := networks.normalisation_note(name, peer, normalised):
            notes.append(f"peer{k} ({peer.name}): {note}")
    weights = {
        f"peer{k}": {"sha256": loaded.sha256, "note": f"peer{k} ({peer.name}) {loaded.note}"}
        for k, peer in enumerate(cohort_peers)
        if (loaded := peer.loaded_weights) is not None
    }
    if recipe.start_from is not None and begun:
        notes += [f"The peers started from {recipe.start_from}."]
    elif recipe.start_from is not None:
        notes += [start_from(peer, k, recipe.start_from) for k, peer in enumerate(cohort_peers)]
    contiguous = try_step(cohort_peers, recipe, data.image_shape)
    notes += contiguous
    if recipe.device == "mps":
        notes.append("On device mps torch does not promise the same bits when a run is repeated or goes on.")
    class_weights, told = weigh_classes(recipe, data)
    notes += [*told, *(loaded["note"] for loaded in weights.values())]  # last, as where a run goes on
    with _seeded(recipe.resolved_weight_seed, -1):
        learner = Distiller(
            recipe.method,
            cohort_peers,
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            share_until=recipe.share_until,
            teacher=teacher,
            recompute=recipe.activation_checkpointing,
            class_weights=class_weights,
            ema=recipe.ema,
            freeze=recipe.freeze,
        )
    return Experiment(recipe, data, learner.spec, learner, tuple(notes), weights, bool(contiguous))


def weigh_classes(recipe: Recipe, data: ClassificationData[Any]) -> tuple[tuple[float, ...] | None, list[str]]:
    """The weights of the classes, and what a reader of the scores must know of them and of the sampling."""
    counts = torch.bincount(data.train.targets.cpu(), minlength=data.num_classes)
    present, images = int((counts > 0).sum()), int(counts.sum())
    notes = []
    if recipe.sampling == "balanced":
        notes.append(
            f"An epoch draws {images} training images with replacement, {images / present:.3g} of each class on "
            f"average; the classes have from {int(counts[counts > 0].min())} to {int(counts.max())}."
        )
    weights = recipe.class_weights
    if weights == "balanced":
        # A class without training images has no label to weigh.
        weights = tuple(images / (present * count) if count else 0.0 for count in counts.tolist())
    if weights is None:
        return None, notes
    check_class_weights(weights, data.num_classes)
    trained = [c for c in range(len(weights)) if counts[c]]
    low, high = (pick(trained, key=weights.__getitem__) for pick in (min, max))
    notes.append(
        f"The cross-entropy with labels is weighted by class, from {weights[low]:.3g} for {data.class_names[low]} to "
        f"{weights[high]:.3g} for {data.class_names[high]}."
    )
    return weights, notes


def _check_trainable(peer: networks.Network, index: int) -> None:
    """Raises UsageError where a network from Python has nothing to train, or weights that are no numbers."""
    if not any(p.requires_grad for p in peer.parameters()):
        raise UsageError(f"peer{index} ({peer.name}) has no weight to train: set requires_grad_(True)")
    if not all(bool(p.isfinite().all()) for p in peer.parameters()):
        raise UsageError(f"peer{index} ({peer.name}) has weights that are not finite: give it others")


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
