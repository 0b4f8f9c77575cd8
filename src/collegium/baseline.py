"""The deployed network trained alone with the same recipe and seed: what a run is to be compared with."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from collegium.cohort import freeze_patterns, freezes
from collegium.networks import parse_peers
from collegium.study.grid import BASELINE
from collegium.study.study import Study
from collegium.training.experiment import resolve
from collegium.training.recipe import Recipe

NO_MATTER = ("device", "ema", "checkpoint_every", "keep_checkpoints")
"""Entries of a recipe that do not change what a network learns, and nor does evaluate_every without patience."""


class Baseline(NamedTuple):
    """A network that was trained alone."""

    top1_error: float  # on the test images after the last epoch, in [0, 1]
    place: str  # of the run


def recipe_alone(recipe: Recipe, network: str, index: int, parameters: Iterable[str] = ()) -> Recipe:
    """A run's recipe for one of its networks alone.

    Args:
        recipe: the run's.
        network: the network's name.
        index: which peer of the run it is; what the recipe says of this peer is said of the one that there is.
        parameters: the names of its parameters, where the recipe freezes some: patterns of others' are left out.
    """
    rates, decays = recipe.peer_learning_rates, recipe.peer_weight_decays
    names = list(parameters)
    patterns = [p for p in freeze_patterns(recipe.freeze or "") if any(freezes(p, index, name) for name in names)]
    own = [pattern.replace(f"peer{index}.", "peer0.", 1) for pattern in patterns]
    return dataclasses.replace(
        recipe,
        method={"name": BASELINE},
        peers=network,
        share_until=None,
        teacher=None,
        freeze=",".join(own) or None,
        peer_learning_rates=rates[index : index + 1],
        peer_weight_decays=decays[index : index + 1],
    )


def folder_alone(run: Path) -> Path:
    """Where the baseline of a run is trained: beside it."""
    return run.with_name(f"{run.name}-baseline")


def known_baseline(study: str | Path, alone: Recipe, index: int) -> Baseline | None:
    """A finished run of a study in which the network has learned alone under this recipe; None where there is none.

    Peers of ``independent`` that share no layers learn as if each were alone, but where gradients are clipped, by the
    norm of all of them, and where training stops early, by the mean of their errors.

    Args:
        study: its folder.
        alone: see :func:`recipe_alone`.
        index: of the peer that is looked for first, as it begins with the same weights.

    Raises:
        UsageError: there is no study.
    """
    opened = Study.open(study)
    together = alone.gradient_clip is not None or alone.patience is not None
    no_matter = NO_MATTER if alone.patience is not None else (*NO_MATTER, "evaluate_every")
    unimportant = {name: getattr(alone, name) for name in no_matter}
    for outcome in opened.outcomes():
        recipe = outcome.cell.recipe
        names = parse_peers(recipe.peers)
        if outcome.result is None or alone.peers not in names or (len(names) > 1 and together):
            continue
        same = dataclasses.replace(recipe, peers=alone.peers, **unimportant)
        if resolve(same).differences(resolve(alone)):
            continue
        k = index if names[index : index + 1] == [alone.peers] else names.index(alone.peers)
        error = outcome.result["predictors"][f"peer{k}"]["last"]["top1_error"]
        return Baseline(float(error), f"peer{k} of {opened.run_folder(outcome.cell).path}")
    return None
