"""The values that are ranked: those of finished runs beneath a folder, and the published ones."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from collegium import data as datasets
from collegium import methods
from collegium.cohort import AVERAGED, is_peer
from collegium.errors import UsageError
from collegium.networks.names import parse_peers
from collegium.results import papers as tables
from collegium.results.finished import Finished, finished_runs
from collegium.results.published import LACKING, Published, published
from collegium.results.scores import METRICS, all_predictors, last, uneven
from collegium.results.statistics import ranks, spread
from collegium.results.wording import entry, networks
from collegium.training.recipe import Recipe
from collegium.training.result import trained_epochs
from collegium.user_code import never

Origin = Literal["ours", "published"]
Deployed = Literal["one network", "several networks", "not known"]
DEPLOYED = ("one network", "several networks", "not known")

TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167, "tiny_imagenet": 100_000}
_RANKED = ("top1_error", "top5_error", "overall_accuracy", "average_accuracy", "kappa", "class_accuracy")
RANKED = {METRICS[key].name: METRICS[key] for key in _RANKED}
"""What is ranked, by name and in order; all are in percent."""

TRIAL = "a trial at a reduced scale"


@dataclass(frozen=True)
class Standing:
    """One value of the ranking.

    Args:
        origin: a run beneath the folder, or a paper.
        method: its name, with the options that are not default; of a paper as it is printed.
        data: the data set.
        network: what is deployed, or what the deployed networks are.
        peers: what trained together.
        metric: a key of RANKED.
        predictor: what was scored.
        deployed: how many networks that takes.
        value: in percent.
        std: its sample standard deviation in points; None where it is not known.
        n: over how many runs; None where that is not known.
        epochs: of training, which may have stopped early, mean over the runs; None where that is not known.
        images: to train on; None where that is not known.
        certainty: of a published value, a key of :data:`collegium.results.published.CERTAINTY`; else "".
        source: where the value is from.
        link: to the paper, "" where there is none.
        remark: why it is not compared with others at all, "" where it is.
        scores: of our runs: what they are drawn from -> value in percent.
        rank: within its group, from 1, see :func:`collegium.results.statistics.ranks`; None where it cannot be ordered.
        tied: whether others have the same rank.
    """

    origin: Origin
    method: str
    data: str
    network: str
    peers: str
    metric: str
    predictor: str
    deployed: Deployed
    value: float
    std: float | None
    n: int | None
    epochs: int | None
    images: int | None
    certainty: str
    source: str
    link: str = ""
    remark: str = ""
    scores: Mapping[tuple[Any, ...], float] = field(default_factory=dict)
    rank: int | None = None
    tied: bool = False

    @property
    def unranked(self) -> str:
        """Why it has no rank, "" where it has one."""
        if self.rank is not None or self.remark:
            return self.remark
        if self.origin == "published":
            return "its runs are not at hand, so it cannot be ordered"
        return "a single run cannot be ordered" if len(self.scores) < 2 else "no other row here has two seeds or more"

    @property
    def group(self) -> tuple[str, str, str, str, int]:
        """Values of one group are ranked with each other: data, network, metric, what is deployed, training images."""
        return self.data, self.network, self.metric, self.deployed, self.images or 0


def of_papers() -> list[Standing]:
    """Every published value."""
    return [_of_paper(number) for number in published()]


def _of_paper(number: Published) -> Standing:
    table = tables.get(number.table)
    flipped = number.metric == "top1_accuracy"  # ranked as the error that it leaves
    remark = ""
    if number.predictor == "unknown":
        remark = "the source does not say what was scored"
    elif number.network == "unknown":
        remark = "the source does not name the network"
    elif number.statistic == "best run":
        remark = "the best of several runs"
    taught = f", taught by {number.teacher}" if number.teacher else ""
    trunk = ", shared trunk" if number.trunk == "yes" else ""
    return Standing(
        origin="published",
        method=number.method,
        data=number.data,
        network=number.network,
        peers=_peers(number) + taught + trunk,
        metric=METRICS["top1_error" if flipped else number.metric].name,
        predictor=number.predictor,
        deployed=deployed(number.predictor, ["leader"]),
        value=100 - number.value if flipped else number.value,
        std=None if math.isnan(number.std) else number.std,
        n=1 if number.statistic == "one run" else None,
        epochs=table.epochs,
        images=TRAINING_IMAGES.get(number.data),
        certainty=number.certainty,
        source=f"{number.table}: {number.source}" + (f" (printed as accuracy, {number.value:.2f})" if flipped else ""),
        link=table.link,
        remark=remark,
    )


def _peers(number: Published) -> str:
    if len(number.networks) > 1:
        return networks(number.networks)
    name = number.networks[0]
    return name if number.peers in ("", "1") else f"{number.peers} × {name}"


def deployed(predictor: str, one_network: Sequence[str]) -> Deployed:
    """How many networks a predictor takes; ``one_network`` names those of a method's own that are one."""
    if predictor == "unknown":
        return "not known"
    single = is_peer(predictor.removesuffix(AVERAGED)) or predictor == "mean_peer" or predictor in one_network
    return "one network" if single else "several networks"


