"""A grid as it is written on the command line: methods, cohorts and seeds become the cells of a study."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_type_hints

from collegium import data as datasets
from collegium import methods as registry
from collegium.errors import UsageError, nearest
from collegium.networks.names import parse_options, parse_peers
from collegium.options import check_kind, keywords
from collegium.study.cell import Cell
from collegium.study.trial import Trial
from collegium.training.recipe import Recipe
from collegium.user_code import PREFIX

BASELINE = "independent"
Vary: TypeAlias = Literal["training", "split"]

_OF_THE_GRID = ("method", "peers", "teacher", "data", "seed", "weight_seed", "data_seed")
_OF_A_ROW = [entry.name for entry in dataclasses.fields(Recipe) if entry.name not in _OF_THE_GRID]
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """A method with options: "ffl", "ffl:ekd=false", "one:share_until=stage2".

    Args:
        text: as it was written; the name of its rows.
        name: the method's.
        options: the method's.
        recipe: entries of the recipe that its rows have for themselves, such as ``share_until``.
        swept: those of them that a sweep gives to rows of every method.
    """

    text: str
    name: str
    options: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    swept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """What a study is made of.

    Args:
        cells: the runs, seed by seed.
        reference: row -> the row it is compared with: independent networks of the same cohort that share no layers;
            where there are none, those on the row's trunk.
        left_out: row that cannot be -> why.
        trunk_reference: row on a trunk -> independent networks on the same trunk, where there are both.
    """

    cells: list[Cell]
    reference: dict[str, str]
    left_out: dict[str, str]
    trunk_reference: dict[str, str]


def parse_methods(text: str) -> list[Variant]:
    """``"independent,ffl:ekd=false,module:mine.Method"``; a ";" in the text separates, and "," then belongs to values.

    An option is the method's own, or else an entry of the recipe: "independent:label_smoothing=0.1".

    Raises:
        UsageError: a method is unknown, or written twice.
    """
    variants = []
    for entry in _entries(text, ";" if ";" in text else ","):
        own = PREFIX if entry.startswith(PREFIX) else ""
        name, _, options = entry.removeprefix(own).partition(":")
        name = own + name
        registry.get(name)
        try:
            given = parse_options(options)
        except UsageError:
            raise UsageError(f"cannot read {entry!r}: write a method's options like ffl:ekd=false:ramp=0.5") from None
        own_options = keywords(registry.get(name), skip="spec")
        recipe = {key: given.pop(key) for key in list(given) if key in _OF_A_ROW and key not in own_options}
        for key, value in recipe.items():
            check_kind(f"{entry}: {key}", value, get_type_hints(Recipe)[key])
        variants.append(Variant(entry, name, given, recipe))
    return _each_once("methods", variants, [v.text for v in variants])


def parse_sweep(text: str) -> list[dict[str, Any]]:
    """``"learning_rate=0.1,0.05; weight_decay=0,0.001"`` -> the recipe's entries in each of the four combinations.

    Raises:
        UsageError: it cannot be read, or an entry is none of the recipe's, or has a value of another kind.
    """
    values: dict[str, list[Any]] = {}
    for part in _entries(text, ";"):
        name, equals, given = part.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not _entries(given, ","):
            raise UsageError(
                f"cannot read {part!r}: write a sweep like learning_rate=0.1,0.05; weight_decay=0.001,0.01"
            )
        if name not in _OF_A_ROW:
            raise UsageError(
                f"a sweep is over entries of the recipe, and none is called {name!r}{nearest(name, _OF_A_ROW)}"
            )
        if name in values:
            raise UsageError(f"the sweep names {name} twice")
        found = [parse_options(f"{name}={value}")[name] for value in _entries(given, ",")]
        for value in found:
            check_kind(f"the sweep's {name}", value, get_type_hints(Recipe)[name])
        values[name] = _each_once(f"sweep {name}", found, [str(value) for value in found])
    if not values:
        raise UsageError("the sweep names nothing: write it like learning_rate=0.1,0.05; weight_decay=0.001,0.01")
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def _swept(variant: Variant, values: dict[str, Any]) -> Variant:
    """A variant with the values of a sweep, which are told with its name."""
    twice = [name for name in values if name in variant.recipe]
    if twice:
        raise UsageError(f"{variant.text} has its own {twice[0]}, which the sweep gives too; leave one of them out")
    text = ":".join([variant.text, *(f"{name}={value}" for name, value in values.items())])
    return dataclasses.replace(variant, text=text, recipe=variant.recipe | values, swept=values)


def parse_cohorts(text: str) -> list[str]:
    """``"2xresnet32; resnet32,wrn_16_2"`` -> ``["2xresnet32", "resnet32,wrn_16_2"]``.

    Raises:
        UsageError: a cohort cannot be read, or is written twice.
    """
    cohorts = [",".join(_entries(entry, ",")) for entry in _entries(text, ";")]
    for cohort in cohorts:
        parse_peers(cohort)
    return _each_once("peers", cohorts, cohorts)


def parse_seeds(text: str) -> list[int]:
    """``"0,1,4-6"`` -> ``[0, 1, 4, 5, 6]``.

    Raises:
        UsageError: one is not a whole number, or written twice.
    """
    seeds: list[int] = []
    for entry in _entries(text, ","):
        written = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", entry, re.ASCII)
        if written is None:
            raise UsageError(f"--seeds expects whole numbers like 0,1,2 or a range like 0-7, got {entry!r}")
        first, last = int(written[1]), int(written[2] or written[1])
        if not first <= last < first + 1000:
            raise UsageError(
                f"--seeds expects a range from the lower to the higher, of up to 1000 seeds, got {entry!r}"
            )
        seeds += range(first, last + 1)
    return _each_once("seeds", seeds, [str(seed) for seed in seeds])


def make_grid(
    base: Recipe,
    methods: str,
    peers: str,
    seeds: Sequence[int],
    *,
    teacher: str | None = None,
    vary: Vary = "training",
    sweep: str | None = None,
    trial: Trial,
) -> Grid:
    """Every method with every cohort and seed.

    The recipe's ``share_until`` holds for every method but ``independent``, and a variant's own before it, that of
    ``independent`` too: "independent:share_until=stage2" are networks on a trunk that do not teach each other. Where
    neither is given and a method needs a trunk, they share all stages but the last. A method that does not fit one
    cohort, but another, is left out there, and the reason is kept.

    Args:
        base: all that the runs have in common.
        methods: as for :func:`parse_methods`.
        peers: as for :func:`parse_cohorts`.
        seeds: of the runs.
        teacher: for methods that learn from one: a network's name, which is trained alone under the same recipe with
            each seed, or the path of a finished run or of a peer's folder.
        vary: what a run's seed draws: initial weights, order and augmentation ("training"), or the split of the data
            too ("split"): which images are held out and taken, and which labels are made wrong. Every method gets the
            same.
        sweep: as for :func:`parse_sweep`; every method has rows with each combination, which are compared with
            ``independent`` of the same.
        trial: finds out what fits.

    Raises:
        UsageError: the grid is empty, something in it does not exist, or a method or a cohort fits nothing.
        DataError: the data cannot be read.
    """
    variants, cohorts = parse_methods(methods), parse_cohorts(peers)
    combinations = [{}] if sweep is None else parse_sweep(sweep)
    variants = [_swept(variant, values) if values else variant for values in combinations for variant in variants]
    for what, entries in (("--methods", variants), ("--peers", cohorts), ("--seeds", seeds)):
        if not entries:
            raise UsageError(f"the grid is empty: {what} names nothing")
    taught = [v for v in variants if registry.get(v.name).learns_from_teacher()]
    if teacher is not None and not taught:
        raise UsageError(f"none of the methods {methods} learns from a teacher; leave --teacher out")
    trained = teacher if teacher is not None and not Path(teacher).expanduser().exists() else None
    plain = dataclasses.replace(base, share_until=None, teacher=None)
    alone = None if trained is None else _recipe(plain, Variant(BASELINE, BASELINE, {}), trained)

    rows: dict[str, tuple[Recipe, str | None]] = {}
    reasons, owner = {}, {}
    combination: dict[str, int] = {}  # of each row
    if alone is not None and trained is not None:
        trial.build(alone)
        rows[f"teacher · {trained}"] = (alone, None)
    for cohort in cohorts:
        for variant in variants:
            label = f"{variant.text} · {cohort}"
            owner[label] = variant.text, cohort
            combination[label] = combinations.index(variant.swept)
            recipe = _recipe(dataclasses.replace(base, teacher=None), variant, cohort)
            if variant in taught and trained is None:
                recipe = dataclasses.replace(recipe, teacher=teacher)
            by = trained if variant in taught else None
            try:
                rows[label] = _fitting(recipe, by, trial), by and f"teacher · {by}"
            except UsageError as error:
                reasons[label] = _of_a_row(str(error), variant.text)
    _refuse_what_fits_nothing(reasons, owner)
    if vary == "split":
        _check_split(base)
    reference: dict[str, str] = {}
    trunk_reference: dict[str, str] = {}
    for number, values in enumerate(combinations):
        alike = {label: rows[label][0] for label in owner if label in rows and combination[label] == number}
        first, second = _references(alike, dataclasses.replace(plain, **values))
        reference |= first
        trunk_reference |= second
    cells = [
        Cell(label, _seeded(recipe, seed, vary), taught_by)
        for seed in seeds
        for label, (recipe, taught_by) in rows.items()
    ]
    return Grid(cells, reference, reasons, trunk_reference)


def _of_a_row(sentence: str, row: str) -> str:
    """A sentence that names a run's options, with what a row of a study has in their place."""
    option = r"--(?:method\.(\w+)|share-until) (\w+(?:\.\w+)*)"
    return re.sub(option, lambda found: f"{row}:{found[1] or 'share_until'}={found[2]}", sentence)


