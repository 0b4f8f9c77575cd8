"""The folder of a run, which training writes and everything else reads.

recipe.yaml        the recipe with all defaults, versions, commit, hardware
metrics.csv        one row per epoch: every term, every predictor
tensorboard/       the same as events
split.csv          which pixels of a scene are for training and for testing
teacher/           a copy of the frozen teacher, where the method has one
checkpoints/       the newest training states
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
    """Reads and writes a run's folder. Files are written under a temporary name and then renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.recipe_file = self.path / "recipe.yaml"
        self.metrics_file = self.path / "metrics.csv"
        self.result_file = self.path / "result.json"
        self.split_file = self.path / "split.csv"
        self.report_file = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"

    def keep_teacher(self, path: str) -> None:
        """Copies a trained network into the folder, so that the run no longer needs the original."""
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
        """Whether a recipe may be trained in this folder; writes nothing.

        Raises:
            UsageError: the folder holds a run of another recipe, or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; give a folder for the run")
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
        """Prepares the folder for a recipe, unless it holds a run of that recipe already."""
        if self.recipe_file.exists() and not overwrite:
            return
        content = {**recipe.to_dict(), "provenance": dict(provenance)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        # In this order a kill leaves neither a run that seems finished nor a folder that is no run.
        self.result_file.unlink(missing_ok=True)
        for old in self._content():
            if old != self.recipe_file:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        write_whole(self.recipe_file, text)

    def _content(self) -> list[Path]:
        """Everything but the lock and files that a kill has left half written."""
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
        """The result of a complete run; None before that."""
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
        """Writes a row per epoch; columns that an epoch did not measure stay empty in it."""
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
    def translate_misfit(self) -> Iterator[None]:
        """Turns errors of ``load_state_dict`` within it into a TrainingError that names the checkpoints."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"the checkpoints in {self.checkpoints} do not fit the recipe's networks: "
                f"{str(error).splitlines()[0]}; start over with --overwrite"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in this folder; the lock ends with the process."""
        with locked(self.path, f"another process is training in {self.path}"):
            yield