def _data_title(recipe: Recipe) -> str:
    try:
        return datasets.title(recipe.data_name, recipe.data_options)
    except UsageError:  # data from Python
        return recipe.data_name


def of_runs(folder: str | Path) -> tuple[list[Standing], dict[str, str]]:
    """The values of every finished run beneath a folder, and what was left out, with the reason.

    Runs that differ in their seeds alone are one row, and so are equal runs in several folders.

    Raises:
        UsageError: there is no such folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give one that holds studies or runs")
    left_out: dict[str, str] = {}
    rows: dict[str, dict[tuple[Any, ...], Finished]] = {}
    with never():  # what lies beneath the folder may be anybody's
        for run in finished_runs(folder, left_out):
            row = rows.setdefault(run.row, {})
            first = next(iter(row.values()), run)
            if set(run.result["predictors"]) != set(first.result["predictors"]):
                left_out[run.place] = f"it has other predictors than {first.place}, which differs in the seed alone"
            else:
                row.setdefault(run.seeds, run)
        found = [list(runs.values()) for runs in rows.values()]
        return [standing for runs in found for standing in _of_row(runs, _told_apart(runs[0], found))], left_out


def _told_apart(run: Finished, rows: Sequence[Sequence[Finished]]) -> str:
    """Where another row has the same method, peers, data and length: what else differs between them."""

    def look(other: Finished) -> tuple[object, ...]:
        return other.method, other.peers, other.recipe.data_name, other.recipe.epochs, other.result["training_images"]

    alike = [row[0].settings for row in rows if look(row[0]) == look(run)]
    differing = [name for name, value in run.settings.items() if any(other[name] != value for other in alike)]
    return ", ".join(f"{name.replace('_', ' ')} {entry(run.settings[name])}" for name in differing)


def _networks_with_start(run: Finished) -> list[str]:
    """The peers' networks; of those that started from a file of weights it is said."""
    asked = parse_peers(run.recipe.peers)
    return [
        f"{name.partition(':weights=')[0]} (weights of a file)" if ":weights=" in given else name
        for name, given in zip(run.result["peers"], asked, strict=True)
    ]


