"""The papers' tables as studies: what is trained for a table, and which published number it stands beside.

A paper is a file of papers/. A row of a table names the method, and the published numbers of that table
(:mod:`collegium.results.published`) say which networks, data sets and peers it is trained with.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from collegium.errors import UsageError, nearest
from collegium.results.published import Published, in_table
from collegium.study.cell import Cell
from collegium.training.recipe import Recipe
from collegium.yaml_text import read_yaml

FOLDER = Path(__file__).parent

WITHOUT_NUMBERS = {
    "codistillation": "its paper has no tables on images of this kind",
    "ffcl": "only the abstract of its paper is public, and it has no numbers",
    "mfef": "only the abstract of its paper is public, and it has no numbers",
}
"""Methods of the library of which no table is known."""

IMAGES_PER_CLASS = {"cifar10": 5000, "cifar100": 500, "imagenet": 1281}
SMALLEST_CLASS = {"imagenet": 732}
COUNTED_IN_STEPS = ("interval",)
"""Options of methods that are numbers of steps, of which a scaled epoch has fewer."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Args:
        label: its name.
        published: the methods, as they are printed, that it stands beside; by default the label.
        method: the method's name and its options.
        peers: how many, where the source does not say.
        trunk: whether like peers share a trunk, where the source does not say.
        share_until: the last stage that they then share, by default the last but one.
        missing: why it is not trained, "" where it is.
    """

    label: str
    published: tuple[str, ...]
    method: Mapping[str, Any] = field(default_factory=dict)
    peers: int | None = None
    trunk: bool | None = None
    share_until: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Target:
    """One published number of a table, and the run that stands beside it.

    Args:
        row: the row that it stands in.
        number: the published one.
        label: the label of the cells, "" where there are none.
        missing: why there are none.
    """

    row: PaperRow
    number: Published
    label: str
    missing: str


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Args:
        name: "ffl/table1a".
        title: what it shows.
        reference: the paper.
        link: where to read it, "" where that is not known.
        study: the name of the study's folder; tables of the same runs have the same.
        recipe: what all its runs have in common.
        epochs: how long the authors trained, None where that is not known.
        for_networks: network -> what differs in the recipe of a run whose number is that network's.
        rows: in order.
        certain: what is known of the recipe, in sentences.
        reconstructed: what is not.
    """

    name: str
    title: str
    reference: str
    link: str
    study: str
    recipe: Mapping[str, Any]
    epochs: int | None
    for_networks: Mapping[str, Mapping[str, Any]]
    rows: tuple[PaperRow, ...]
    certain: tuple[str, ...]
    reconstructed: tuple[str, ...]

    def targets(self, scale: float = 1.0) -> list[Target]:
        """Every row with every published number that it stands beside."""
        numbers = in_table(self.name)
        return [
            Target(row, number, "" if why else self._label(row, number, scale), why)
            for row in self.rows
            for number in numbers
            if number.method in row.published
            for why in [self._missing(row, number)]
        ]

    def _missing(self, row: PaperRow, number: Published) -> str:
        if row.missing or number.lacking:
            return row.missing or number.lacking
        return "the source does not say which predictor it is of" if number.predictor == "unknown" else ""

    def cells(self, seeds: Sequence[int] = (0,), scale: float = 1.0) -> list[Cell]:
        """The runs behind the table; none where nothing of it can be trained.

        Args:
            seeds: every row is trained with each.
            scale: the share of epochs and of training images, see :func:`scaled`.

        Raises:
            UsageError: the scale is not a share, or too large for a reduced ImageNet.
        """
        _check_scale(scale)
        made: dict[tuple[str, int], Cell] = {}
        for seed in seeds:
            for target in self.targets(scale):
                if target.missing:
                    continue
                teacher = None
                if target.number.teacher:
                    cell = self._teacher(target.number, seed, scale)
                    teacher = made.setdefault((cell.label, seed), cell).label
                recipe = scaled(self._recipe(target.row, target.number, seed), scale)
                made.setdefault((target.label, seed), Cell(target.label, recipe, teacher))
        return list(made.values())

    def _label(self, row: PaperRow, number: Published, scale: float) -> str:
        several = len({other.data for other in in_table(self.name)}) > 1
        return " · ".join([row.label, *([number.data] if several else []), *mark(scale), peers(row, number)])

    def _teacher(self, number: Published, seed: int, scale: float) -> Cell:
        recipe = _merged(self.recipe, {"method": {"name": "independent"}, "data": {"name": number.data}})
        recipe |= {"peers": number.teacher, "seed": seed}
        label = " · ".join(["teacher", *mark(scale), number.teacher])
        return Cell(label, scaled(Recipe.from_dict(recipe, self.name), scale))

    def _recipe(self, row: PaperRow, number: Published, seed: int) -> Recipe:
        own = self.for_networks.get(number.network, {})
        recipe = _merged(self.recipe, {"method": row.method, "data": {"name": number.data}})
        recipe = _merged(recipe, own) | {"peers": peers(row, number), "seed": seed}
        shares = (number.trunk == "yes" if row.trunk is None else row.trunk) and len(set(number.networks)) == 1
        if shares and _count(row, number) > 1:
            recipe["share_until"] = row.share_until or last_shared(number.networks[0])
        return Recipe.from_dict(recipe, self.name)


