"""The folder of a run: the contract between training and everything after it.

recipe.yaml        everything resolved, with versions, commit, hardware
metrics.csv        one row an epoch: every term, every predictor
tensorboard/       the same as events
split.csv          which pixels of a scene train and score
teacher/           a copy of the frozen teacher, where the method has one
checkpoints/       the training state, the newest few
peers/peer0/       a trained peer: model.safetensors and config.json
result.json        last and best scores of every predictor, cost, time; written when the run is complete
report.html        self-contained page
exports/           what `collegium export` wrote
"""

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from collegium.errors import TrainingError, UsageError
from collegium.files import locked, write_whole
from collegium.student import load_peer, peer_folder
from collegium.training.recipe import Recipe


class RunFolder:
    """Reads and writes a run's folder. Files are written whole under a temporary name, then renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.recipe_file = self.path / "recipe.yaml"
        self.metrics_file = self.path / "metrics.csv"
        self.result_file = self.path / "result.json"
        self.split_file = self.path / "split.csv"
        self.report_file = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"

    def keep_teacher(self, path: str) -> None:
        """Copies a trained network here, so that the run can go on and be looked at without the original."""
        target = self.path / "teacher"
        if not target.exists():
            temporary = self.path / "teacher.part"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(peer_folder(path), temporary)
            temporary.replace(target)

    def teacher(self) -> nn.Module | None:
        """The copy of the teacher; None where there is none."""
        target = self.path / "teacher"
        return load_peer(target) if target.exists() else None

    def peer(self, index: int) -> Path:
        return self.path / "peers" / f"peer{index}"

    def check(self, recipe: Recipe, *, overwrite: bool = False) -> None:
        """Whether a recipe may train here; writes nothing.

        Raises:
            UsageError: the folder holds another recipe's run, or something that is no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; name a folder for the run")
        if self.recipe_file.exists():
            differences = [] if overwrite else recipe.differences(self.recipe())
            if differences:
                raise UsageError(
                    f"{self.path} holds a run of another recipe ({'; '.join(differences)}); "
                    "choose another folder with --run, or start over with --overwrite"
                )
        elif self.path.exists() and self._content():
            raise UsageError(f"{self.path} is not empty and holds no run; choose another folder with --run")

    def open(self, recipe: Recipe, provenance: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Makes the folder for a recipe, where it does not hold that recipe's run already."""
        if self.recipe_file.exists() and not overwrite:
            return
        content = {**recipe.to_dict(), "provenance": dict(provenance)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        # In an order that a kill cannot turn into a run that seems finished, or into no run at all.
        self.result_file.unlink(missing_ok=True)
        for old in self._content():
            if old != self.recipe_file:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        write_whole(self.recipe_file, text)

    def _content(self) -> list[Path]:
        """All but the lock and what a kill has left half written."""
        return [entry for entry in self.path.iterdir() if entry.name != ".lock" and entry.suffix != ".part"]

    def recipe(self) -> Recipe:
        """The run's recipe.

        Raises:
            UsageError: there is no run here.
        """
        if not self.recipe_file.is_file():
            raise UsageError(f"{self.path} is not a run: it has no recipe.yaml")
        return Recipe.read(self.recipe_file)

    def result(self) -> dict[str, Any] | None:
        """The result of a complete run, None before that."""
        if not self.result_file.is_file():
            return None
        try:
            result = json.loads(self.result_file.read_text())
        except ValueError as error:
            raise TrainingError(f"{self.result_file} is unreadable ({error}); delete it and repeat the run") from error
        assert isinstance(result, dict)
        return result

    def write_result(self, result: Mapping[str, Any]) -> None:
        write_whole(self.result_file, json.dumps(result, indent=2) + "\n")

    def write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        """One row an epoch; a column stays empty in epochs that did not measure it."""
        columns = list(dict.fromkeys(key for row in history for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_whole(self.metrics_file, text.getvalue())

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, without the empty cells."""
        with self.metrics_file.open() as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]

    def save_checkpoint(self, state: Mapping[str, Any], step: int, keep: int) -> Path:
        """Writes the training state after ``step`` optimizer steps, and removes all but the newest ``keep``."""
        self.checkpoints.mkdir(exist_ok=True)
        path = self.checkpoints / f"step_{step:09d}.pt"
        content = io.BytesIO()
        torch.save(dict(state), content)
        write_whole(path, content.getvalue())
        for old in self.saved_checkpoints()[:-keep]:
            old.unlink()
        return path

    def saved_checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.checkpoints.glob("step_*.pt"))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest training state, on the CPU; None where there is none.

        Raises:
            TrainingError: the file is truncated or not a checkpoint.
        """
        saved = self.saved_checkpoints()
        if not saved:
            return None
        try:
            state = torch.load(saved[-1], map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "learner" not in state:
                raise ValueError("not a training state")
        except Exception as error:
            before = f" and the run goes on from {saved[-2].name}" if len(saved) > 1 else " and the run starts over"
            raise TrainingError(
                f"the checkpoint {saved[-1]} cannot be read (truncated or damaged): delete it{before}"
            ) from error
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the same folder; the lock ends with the process."""
        with locked(self.path, f"another process is training in {self.path}"):
            yield