def _references(rows: dict[str, Recipe], base: Recipe) -> tuple[dict[str, str], dict[str, str]]:
    """Row -> the first and the second row that it is compared with: independent peers under the grid's own recipe."""
    alone = {
        (r.peers, r.share_until): label
        for label, r in rows.items()
        if r == _recipe(base, Variant("", BASELINE, {}, {"share_until": r.share_until}), r.peers)
    }
    reference: dict[str, str] = {}
    trunk_reference: dict[str, str] = {}
    for label, recipe in rows.items():
        for until in dict.fromkeys((None, recipe.share_until)):
            other = alone.get((recipe.peers, until))
            if other not in (None, label):
                (trunk_reference if label in reference else reference)[label] = other
    return reference, trunk_reference


def _seeded(recipe: Recipe, seed: int, vary: Vary) -> Recipe:
    split = {"split_seed": seed} if vary == "split" else {}
    return dataclasses.replace(recipe, seed=seed, data={**recipe.data, **split})


def _check_split(base: Recipe) -> None:
    """Raises UsageError unless a seed can choose the split of the recipe's data."""
    if base.data_options.get("split_seed"):
        raise UsageError("--vary split takes the split's seed from --seeds: leave out --data.split-seed")
    drawn = ("validation", "per_class", "label_noise")
    if "split_seed" not in datasets.own_options(base.data_name) and not any(map(base.data_options.get, drawn)):
        raise UsageError(
            f"--vary split has nothing to draw: all of {base.data_name}'s training images are used as they are; "
            "take some of them with --data.per-class, or make labels wrong with --data.label-noise"
        )