def _merged(recipe: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both; of method and data their options together."""
    both = {key: {**recipe.get(key, {}), **own.get(key, {})} for key in ("method", "data")}
    return {**recipe, **own, **both}


def _count(row: PaperRow, number: Published) -> int:
    if len(number.networks) > 1:
        return len(number.networks)
    return row.peers if row.peers is not None and number.peers != "1" else int(number.peers)


def peers(row: PaperRow, number: Published) -> str:
    """The peers of a row beside a published number, as a recipe names them."""
    count = _count(row, number)
    if len(number.networks) > 1:
        return ",".join(number.networks)
    return number.networks[0] if count == 1 else f"{count}x{number.networks[0]}"


def last_shared(network: str) -> str:
    """The last stage that like peers share, as in FFL, ONE and OKDDip: all but the last of their own."""
    four_stages = network.startswith(("vgg", "shufflenet", "mobilenet", "torchvision/"))
    return "stage3" if four_stages else "stage2"


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """A trial of a recipe: the same share of epochs and of each class's training images, each at least 1, rounded.

    Drops and ramps keep their places, which are shares of training; a method's numbers of steps shrink too. A trial is
    scored after its last epoch alone.

    Raises:
        UsageError: the scale is not above 0 and at most 1, or the data set cannot be scaled so.
    """
    _check_scale(scale)
    if scale == 1:
        return recipe
    name = recipe.data_name
    per_class = max(1, round(scale * IMAGES_PER_CLASS[name]))
    if per_class > SMALLEST_CLASS.get(name, per_class):
        smallest = SMALLEST_CLASS[name]
        raise UsageError(
            f"--scale {scale:g} takes {per_class} images of each class of {name}, whose smallest has {smallest}: "
            f"take at most {smallest / IMAGES_PER_CLASS[name]:.2f}, or 1"
        )
    method = {
        key: max(1, round(scale * value)) if key in COUNTED_IN_STEPS else value for key, value in recipe.method.items()
    }
    epochs = max(1, round(scale * recipe.epochs))
    data = {**recipe.data, "per_class": per_class}
    return dataclasses.replace(recipe, method=method, data=data, epochs=epochs, evaluate_every=epochs)


def _check_scale(scale: float) -> None:
    if not 0 < scale <= 1:
        raise UsageError(f"--scale is a share above 0 and at most 1, not {scale:g}")


def mark(scale: float) -> list[str]:
    """What labels say of a trial: ``["2 % trial"]``; nothing of a whole study."""
    return [] if scale == 1 else [f"{100 * scale:g} % trial"]


def is_trial(label: str) -> bool:
    """Whether a cell's label says so."""
    return any(part.endswith("% trial") for part in label.split(" · "))


@cache
def papers() -> dict[str, list[PaperTable]]:
    """Paper -> its tables, in the order of names."""
    return {file.stem: _read(file) for file in sorted(FOLDER.glob("*.yaml"))}


def names() -> list[str]:
    """The names of all tables."""
    return [table.name for tables in papers().values() for table in tables]


def get(name: str) -> PaperTable:
    """The table of this name.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    found = {table.name: table for tables in papers().values() for table in tables}
    if name in found:
        return found[name]
    paper = name.partition("/")[0]
    if paper in WITHOUT_NUMBERS:
        raise UsageError(f"no published table of {paper} is known: {WITHOUT_NUMBERS[paper]}")
    if paper in papers():
        own = ", ".join(table.name for table in papers()[paper])
        raise UsageError(f"there is no table {name!r}; known are: {own}")
    raise UsageError(f"there is no table {name!r}{nearest(name, list(found))}")


def _read(file: Path) -> list[PaperTable]:
    paper = read_yaml(file, aliases=True)
    shared = {key: paper.get(key, default) for key, default in (("recipe", {}), ("certain", []), ("reconstructed", []))}
    tables = []
    for key, own in paper["tables"].items():
        known = {"title", "study", "recipe", "epochs_known", "for_networks", "rows", "certain", "reconstructed"}
        assert set(own) <= known, f"{file.name}: {key} has {sorted(set(own) - known)}"
        name = f"{file.stem}/{key}"
        recipe = shared["recipe"] | own.get("recipe", {})
        epochs_known = own.get("epochs_known", paper.get("epochs_known", True))
        tables.append(
            PaperTable(
                name=name,
                title=own["title"],
                reference=paper["reference"],
                link=paper.get("link", ""),
                study=f"{file.stem}/{own.get('study', key)}",
                recipe=recipe,
                epochs=recipe.get("epochs") if epochs_known else None,
                for_networks=own.get("for_networks", {}),
                rows=tuple(_row(label, row) for label, row in own["rows"].items()),
                certain=(*shared["certain"], *own.get("certain", ())),
                reconstructed=(*shared["reconstructed"], *own.get("reconstructed", ())),
            )
        )
    return tables


def _row(label: str, row: Mapping[str, Any]) -> PaperRow:
    method = row.get("method", {})
    values = {"published": (label,), **row, "method": {"name": method} if isinstance(method, str) else method}
    return PaperRow(label=label, **cast(dict[str, Any], values | {"published": tuple(values["published"])}))
