"""The folder of a run, which training writes and everything else reads.

recipe.yaml        the recipe with all defaults, versions, commit, hardware
metrics.csv        one row per epoch: every term, every predictor
tensorboard/       the same as events
split.csv          which pixels of a scene are for training and for testing
teacher/           a copy of the frozen teacher, where the method has one
checkpoints/       the newest training states, each with its checksum beside it
peers/peer0/       a trained peer: model.safetensors and config.json, each with its checksum; README.md, its model card
peers/peer0_ema/   the same with averaged weights, where the recipe asks for them
result.json        last and best scores of every predictor, cost, time; written with its checksum when all is done
report.html        self-contained page
exports/           what `collegium export` wrote
"""

import csv
import io
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collegium.errors import DataError, StorageError, TrainingError, UsageError
from collegium.files import check_whole, checksum_file, inside, locked, storing, write_checked, write_whole
from collegium.pickles import check_pickle
from collegium.schemas import CHECKPOINT, Record, fault, read_metrics, read_result
from collegium.student import load_peer, peer_files, peer_folder
from collegium.torch_private import pickle_of
from collegium.training.recipe import Recipe, told
from collegium.yaml_text import read_yaml, write_yaml


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
        target, temporary = (inside(self.path, name) for name in ("teacher", "teacher.part"))
        if not target.exists():
            with storing(target):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                for file in peer_files(peer_folder(path)):
                    shutil.copyfile(file, temporary / file.name)
                temporary.replace(target)

    def teacher(self) -> nn.Module | None:
        """The copy of the teacher; None where there is none."""
        target = inside(self.path, "teacher")
        return load_peer(target) if target.exists() else None

    def peer(self, name: str) -> Path:
        return inside(self.path, "peers", name)

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
                    f"{self.path} holds a run of another recipe ({told(differences)}); "
                    "choose another folder with --run, or start over with --overwrite"
                )
        elif self.path.exists() and self._content():
            raise UsageError(f"{self.path} is not empty and holds no run; choose another folder with --run")

    def check_data(self, fingerprint: str, *, overwrite: bool = False) -> None:
        """Whether a run may go on with data of this fingerprint; where it is complete there is a warning.

        Raises:
            UsageError: it was begun with others.
        """
        if overwrite or not self.recipe_file.exists() or self.fingerprint() in (None, fingerprint):
            return
        if self.result_file.exists():
            warnings.warn(f"{self.path} was trained on other data: they have changed since", stacklevel=2)
            return
        raise UsageError(
            f"{self.path} was begun with other data: they have changed since (images, labels or their split), so it "
            "cannot go on; put them back, or start over with --overwrite"
        )

    def check_weights(self, weights: Mapping[str, Mapping[str, str]], *, overwrite: bool = False) -> None:
        """Whether a run may go on with peers that start from these files of weights.

        Raises:
            UsageError: it was begun with others.
        """
        if overwrite or not self.recipe_file.exists():
            return
        begun = {peer: loaded["sha256"] for peer, loaded in self.loaded_weights().items()}
        if changed := [peer for peer, loaded in weights.items() if begun.get(peer) != loaded["sha256"]]:
            raise UsageError(
                f"{self.path} was begun with other weights for {', '.join(changed)}: the file has changed since; "
                "put it back, or start over with --overwrite"
            )

    def open(self, recipe: Recipe, provenance: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Prepares the folder for a recipe, unless it holds a run of that recipe already."""
        if self.recipe_file.exists() and not overwrite:
            return
        content = {**recipe.to_dict(), "provenance": dict(provenance)}
        # In this order a kill leaves neither a run that seems finished nor a folder that is no run.
        with storing(self.path):
            self.result_file.unlink(missing_ok=True)
            for old in self._content():
                if old != self.recipe_file:
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        write_whole(self.recipe_file, write_yaml(content))

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
        """The result of a complete run; None before that.

        Raises:
            DataError: result.json is damaged or holds something else.
        """
        try:
            return read_result(self.result_file)
        except FileNotFoundError:
            return None
        except DataError as error:
            reason = str(error).partition("; ")[0]
            raise DataError(
                f"{reason}; delete it and repeat the command that trained the run, to write it again"
            ) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        write_checked(self.result_file, json.dumps(result, indent=2) + "\n")

    def write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        """Writes a row per epoch; columns that an epoch did not measure stay empty in it."""
        columns = list(dict.fromkeys(key for row in history for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_whole(self.metrics_file, text.getvalue())

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, without the empty cells.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            return read_metrics(self.metrics_file)
        except FileNotFoundError as error:
            raise DataError(f"{self.path} has no metrics.csv, the scores of its epochs") from error

    def save_checkpoint(self, state: Mapping[str, Any], step: int, keep: int) -> Path:
        """Writes the training state after ``step`` optimizer steps, and removes all but the newest ``keep``.

        Raises:
            StorageError: it cannot be written; those that there are stay.
        """
        folder = inside(self.path, "checkpoints")
        path = folder / f"step_{step:09d}.pt"
        before = [file.name for file in self.saved_checkpoints()]
        content = io.BytesIO()
        torch.save(dict(state), content)
        try:
            with storing(folder):
                folder.mkdir(exist_ok=True)
            write_checked(path, content.getvalue())
        except StorageError as error:
            safe = (
                f"{before[-1]} is safe, from which the repeated command goes on" if before else "nothing is saved yet"
            )
            raise StorageError(f"{error}; {safe}") from error
        # Those after it were damaged, when this run went on from one before them.
        self._remove([file for file in self.saved_checkpoints() if file > path])
        self.remove_old_checkpoints(keep)
        return path

    def remove_old_checkpoints(self, keep: int) -> None:
        """Removes all but the newest ``keep``, and what a kill has left of others."""
        self._remove(self.saved_checkpoints()[:-keep])
        with storing(self.checkpoints):
            for half in self.checkpoints.glob("step_*.part"):
                half.unlink()

    def _remove(self, checkpoints: Sequence[Path]) -> None:
        with storing(self.checkpoints):
            for old in checkpoints:
                checksum_file(old).unlink(missing_ok=True)
                old.unlink()

    def saved_checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(
            file for file in self.checkpoints.glob("step_*.pt") if re.fullmatch(r"step_[0-9]{9,18}", file.stem)
        )

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest training state that is whole, on the CPU; None where there is none at all.

        A damaged one is passed over, with a warning.

        Raises:
            TrainingError: there are some, and all are damaged.
        """
        saved = self.saved_checkpoints()
        reasons: list[str] = []
        for file in reversed(saved):
            try:
                state = _load_state(file)
            except DataError as error:
                reasons.append(str(error).partition("; ")[0])
                continue
            if reasons:
                warnings.warn(f"{reasons[0]}; {file.name}, saved before it, is used instead", stacklevel=2)
            return state
        if saved:
            one = "" if len(saved) == 1 else f", nor any of the {len(saved) - 1} before it"
            raise TrainingError(
                f"{reasons[0]}{one}; start over with --overwrite, or put a copy of the file in its place"
            )
        return None

    def fingerprint(self) -> str | None:
        """That of the data on which the run was trained; None where the run does not say it."""
        found = self._provenance().get("data_fingerprint")
        return found if isinstance(found, str) else None

    def loaded_weights(self) -> dict[str, dict[str, str]]:
        """Peer -> the "sha256" of the file of weights that it started from, and a "note" on what was loaded.

        Raises:
            DataError: the run says it otherwise than it was written.
        """
        weights = self._provenance().get("weights", {})
        wrong = fault(weights, {str: Record({"sha256": str, "note": str})}, "weights")
        if wrong is not None:
            raise DataError(f"{self.recipe_file} is not as it was written: {wrong}")
        return dict(weights)

    def _provenance(self) -> dict[str, Any]:
        told = read_yaml(self.recipe_file).get("provenance")
        return told if isinstance(told, dict) else {}

    @contextmanager
    def translate_misfit(self) -> Iterator[None]:
        """Turns errors of ``load_state_dict`` within it into a TrainingError that names the checkpoints."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"the checkpoints in {self.checkpoints} do not fit the recipe's networks: "
                f"{str(error).partition(chr(10))[0][:100]}; start over with --overwrite"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in this folder; the lock ends with the process."""
        with locked(self.path, f"another process is training in {self.path}"):
            yield


def _load_state(file: Path) -> dict[str, Any]:
    """A training state.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    check_whole(file)
    try:
        check_pickle(io.BytesIO(pickle_of(file)))
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise DataError(f"the checkpoint {file} cannot be read (truncated or damaged)") from error
    wrong = fault(state, CHECKPOINT)
    if wrong is not None:
        raise DataError(f"the checkpoint {file} is not a training state: {wrong}")
    return dict(state)
