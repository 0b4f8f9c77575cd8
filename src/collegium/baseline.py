"""The deployed network trained alone with the same recipe and seed: what a run is to be compared with."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from collegium.cohort import freeze_patterns, freezes
from collegium.errors import CollegiumError, UsageError
from collegium.formatting import number, percent
from collegium.networks import parse_peers
from collegium.student import starting_point, trained_names
from collegium.study.grid import BASELINE
from collegium.study.study import Study
from collegium.training.experiment import resolve
from collegium.training.optimizers import clips_together
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

NO_MATTER = ("device", "ema", "checkpoint_every", "keep_checkpoints")
"""Entries of a recipe that do not change what a network learns, and nor does evaluate_every without patience."""


class Baseline(NamedTuple):
    """A network that was trained alone."""

    top1_error: float  # on the test images after the last epoch, in [0, 1]
    place: str  # of the run

    def compared(self, top1_error: float) -> str:
        """What it says of the deployed network's error in [0, 1], in sentences."""
        gain = number(100 * (self.top1_error - top1_error), sign=True)
        return (
            f"The same network alone ({self.place}): {percent(1 - self.top1_error)} %. The difference, {gain} points, "
            "is of one seed, which cannot tell a gain from chance; collegium compare trains several."
        )


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
        start_from=_start_of(recipe, index),
        freeze=",".join(own) or None,
        peer_learning_rates=rates[index : index + 1],
        peer_weight_decays=decays[index : index + 1],
    )


def _start_of(recipe: Recipe, index: int) -> str | None:
    """Where the network number ``index`` starts from; the first of a run starts as one that is alone does."""
    if recipe.start_from is None or index == 0:
        return recipe.start_from
    found = starting_point(recipe.start_from, index)
    return recipe.start_from if found == Path(recipe.start_from).expanduser() else str(found)


def folder_alone(run: Path) -> Path:
    """Where the baseline of a run is trained: beside it."""
    return run.with_name(f"{run.name}-baseline")


def check_folder_alone(run: Path, recipe: Recipe, peers: Sequence[str], open_entries: Sequence[str] = ()) -> None:
    """Whether the baseline of a run may be trained beside it, as far as that is known before the run is trained.

    Which peer will be deployed, and what ``freeze`` means for it, is not known yet.

    Args:
        run: the run's folder.
        recipe: the run's.
        peers: the names of its networks.
        open_entries: of the recipe, whose values are chosen later.

    Raises:
        UsageError: the folder holds a run of another recipe, or something else.
    """
    folder = RunFolder(folder_alone(run))
    later = (*open_entries, *(["freeze"] if recipe.freeze is not None else []))
    known = folder.recipe() if folder.recipe_file.exists() else None
    found = []
    for index, name in enumerate(peers):
        alone = recipe_alone(recipe, name, index)
        if known is not None:
            alone = dataclasses.replace(alone, **{entry: getattr(known, entry) for entry in later})
        try:
            folder.check(resolve(alone))
            return
        except UsageError as error:
            found.append(str(error))
    nearest = min(found, key=len)  # of the peer that it differs from in least
    raise UsageError(f"no baseline can be trained beside the run: {nearest}")


def baseline_beside(run: Path, recipe: Recipe, index: int) -> Baseline | None:
    """What was trained beside a run of this recipe with its network number ``index`` alone; None where nothing was."""
    folder = RunFolder(folder_alone(run))
    try:
        result, found = folder.result(), folder.recipe()
    except CollegiumError:
        return None
    names = parse_peers(recipe.peers)
    frozen = trained_names(RunFolder(run).peer(f"peer{index}")) if recipe.freeze is not None else ()
    alone = recipe_alone(recipe, names[index], index, frozen)
    same = dataclasses.replace(found, method=alone.method, **_unimportant(alone)) == alone
    if result is None or found.method_name != BASELINE or not same:
        return None
    return Baseline(float(result["predictors"]["peer0"]["last"]["top1_error"]), str(folder.path))


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
    together = clips_together(alone) or alone.patience is not None
    for outcome in opened.outcomes():
        recipe = outcome.cell.recipe
        names = parse_peers(recipe.peers)
        if outcome.result is None or alone.peers not in names or (len(names) > 1 and together):
            continue
        k = index if names[index : index + 1] == [alone.peers] else names.index(alone.peers)
        own = {"peers": alone.peers, "start_from": _start_of(recipe, k), **_unimportant(alone)}
        same = dataclasses.replace(recipe, **own)
        if resolve(same).differences(resolve(alone)):
            continue
        error = outcome.result["predictors"][f"peer{k}"]["last"]["top1_error"]
        return Baseline(float(error), f"peer{k} of {opened.run_folder(outcome.cell).path}")
    return None


def _unimportant(recipe: Recipe) -> dict[str, Any]:
    names = NO_MATTER if recipe.patience is not None else (*NO_MATTER, "evaluate_every")
    return {name: getattr(recipe, name) for name in names}