def _recipe(base: Recipe, variant: Variant, peers: str) -> Recipe:
    kept = base.method_options if base.method_name == variant.name else {}
    shared = None if variant.name == BASELINE or len(parse_peers(peers)) == 1 else base.share_until
    method = {"name": variant.name} | kept | variant.options
    return dataclasses.replace(base, **{"method": method, "peers": peers, "share_until": shared} | variant.recipe)


def _fitting(recipe: Recipe, teacher: str | None, trial: Trial) -> Recipe:
    """The recipe, on a trunk of all stages but the last if it says nothing of a trunk and needs one."""
    trial.names(recipe)
    try:
        trial.build(recipe, teacher)
        return recipe
    except UsageError as error:
        if recipe.share_until is not None or len(parse_peers(recipe.peers)) == 1:
            raise
        apart = error
    first = dataclasses.replace(recipe, method={"name": BASELINE}, peers=parse_peers(recipe.peers)[0])
    stages = trial.build(first).learner.cohort.peer(0).stage_names
    if len(stages) < 2:
        raise apart
    shared = dataclasses.replace(recipe, share_until=stages[-2])
    try:
        trial.build(shared, teacher)
        return shared
    except UsageError as error:
        same = str(error) == str(apart)
        raise UsageError(f"{apart}" + ("" if same else f"; and on a trunk, {error}")) from error


def _refuse_what_fits_nothing(reasons: dict[str, str], owner: dict[str, tuple[str, str]]) -> None:
    for part in (0, 1):
        for entry in dict.fromkeys(named[part] for named in owner.values()):
            labels = [label for label, named in owner.items() if named[part] == entry]
            if all(label in reasons for label in labels):
                raise UsageError(f"{labels[0]}: {reasons[labels[0]]}")


def _entries(text: str, separator: str) -> list[str]:
    return [entry.strip() for entry in text.split(separator) if entry.strip()]


def _each_once(what: str, values: list[T], texts: list[str]) -> list[T]:
    twice = next((text for k, text in enumerate(texts) if text in texts[:k]), None)
    if twice is not None:
        raise UsageError(f"--{what} names {twice} twice")
    return values
