"""Finished runs of `collegium train` as the rows of a study: what is one row, and which rows may be compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from collegium.errors import UsageError
from collegium.networks.names import parse_peers
from collegium.results.finished import Finished, finished_runs
from collegium.study.cell import Cell
from collegium.study.grid import BASELINE
from collegium.study.plan import Contrast, Plan
from collegium.study.study import Outcome, all_references
from collegium.training.run_folder import RunFolder
from collegium.user_code import never

_OF_THE_NAME = ("method", "data", "peers", "teacher")
_FAIR = ("epochs", "patience", "start_from")
"""Entries that rows must have in common to be compared, besides peers and data."""


@dataclass(frozen=True)
class FinishedRuns:
    """Runs that exist, for :func:`collegium.results.comparison.findings`, as a study that is done.

    Args:
        folder: where the table and the page may be written.
        cells: the runs.
        folders: of the runs, in the order of ``cells``.
        results: the content of their result.json.
        reference: row -> the row that it is compared with.
        trunk_reference: row -> a second one, on the same trunk.
        left_out: run -> why it is not in the table.
        not_compared: row -> why it is compared with no other.
    """

    folder: Path
    cells: tuple[Cell, ...]
    folders: tuple[Path, ...]
    results: tuple[Mapping[str, Any], ...]
    reference: Mapping[str, str]
    trunk_reference: Mapping[str, str]
    left_out: Mapping[str, str]
    not_compared: Mapping[str, str]
    plan: Plan | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The rows, in order."""
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def references(self) -> list[Contrast]:
        """Every row with what it is compared with, in the order of rows."""
        return all_references(self.labels, self.reference, self.trunk_reference)

    def outcomes(self) -> list[Outcome]:
        """Every run, which is done."""
        return [Outcome(cell, "done", dict(found)) for cell, found in zip(self.cells, self.results, strict=True)]

    def run_folder(self, cell: Cell) -> RunFolder:
        return RunFolder(self.folders[self.cells.index(cell)])

    def added_later(self, cell: Cell) -> bool:
        """Nothing was planned."""
        return False

    def error(self, cell: Cell) -> str | None:
        """None has failed."""
        return None


def read_runs(paths: Sequence[str | Path], folder: Path) -> FinishedRuns:
    """The finished runs among these folders and beneath them, as rows.

    Runs that differ in their seeds alone are one row. Rows are called by the method with its options, and by the
    entries of the recipe in which rows differ: "dml:temperature=3:epochs=40". A row is compared with ``independent``
    networks: of the same peers, or the same network alone where those do not exist; on the same data, for as many
    epochs. Runs that cannot be read are left out, with the reason.

    Args:
        paths: folders of runs, of studies, or folders that hold such.
        folder: where the table may be written.

    Raises:
        UsageError: a folder does not exist, or none holds a finished run.
    """
    left_out: dict[str, str] = {}
    found: list[Finished] = []
    with never():  # what lies there may be anybody's
        for path in dict.fromkeys(Path(path).expanduser() for path in paths):
            if not path.exists():
                raise UsageError(f"there is no folder {path}; give finished runs, or folders that hold them")
            before = len(found) + len(left_out)
            found += finished_runs(path, left_out)
            if len(found) + len(left_out) == before:
                left_out[str(path)] = _holds_no_run(path)
        kept = _of_each_seed_one(found, left_out)
        if not kept:
            reasons = "; ".join(f"{place}: {why}" for place, why in list(left_out.items())[:3])
            raise UsageError(f"there is no finished run to compare ({reasons})")
        return _rows(kept, folder, left_out)


def _holds_no_run(path: Path) -> str:
    if not path.is_dir():
        return "it is a file, not a run"
    if (path / "recipe.yaml").is_file():
        return "it is not finished; repeat the command that trains it"
    return "it holds no finished run"


def _of_each_seed_one(found: Iterable[Finished], left_out: dict[str, str]) -> list[Finished]:
    """Runs that can be paired by seed: those of a row differ in it, and on the same data equal seeds draw the same."""
    kept: list[Finished] = []
    rows: dict[str, dict[int, Finished]] = {}
    drawn: dict[tuple[str, int], Finished] = {}
    for run in found:
        seed, data = run.recipe.seed, repr((run.recipe.data_name, run.settings["data"]))
        row = rows.setdefault(run.row, {})
        first = next(iter(row.values()), run)
        same = drawn.setdefault((data, seed), run)
        if run.folder.resolve() in (other.folder.resolve() for other in row.values()):
            continue  # given twice
        if run.seeds != same.seeds:
            wrong = f"it has the seed {seed} of {same.folder}, but another split, weight seed or data seed"
            left_out[str(run.folder)] = f"{wrong}: runs are paired by --seed, so give each pair its own"
        elif _fingerprint(run) != _fingerprint(same) and None not in (_fingerprint(run), _fingerprint(same)):
            left_out[str(run.folder)] = f"it was trained on other images than {same.folder}: the data have changed"
        elif seed in row:
            left_out[str(run.folder)] = f"it has the recipe and the seed of {row[seed].folder}"
        elif set(run.result["predictors"]) != set(first.result["predictors"]):
            left_out[str(run.folder)] = f"it has other predictors than {first.folder}, which differs in the seed alone"
        else:
            row[seed] = run
            kept.append(run)
    return kept