def _of_row(runs: Sequence[Finished], told_apart: str) -> Iterator[Standing]:
    """Every predictor and metric of runs that differ in the seed alone."""
    first, names = runs[0], _networks_with_start(runs[0])
    one_network = _one_network(first.recipe.method_name)
    for predictor in _predictors(first.result):
        base = predictor.removesuffix(AVERAGED)
        index = int(base.removeprefix("peer")) if is_peer(base) else one_network.get(predictor, 0)
        index = index if index < len(names) else 0
        kind = deployed(predictor, list(one_network))
        several = len(set(names)) > 1 and kind == "several networks"
        for metric in _metrics(first.result):
            values = [last(run.result, predictor, metric) for run in runs]
            found = spread(values)
            yield Standing(
                origin="ours",
                method=first.method + (f", {told_apart}" if told_apart else ""),
                data=_data_title(first.recipe),
                network=networks(names) if several else names[index],
                peers=first.peers,
                metric=METRICS[metric].name,
                predictor=predictor,
                deployed=kind,
                value=found.mean,
                std=found.std,
                n=found.n,
                epochs=round(fmean(trained_epochs(run.result) for run in runs)),
                images=int(first.result["training_images"]),
                certainty="",
                source=f"{_places(runs)}: {_settings(first.recipe)}",
                remark=TRIAL if any(run.trial for run in runs) else "",
                scores={run.seeds: value for run, value in zip(runs, values, strict=True)},
            )


def _predictors(result: Mapping[str, Any]) -> list[str]:
    """Those that say something of their own: peers of one kind are told by their mean."""
    several, alike = len(result["peers"]) > 1, len(set(result["peers"])) == 1
    silent = {"mean_peer"} if not alike else set()
    if not several:
        silent = {"mean_peer", "ensemble"}
    return [p for p in all_predictors(result) if p not in silent and not (is_peer(p) and several and alike)]


def _one_network(method: str) -> dict[str, int]:
    try:
        return dict(methods.get(method).one_network)
    except UsageError:  # a method of another version
        return {}


def _metrics(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that are ranked; those by class where classes are uneven."""
    if uneven(result.get("test_images_per_class") or [1]):
        return "overall_accuracy", "average_accuracy", "kappa"
    return "top1_error", "top5_error"


def _places(runs: Sequence[Finished]) -> str:
    places = list(dict.fromkeys(run.place for run in runs))
    return places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"


def _settings(recipe: Recipe) -> str:
    return (
        f"{recipe.optimizer} {recipe.learning_rate:g}, batches of {recipe.batch_size}, weight decay "
        f"{recipe.weight_decay:g}, {recipe.schedule} schedule"
    )


def ranked(standings: Iterable[Standing]) -> dict[tuple[str, str, str, str, int], list[Standing]]:
    """Group -> its values, see :func:`in_order`. Large groups come first."""
    groups: dict[tuple[str, str, str, str, int], list[Standing]] = {}
    for standing in standings:
        groups.setdefault(standing.group, []).append(standing)
    ordered = sorted(groups.items(), key=lambda item: _place(item[0], len(item[1])))
    return {key: in_order(group) for key, group in ordered}


def in_order(group: Sequence[Standing]) -> list[Standing]:
    """A group by its values, the best first, with ranks; what is not compared with others comes last.

    Ranks are those of our rows of two seeds or more, where there are two such rows. All else is placed by its value
    alone: without its runs nobody can tell whether it is better than its neighbours.
    """
    sign = 1 if RANKED[group[0].metric].better == "lower" else -1
    placed = sorted(group, key=lambda s: (bool(s.remark), sign * s.value, s.origin, s.method))
    tested = [k for k, s in enumerate(placed) if not s.remark and len(s.scores) > 1]
    if len(tested) > 1:
        found = ranks([{seed: -sign * value for seed, value in placed[k].scores.items()} for k in tested])
        for k, rank in zip(tested, found, strict=True):
            placed[k] = replace(placed[k], rank=rank, tied=found.count(rank) > 1)
    return placed


def _place(key: tuple[str, str, str, str, int], size: int) -> tuple[object, ...]:
    data, network, metric, deployed, images = key
    reduced = images < TRAINING_IMAGES.get(data, 0)
    return (
        reduced,
        data,
        network in LACKING,
        network,
        list(RANKED).index(metric),
        DEPLOYED.index(deployed),
        -images,
        -size,
    )
