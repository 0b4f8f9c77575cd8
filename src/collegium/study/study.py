"""The folder of a study: a grid of runs, and how far each of them is.

study.yaml      every cell of the grid, what its row is compared with, the plan, versions
runs/KEY/       an ordinary run, of `collegium train`
errors/KEY.txt  why a run failed or broke: one sentence, and the traceback
logs/KEY.txt    what a run's process printed
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from collegium import networks
from collegium.errors import CollegiumError, UsageError
from collegium.files import inside, locked, read_bounded, storing, write_whole
from collegium.schemas import STUDY, fault
from collegium.study.cell import ELSEWHERE, Cell
from collegium.study.executors.local import Event, Executor, Job, LocalExecutor
from collegium.study.plan import Contrast, Plan, PlanOptions, check_unchanged, make_plan
from collegium.study.trial import Trial
from collegium.training.experiment import resolve
from collegium.training.provenance import provenance
from collegium.training.recipe import Recipe, told
from collegium.training.result import check_fits
from collegium.training.run_folder import RunFolder
from collegium.user_code import Untrusted, consents
from collegium.yaml_text import read_yaml, write_yaml

State = Literal["done", "failed", "broken", "waiting"]


@dataclass(frozen=True)
class Outcome:
    """How far a cell is.

    Args:
        cell: the run.
        state: "done"; "failed", it ended in an error; "broken", it was interrupted or killed and can go on;
            "waiting", it has not begun.
        result: the content of result.json where it is done.
        error: why it failed or broke, or what it waits for, in a sentence.
        unreadable: whether it broke because its files are damaged, or are those of another run.
    """

    cell: Cell
    state: State
    result: dict[str, Any] | None = None
    error: str | None = None
    unreadable: bool = False


class View(AbstractContextManager[Any], Protocol):
    """What shows a person how a study goes, see :class:`collegium.study.live.LiveView`."""

    def happened(self, cell: Cell, event: Event) -> None:
        """Something happened to a run."""


class Study:
    """A grid of runs in one folder. What is written there already is kept; cells may be added to it.

    Args:
        folder: its folder.
        cells: the grid; those that the folder holds besides are kept before them.
        reference: row -> the row that it is compared with: {"ffl · 2xresnet20": "independent · 2xresnet20"}.
        left_out: row that cannot be -> why, for whoever reads the table.
        trunk_reference: row -> a second one, on the same trunk.

    Raises:
        UsageError: the grid is empty or contradicts itself, or the folder holds something else. Nothing is written.
    """

    def __init__(
        self,
        folder: str | Path,
        cells: Sequence[Cell],
        *,
        reference: Mapping[str, str] | None = None,
        left_out: Mapping[str, str] | None = None,
        trunk_reference: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.runs, self.errors, self.logs = (self.folder / part for part in ("runs", "errors", "logs"))
        self.file = self.folder / "study.yaml"
        before: list[Cell] = []
        self.reference: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.trunk_reference: dict[str, str] = {}
        self.plan: Plan | None = None
        self.provenance: dict[str, Any] = {}
        if self.file.is_file():
            before = self._read()
        elif self.folder.exists() and (not self.folder.is_dir() or _holds_something(self.folder)):
            raise UsageError(f"{self.folder} holds something that is no study; choose another folder with --study")
        self.cells = _merged(self.folder, before, cells)
        self.reference |= dict(reference or {})
        self.left_out |= dict(left_out or {})
        self.trunk_reference |= dict(trunk_reference or {})
        self.provenance = self.provenance or provenance(torch.device("cpu"))
        if not self.cells:
            raise UsageError("the grid is empty: a study needs at least one method, one cohort of peers and one seed")
        labels = {cell.label for cell in self.cells}
        for label in (label for contrast in self.references for label in (contrast.row, contrast.against)):
            if label not in labels:
                raise UsageError(f"no row of the study is called {label!r}, which another is compared with")
        for cell in self.cells:
            if cell.teacher is not None:
                self._teacher(cell)

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """The study that lies in a folder.

        Raises:
            UsageError: none does.
        """
        if not (Path(folder).expanduser() / "study.yaml").is_file():
            raise UsageError(f"{folder} is not a study: it has no study.yaml")
        return cls(folder, [])

    @property
    def labels(self) -> list[str]:
        """The rows, in order."""
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def references(self) -> list[Contrast]:
        """Every row with what it is compared with unasked, in the order of rows."""
        return all_references(self.labels, self.reference, self.trunk_reference)

    def set_plan(self, options: PlanOptions) -> None:
        """Makes the plan that the next :meth:`write` keeps; a study that has one keeps that.

        Raises:
            UsageError: the plan is another one, runs have begun without one, or it names what does not exist.
        """
        if self.plan is not None:
            check_unchanged(self.plan, options, self.cells, self.folder)
        elif options.given:
            begun = next((cell for cell in self.cells if self.run_folder(cell).recipe_file.exists()), None)
            if begun is not None:
                given = ", ".join(f"--{name}" for name in options.given)
                raise UsageError(
                    f"{self.folder} has no plan, and a plan is made before the first run, but {begun.name} has begun; "
                    f"leave out {given}, or choose another folder with --study"
                )
            commit = provenance(torch.device("cpu"))["commit"]
            self.plan = make_plan(options, self.cells, self.references, commit=commit)

    def added_later(self, cell: Cell) -> bool:
        """Whether a run is one that the plan does not hold."""
        return self.plan is not None and not self.plan.holds(cell)

    def run_folder(self, cell: Cell) -> RunFolder:
        return RunFolder(inside(self.folder, "runs", cell.key))

    def recipe(self, cell: Cell) -> Recipe:
        """The cell's recipe with its teacher's folder; a run that has begun stays where it is computed."""
        folder = self.run_folder(cell)
        if folder.recipe_file.exists():
            return _where(cell, folder.recipe())
        if cell.teacher is None:
            return cell.recipe
        return dataclasses.replace(cell.recipe, teacher=str(self.run_folder(self._teacher(cell)).path.resolve()))

    def _teacher(self, cell: Cell) -> Cell:
        for other in self.cells:
            if (other.label, other.seed) == (cell.teacher, cell.seed) and other.teacher is None:
                return other
        raise UsageError(f"{cell.name} needs the teacher {cell.teacher!r} of the same seed, which is not in the study")

    def outcomes(self) -> list[Outcome]:
        """How far every cell is, in the grid's order."""
        found = [self.outcome(cell) for cell in self.cells]
        first: dict[str, Outcome] = {}  # row -> its first run that is done
        for k, outcome in enumerate(found):
            if outcome.result is None:
                continue
            usual = first.setdefault(outcome.cell.label, outcome)
            assert usual.result is not None
            if set(outcome.result["predictors"]) != set(usual.result["predictors"]):
                wrong = f"{self.run_folder(outcome.cell).result_file} has other predictors than {usual.cell.name} has"
                found[k] = Outcome(outcome.cell, "broken", error=wrong, unreadable=True)
        return found

    def outcome(self, cell: Cell) -> Outcome:
        """How far a cell is; one whose files cannot be used is broken."""
        try:
            result = self.result(cell)
        except CollegiumError as wrong:
            return Outcome(cell, "broken", error=str(wrong), unreadable=True)
        if result is not None:
            return Outcome(cell, "done", result)
        folder = self.run_folder(cell)
        error = self.error(cell)
        if error is not None:
            state, _, sentence = error.partition("\n")[0].partition(": ")
            return Outcome(cell, "failed" if state == "failed" else "broken", error=sentence)
        if folder.recipe_file.exists():
            return Outcome(cell, "broken", error="it was interrupted")
        if cell.teacher is not None and self.error(self._teacher(cell)) is not None:
            return Outcome(cell, "waiting", error=f"its teacher {cell.teacher} did not finish")
        return Outcome(cell, "waiting")

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell's run; None before it is complete.

        Raises:
            UsageError: its folder holds a run of another recipe.
            DataError: its files are damaged.
        """
        folder = self.run_folder(cell)
        if folder.recipe_file.exists():
            begun = folder.recipe()
            changed = resolve(begun).differences(resolve(_where(cell, begun)))
            if changed:
                raise UsageError(f"{folder.path} holds a run of another recipe ({told(changed)}); move it away")
        result = folder.result()
        if result is not None:
            check_fits(result, cell.recipe, folder.result_file)
        return result

    def error_file(self, cell: Cell) -> Path:
        return inside(self.folder, "errors", f"{cell.key}.txt")

    def error(self, cell: Cell) -> str | None:
        try:
            return read_bounded(self.error_file(cell), 2**20).decode(errors="replace")
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Builds one run of every row that has not begun, and writes nothing.

        Raises:
            UsageError: a row cannot be built: the sentence says which, and why.
            DataError: the data cannot be read.
        """
        trial = Trial()
        known = {cell.label for cell in self.cells if self.run_folder(cell).recipe_file.exists()}
        for cell in self.cells:
            if cell.label not in known:
                known.add(cell.label)
                teacher = None
                if cell.teacher is not None:
                    teacher = networks.parse_peers(self._teacher(cell).recipe.peers)[0]
                try:
                    trial.build(cell.recipe, teacher)
                except Untrusted:
                    raise
                except UsageError as error:
                    raise UsageError(f"{cell.label}: {error}") from error

    @consents()
    def run(
        self,
        executor: Executor | None = None,
        *,
        checked: bool = False,
        view: "Callable[[Study], View] | None" = None,
    ) -> list[Outcome]:
        """Computes every cell that is not done, and returns how far every cell is.

        Finished runs are left as they are, interrupted ones go on, and failed ones are tried again.

        Args:
            executor: where; by default this machine's processes.
            checked: every row is known to be buildable; see :meth:`check`.
            view: shows how it goes, such as :class:`collegium.study.live.LiveView`; by default nothing does.

        Raises:
            UsageError: a row cannot be built, or another process runs the study; nothing is computed.
            DataError: the data cannot be read; nothing is computed.
            Interrupted: Ctrl-C or SIGTERM came; every run has saved its state, the same call goes on.
        """
        from collegium.errors import Interrupted

        left = [cell for cell in self.cells if self.result(cell) is None]
        if not checked:
            self.check()
        with locked(self.folder, f"another process runs the study in {self.folder}"):
            self.write()
            cells = {cell.key: cell for cell in left}
            jobs = [self._job(cell) for cell in left]
            try:
                shown = None if view is None else view(self)
                with shown or nullcontext(), closing((executor or LocalExecutor()).run(jobs)) as events:
                    for event in events:
                        self._record(cells[event.key], event)
                        if shown is not None:
                            shown.happened(cells[event.key], event)
            except KeyboardInterrupt:
                done = sum(outcome.state == "done" for outcome in self.outcomes())
                raise Interrupted(
                    f"stopped with {done} of {len(self.cells)} runs done; repeat the command to go on: those that were "
                    f"running have their newest states in {self.runs}"
                ) from None
        return self.outcomes()

    def _job(self, cell: Cell) -> Job:
        after = None if cell.teacher is None else self._teacher(cell).key
        log = inside(self.folder, "logs", f"{cell.key}.txt")
        return Job(cell.key, self.recipe(cell), self.run_folder(cell).path, log, after)

    def _record(self, cell: Cell, event: Event) -> None:
        file = self.error_file(cell)
        if event.state in ("failed", "broken"):
            with storing(file):
                file.parent.mkdir(exist_ok=True)
            write_whole(file, f"{event.state}: {' '.join(event.error.split())}\n\n{event.trace}")
        else:
            file.unlink(missing_ok=True)

    def save(self) -> None:
        """Writes study.yaml and computes nothing.

        Raises:
            UsageError: another process runs the study.
        """
        with locked(self.folder, f"another process runs the study in {self.folder}"):
            self.write()

    def write(self) -> None:
        """Writes study.yaml: what all cells have in common, and what each has of its own."""
        plain = [resolve(cell.recipe).to_dict() for cell in self.cells]
        common = {name: value for name, value in plain[0].items() if all(recipe[name] == value for recipe in plain)}
        rows = []
        for cell, recipe in zip(self.cells, plain, strict=True):
            own = {name: value for name, value in recipe.items() if name not in common}
            teacher = {} if cell.teacher is None else {"taught_by": cell.teacher}
            rows.append({"label": cell.label, **teacher, "key": cell.key, **own})
        content = {
            "common": common,
            "cells": rows,
            "reference": self.reference,
            **({"trunk_reference": self.trunk_reference} if self.trunk_reference else {}),
            "left_out": self.left_out,
            **({"plan": self.plan.to_dict()} if self.plan else {}),
            "provenance": self.provenance,
        }
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, write_yaml(content))

    def _read(self) -> list[Cell]:
        """The cells of study.yaml; what it says besides becomes this study's own."""
        content = read_yaml(self.file)
        wrong = fault(content, STUDY)
        if wrong is not None:
            raise UsageError(f"{self.file} is not that of a study: {wrong}")
        try:
            self.reference, self.left_out = dict(content["reference"]), dict(content["left_out"])
            self.provenance = dict(content["provenance"])
            self.trunk_reference = dict(content.get("trunk_reference", {}))
            self.plan = Plan.from_dict(content["plan"]) if "plan" in content else None
            return [self._cell(own, content["common"]) for own in content["cells"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.file} is not that of a study: {error!r}") from error

    def _cell(self, own: Mapping[str, Any], common: Mapping[str, Any]) -> Cell:
        recipe = Recipe.from_dict({**common, **{k: v for k, v in own.items() if k not in _OF_THE_CELL}}, str(self.file))
        cell = Cell(own["label"], recipe, own.get("taught_by"))
        if "key" not in own and not cell.of_user:  # of before keys were kept
            return cell
        if re.fullmatch(re.escape(cell.slug) + r"-[0-9a-f]{10}", own.get("key", "")) is None:
            raise UsageError(f"{self.file} does not say the key of {cell.name[:80]!r}: repeat the command that made it")
        return dataclasses.replace(cell, known_key=own["key"])


_OF_THE_CELL = ("label", "taught_by", "key")


def all_references(labels: Sequence[str], *references: Mapping[str, str]) -> list[Contrast]:
    """What each mapping, row -> the row that it is compared with, says: in the order of the rows."""
    known = dict.fromkeys((*labels, *(label for reference in references for label in reference)))
    return [Contrast(label, told[label]) for label in known for told in references if label in told]


def _where(cell: Cell, begun: Recipe) -> Recipe:
    """The cell's recipe, with the place and the teacher of a run that has begun."""
    return dataclasses.replace(cell.recipe, teacher=begun.teacher, device=begun.device)


def _holds_something(folder: Path) -> bool:
    return any(entry.name != ".lock" and entry.suffix != ".part" for entry in folder.iterdir())


def _merged(folder: Path, before: Iterable[Cell], added: Iterable[Cell]) -> list[Cell]:
    """One cell for each label and seed."""
    cells: dict[tuple[str, int], Cell] = {}
    for cell in (*before, *added):
        known = cells.setdefault((cell.label, cell.seed), cell)
        if known is cell:
            continue
        here = dataclasses.replace(cell.recipe, **{name: getattr(known.recipe, name) for name in ELSEWHERE})
        # Keys say less: they leave defaults out, which another version may have changed.
        changed = told(resolve(here).differences(resolve(known.recipe)))
        if changed or cell.teacher != known.teacher:
            raise UsageError(
                f"{folder} holds {cell.name!r} with another recipe ({changed or 'another teacher'}); "
                "choose another folder with --study"
            )
    return list(cells.values())