def _fingerprint(run: Finished) -> str | None:
    return RunFolder(run.folder).fingerprint()


def _rows(runs: Sequence[Finished], folder: Path, left_out: Mapping[str, str]) -> FinishedRuns:
    first: dict[str, Finished] = {}
    for run in runs:
        first.setdefault(run.row, run)
    labels = _labels(first)
    alone_first = sorted(first, key=lambda row: first[row].recipe.method_name != BASELINE)
    order = {row: k for k, row in enumerate(alone_first)}
    ordered = sorted(runs, key=lambda run: (order[run.row], run.recipe.seed))
    reference, trunk, reasons = _references({labels[row]: first[row] for row in alone_first})
    return FinishedRuns(
        folder,
        tuple(Cell(labels[run.row], replace(run.recipe, peers=first[run.row].recipe.peers)) for run in ordered),
        tuple(run.folder for run in ordered),
        tuple(run.result for run in ordered),
        reference,
        trunk,
        left_out,
        reasons,
    )


def _labels(rows: Mapping[str, Finished]) -> dict[str, str]:
    """Row -> "dml:temperature=3:epochs=40 · 2xresnet20": what differs between rows, as a study's rows are written."""
    settings = {row: run.settings for row, run in rows.items()}
    told = {row: {f"data.{k}": v for k, v in each["data"].items()} for row, each in settings.items()}
    for row, each in settings.items():
        told[row] |= {"data": rows[row].recipe.data_name, "taught_by": each["teacher"] or None}
        told[row] |= {name: value for name, value in each.items() if name not in _OF_THE_NAME}
    names = dict.fromkeys(name for each in told.values() for name in each)
    differing = [name for name in names if len({repr(each.get(name)) for each in told.values()}) > 1]
    labels = {}
    for row, run in rows.items():
        entries = {**settings[row]["method"], **{name: told[row].get(name) for name in differing}}
        said = [f"{name}={_text(value)}" for name, value in entries.items() if value is not None]
        labels[row] = f"{':'.join([run.recipe.method_name, *said])} · {run.recipe.peers}"
    return labels


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _references(rows: Mapping[str, Finished]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Row -> what it is compared with; the same on its trunk; and why a row is not compared."""
    alone = {label: run for label, run in rows.items() if run.recipe.method_name == BASELINE}
    reference: dict[str, str] = {}
    trunk: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for label, run in rows.items():
        until = run.recipe.share_until
        if label in alone and until is None:
            continue
        others = {other: each for other, each in alone.items() if other != label and not _unfair(run, each)}
        apart = _nearest(run, {other: each for other, each in others.items() if each.recipe.share_until is None})
        sharing = _nearest(run, {o: each for o, each in others.items() if until and each.recipe.share_until == until})
        found = [near[0] for near in (apart, sharing) if len(near) == 1 and not (near is sharing and label in alone)]
        for place, other in zip((reference, trunk), found, strict=False):
            place[label] = other
        if not found and label not in alone:
            reasons[label] = _why(run, apart, alone)
    return reference, trunk, reasons


def _unfair(run: Finished, other: Finished) -> list[str]:
    """What two runs must have in common to be compared, and do not have."""
    own, others, names = run.settings, other.settings, set(parse_peers(run.recipe.peers))
    one_of_them = len(names) == 1 and {others["peers"]} == names
    wrong = [] if own["peers"] == others["peers"] or one_of_them else ["peers"]
    wrong += [] if _data(run) == _data(other) else ["data"]
    return wrong + [name.replace("_", " ") for name in _FAIR if own[name] != others[name]]


def _data(run: Finished) -> str:
    return repr((run.recipe.data_name, run.settings["data"]))


def _nearest(run: Finished, others: Mapping[str, Finished]) -> list[str]:
    """Those with the same peers before the network alone, and of these those with the fewest other settings."""
    own, distance = run.settings, {}
    for label, other in others.items():
        told = other.settings
        differing = sum(own[name] != told[name] for name in own if name not in (*_OF_THE_NAME, "share_until"))
        distance[label] = (own["peers"] != told["peers"], differing)
    return [label for label in distance if distance[label] == min(distance.values())]


def _why(run: Finished, apart: Sequence[str], alone: Mapping[str, Finished]) -> str:
    if len(apart) > 1:
        return f"{' and '.join(apart)} are equally near to its recipe: leave all but one out"
    wrong = min((_unfair(run, other) for other in alone.values()), key=len, default=[])
    if not wrong or "peers" in wrong:
        return f"no run of {BASELINE} with these peers is among them"
    return f"the runs of {BASELINE} that are nearest to it have other {' and '.join(wrong)}"
