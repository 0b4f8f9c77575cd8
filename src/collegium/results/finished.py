"""Finished runs beneath a folder, and what makes them runs of one row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collegium import data as datasets
from collegium import methods
from collegium.data.plain_files import walk
from collegium.errors import CollegiumError, UsageError
from collegium.files import inside
from collegium.networks.names import parse_peers
from collegium.options import keywords
from collegium.results import papers as tables
from collegium.results.wording import entry, method_title, networks
from collegium.schemas import read_config
from collegium.study.cell import changed
from collegium.study.study import Study
from collegium.training.recipe import Recipe
from collegium.training.result import check_fits
from collegium.training.run_folder import RunFolder

_SEEDS = ("seed", "weight_seed", "data_seed")
_ELSEWHERE = (
    "device",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "compile",
    "cuda_graphs",
    "channels_last",
)
_OF_DATA = ("workers", "split_seed", "root", "download", "verify", "memory")
"""Entries of a recipe in which runs of one row may differ: seeds, and how or where it is computed."""


@dataclass(frozen=True)
class Finished:
    """A finished run beneath the folder.

    Args:
        recipe: its recipe.
        result: the content of its result.json.
        place: where it is, in words.
        folder: where it is.
        trial: whether it is one at a reduced scale.
        teacher: the network of its frozen teacher, "" where there is none.
    """

    recipe: Recipe
    result: Mapping[str, Any]
    place: str
    folder: Path
    trial: bool
    teacher: str

    @property
    def method(self) -> str:
        """Its title with the options that are not default."""
        options = self.settings["method"]
        return method_title(self.recipe.method_name) + (f" ({entry(options)})" if options else "")

    @property
    def peers(self) -> str:
        taught = f", taught by {self.teacher}" if self.teacher else ""
        return networks(self.result["peers"]) + taught + (", shared trunk" if self.recipe.share_until else "")

    @property
    def settings(self) -> dict[str, Any]:
        """What its recipe says of the row that it belongs to: all but seeds, and how or where it is computed."""
        recipe = self.recipe
        plain = {name: value for name, value in recipe.to_dict().items() if name not in (*_SEEDS, *_ELSEWHERE)}
        plain["method"] = changed(recipe.method_options, _method_defaults(recipe.method_name))
        data = {name: value for name, value in recipe.data_options.items() if name not in _OF_DATA}
        plain["data"] = changed(data, _data_defaults(recipe.data_name))
        plain |= {"peers": ",".join(parse_peers(recipe.peers)), "teacher": self.teacher}
        plain |= {"start_from": recipe.start_from is not None}
        return plain

    @property
    def seeds(self) -> tuple[Any, ...]:
        """All that runs of one row may be drawn from, the split of the data among it."""
        recipe = self.recipe
        drawn = (recipe.seed, recipe.resolved_weight_seed, recipe.resolved_data_seed)
        return (*drawn, {**_data_defaults(recipe.data_name), **recipe.data_options}.get("split_seed"))

    @property
    def row(self) -> str:
        """Equal for runs that differ in their seeds alone."""
        names = [self.recipe.method_name, self.recipe.data_name]
        return repr([names, sorted((name, repr(value)) for name, value in self.settings.items())])


def _method_defaults(name: str) -> dict[str, Any]:
    try:
        return {option: p.default for option, p in keywords(methods.get(name), skip="spec").items()}
    except UsageError:  # a method of another version
        return {}


def _data_defaults(name: str) -> dict[str, Any]:
    try:
        return datasets.options(name)
    except UsageError:  # data from Python
        return {}


def finished_runs(folder: Path, left_out: dict[str, str]) -> Iterator[Finished]:
    """The finished runs beneath a folder, or the one that it is, and those of studies.

    What cannot be read is left out: its place and the reason go to ``left_out``. Call it within
    :func:`collegium.user_code.never`, for what lies there may be anybody's.
    """
    for place, folders, files in walk(folder):
        folders.sort()
        path = Path(place)
        short = path.name if path == folder else path.relative_to(folder).as_posix()
        if "study.yaml" not in files and "recipe.yaml" not in files:
            continue
        folders.clear()
        try:
            if "study.yaml" in files:
                study = Study.open(path)
                for outcome in study.outcomes():
                    if outcome.unreadable:
                        left_out[f"{short}, {outcome.cell.name}"] = str(outcome.error)
                    if outcome.result is not None:
                        label, run = outcome.cell.label, study.run_folder(outcome.cell)
                        trial = tables.is_trial(label)
                        teacher = _teacher(run.path)
                        recipe = outcome.cell.recipe
                        yield Finished(recipe, outcome.result, f"{short}, {label}", run.path, trial, teacher)
            else:
                result = RunFolder(path).result()
                if result is not None:
                    recipe = RunFolder(path).recipe()
                    check_fits(result, recipe, path / "result.json")
                    yield Finished(recipe, result, short, path, False, _teacher(path))
        except CollegiumError as error:
            left_out[str(path)] = str(error)


def _teacher(run: Path) -> str:
    """The network of a run's teacher, by the copy that the run keeps."""
    try:
        return str(read_config(inside(run, "teacher", "config.json"))["network"])
    except FileNotFoundError:
        return ""
