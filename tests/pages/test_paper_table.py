"""Tables beside the published values: the arithmetic, what is said of trials and of what is missing."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chromium import needs_chromium, visit
from collegium.api import reproduce
from collegium.cli import main
from collegium.errors import UsageError
from collegium.pages.paper_page import page
from collegium.pages.paper_table import Reproduction
from collegium.results import papers as tables
from collegium.study.cell import Cell
from collegium.study.study import Outcome, Study
from made_up_runs import write_study

FUSED = {"peer0": 0.28, "peer1": 0.27, "mean_peer": 0.275, "ensemble": 0.265, "fused": 0.26}


def ablation(folder: Path, scale: float = 1.0) -> Study:
    """Rows A and B are done with two seeds, the fused errors of A are 26 % and 27 %; C failed once; the rest waits."""
    errors = []
    for cell in tables.get("ffl/ablation").cells((0, 1), scale):
        done = cell.label.startswith(("A", "B"))
        errors.append((cell, FUSED | {"fused": 0.26 + 0.01 * cell.seed} if done else {}))
    study = write_study(folder, errors)
    failed = next(cell for cell in study.cells if cell.label.startswith("C"))
    study.error_file(failed).parent.mkdir()
    study.error_file(failed).write_text("failed: TrainingError: the loss is nan\n")
    return study


@pytest.fixture
def found(tmp_path: Path) -> Reproduction:
    ablation(tmp_path / "study")
    table, folder = reproduce("ffl/ablation", study=tmp_path / "study", train=False)
    assert folder == tmp_path / "study"
    return table


def test_ours_stands_beside_the_published_value(found: Reproduction) -> None:
    line = found.lines[0]
    assert (line.target.row.label, line.number.predictor, line.number.value) == ("A (all)", "fused", 25.56)
    assert line.ours is not None and line.ours.n == 2
    assert line.ours.mean == pytest.approx(26.5)
    assert line.difference == pytest.approx(26.5 - 25.56)
    ours, theirs = math.sqrt(0.5), 0.32
    assert line.deviations == pytest.approx((26.5 - 25.56) / math.sqrt((ours**2 + theirs**2) / 2))
    one = found.lines[1]
    assert one.number.predictor == "mean_peer" and one.ours is not None and one.ours.std == 0
    assert one.deviations == pytest.approx((27.5 - 27.06) / math.sqrt((0 + 0.34**2) / 2))


def test_what_is_missing_is_said(found: Reproduction) -> None:
    text = found.markdown()
    assert "no run is done yet (TrainingError: the loss is nan)" in text
    assert "failed: C (without EKD) · 2xresnet32, seed 0" in text
    assert found.lost == 1 and found.possible


def test_how_it_is_computed_may_differ_from_the_papers_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Reproduction
) -> None:
    asked = []

    def run(self: Study, *_: object, **__: object) -> list[Outcome]:
        asked.extend(cell.recipe for cell in self.cells)
        self.write()
        return [Outcome(cell, "waiting") for cell in self.cells]

    monkeypatch.setattr(Study, "run", run)
    how: dict[str, Any] = {"precision": "bf16", "compile": True, "cuda_graphs": True}
    table, folder = reproduce("ffl/ablation", study=tmp_path / "bf16", **how)
    assert folder is not None and len(asked) == 15
    assert {(recipe.precision, recipe.compile, recipe.cuda_graphs) for recipe in asked} == {("bf16", True, True)}
    assert "Ours were trained in bf16." in table.markdown()
    assert "trained in" not in found.markdown()
    with pytest.raises(UsageError, match="with another recipe"):
        reproduce("ffl/ablation", study=tmp_path / "study", precision="bf16")


def test_accuracies_and_single_deviations(tmp_path: Path) -> None:
    cells = tables.get("afd/cifar100").cells((0,))
    write_study(tmp_path / "study", [(cell, {"peer0": 0.3, "mean_peer": 0.3}) for cell in cells])
    found, _ = reproduce("afd/cifar100", study=tmp_path / "study", train=False)
    assert found.metric == "top-1 accuracy"
    line = found.lines[0]
    assert line.ours is not None and line.ours.mean == pytest.approx(70.0)
    assert line.difference == pytest.approx(70 - 69.38)
    assert line.deviations is None  # neither has a deviation


def test_the_best_of_our_runs_stands_beside_the_best_of_theirs(tmp_path: Path) -> None:
    table = tables.get("ffl/one")
    cells = [cell for cell in table.cells((0, 1)) if cell.label == "FFL, 2 branches · 2xresnet32"]
    write_study(tmp_path / "study", [(c, FUSED | {"fused": 0.25 + 0.01 * c.seed}) for c in cells])
    found, _ = reproduce("ffl/one", study=tmp_path / "study", train=False)
    (line,) = (
        line
        for line in found.lines
        if line.ours and line.number.statistic == "best run" and line.number.predictor == "fused"
    )
    assert line.number.value == 24.31
    assert line.ours is not None and line.ours.mean == pytest.approx(25.0) and line.ours.std is None
    assert line.difference == pytest.approx(25 - 24.31) and line.deviations is None


def test_a_trial_says_everywhere_that_it_is_one(tmp_path: Path) -> None:
    ablation(tmp_path / "study", scale=0.02)
    found, folder = reproduce("ffl/ablation", scale=0.02, study=tmp_path / "study", train=False)
    warning = "Scaled to 2 % of the epochs and the training images: not comparable with the published values."
    terminal = Console(width=200, record=True, file=io.StringIO())
    terminal.print(found)
    assert folder is not None
    files = sorted(file.name for file in folder.glob("ffl-ablation*"))
    assert files == [f"ffl-ablation-trial-0.02.{kind}" for kind in ("csv", "html", "md")]
    for text in (terminal.export_text(), *((folder / files[k]).read_text() for k in (1, 2))):
        assert warning in " ".join(text.split())
        assert "2 % trial" in text
    assert {row["scale"] for row in csv.DictReader(io.StringIO((folder / files[0]).read_text()))} == {"0.02"}


def test_a_whole_study_says_nothing_of_trials(found: Reproduction) -> None:
    assert found.warning == "" and "trial" not in page(found) and found.stem == "ffl-ablation"


def test_the_files_hold_the_same_numbers(found: Reproduction) -> None:
    rows = list(csv.DictReader(io.StringIO(found.as_csv())))
    assert len(rows) == len(found.lines) == 10
    assert rows[0]["ours"] == "26.5" and rows[0]["published"] == "25.56" and rows[0]["certainty"] == "P"
    for text in (found.markdown(), page(found)):
        assert "26.50 ± 0.71" in text and "25.56 ± 0.32" in text and "+0.94" in text
    assert "What is reconstructed" in page(found)


def test_a_table_of_which_nothing_can_be_trained_shows_the_published_values() -> None:
    found, folder = reproduce("dualnet/cifar100")
    assert folder is None and not found.possible
    text = found.markdown()
    assert "69.01" in text and "(1) the library has no network in network" in text


def test_rows_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Cell] = []

    def run(study: Study, executor: object, view: object) -> list[object]:
        seen.extend(study.cells)
        study.write()
        return []

    monkeypatch.setattr(Study, "run", run)
    reproduce("shake/cifar100", seeds=(0,), only="KD resnet8x4", study=tmp_path / "study")
    assert [cell.label for cell in seen] == ["teacher · resnet32x4", "KD · resnet8x4"]
    with pytest.raises(UsageError, match="no row of shake/cifar100 is called 'KD nothing'"):
        reproduce("shake/cifar100", only="KD nothing", study=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    main(["reproduce", "ffl/ablation", "--show"])
    assert "25.56 ± 0.32" in capsys.readouterr().out
    assert not (tmp_path / "studies").exists()
    ablation(tmp_path / "studies" / "ffl" / "ablation-trial-0.02", scale=0.02)
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "ffl/ablation", "--show", "--scale", "0.02"])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert "studies/ffl/ablation-trial-0.02/ffl-ablation-trial-0.02.html" in shown.out
    assert "1 of 10 runs did not finish" in shown.err
    main(["list", "tables"])
    assert "ffl/ablation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ffl/nothing"], "there is no table 'ffl/nothing'; known are: ffl/table1a"),
        (["ffl/ablation", "--scale", "2"], "--scale is a share above 0 and at most 1, not 2"),
        (["ffl/ablation", "--seeds", "a"], "--seeds expects whole numbers"),
        (["mfef/table1"], "no published table of mfef is known"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen(tmp_path: Path, width: int) -> None:
    ablation(tmp_path / "study", scale=0.02)
    reproduce("ffl/ablation", scale=0.02, study=tmp_path / "study", train=False)
    file = tmp_path / "study" / "ffl-ablation-trial-0.02.html"
    seen = visit(file, 'return document.querySelector(".notice").checkVisibility()', width=width)
    assert (
        seen == {"found": True, "problems": [], "width": width, "overflow": seen["overflow"]} and seen["overflow"] <= 0
    )


def test_a_notebook_gets_a_table(found: Reproduction) -> None:
    text = found._repr_html_()
    assert "25.56 ± 0.32" in text and "the loss is nan" in text and text.count("<table") == 1
