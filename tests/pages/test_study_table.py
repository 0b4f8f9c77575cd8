"""What a table of a study says, in every form that it is written in."""

import csv
import dataclasses
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from collegium.pages.study_table import StudyTable
from collegium.results.comparison import findings
from collegium.study.study import Study
from helpers_study import cell, finish, made_up

ACCURACIES = {"independent": [0.90, 0.91, 0.92], "ffl": [0.93, 0.95, 0.94], "dml": [0.91, 0.915, 0.90]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> StudyTable:
    return StudyTable(findings(made_up(tmp_path_factory.mktemp("table") / "s", ACCURACIES)))


def shown(table: StudyTable, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_numbers(table: StudyTable) -> None:
    entries = {line.row.method: {k: e.text for k, e in line.entries.items()} for line in table.lines}
    assert entries["independent"]["one"] == "91.00 ± 1.00" and entries["independent"]["gain"] == "–"
    ffl = entries["ffl"]
    assert (ffl["n"], ffl["one"], ffl["ensemble"], ffl["own"]) == (
        "3", "94.00 ± 1.00", "95.00 ± 1.00", "fused 96.00 ± 1.00",
    )  # fmt: skip
    assert (ffl["gain"], ffl["wins"], ffl["cost"]) == ("+3.00 ± 1.00", "3 of 3", "2.00 ×")
    # Two tests: the smaller p value counts twice.
    p = {m: stats.ttest_rel(ACCURACIES[m], ACCURACIES["independent"]).pvalue for m in ("ffl", "dml")}
    assert ffl["p"] == f"{2 * p['ffl']:.3f}" and entries["dml"]["p"] == f"{p['dml']:.3f}"
    assert [line.row.method for line in table.lines if line.entries["one"].best] == ["ffl"]


def test_the_best_is_that_of_one_set_of_data(tmp_path: Path) -> None:
    easy, hard = {"name": "digits", "per_class": 8}, {"name": "digits", "per_class": 2}
    accuracies = {
        ("independent", "easy"): 0.95,
        ("dml", "easy"): 0.96,
        ("independent", "hard"): 0.6,
        ("dml", "hard"): 0.5,
    }
    cells = [
        dataclasses.replace(cell(method, data=easy if data == "easy" else hard), label=f"{method} {data} · 2xresnet8")
        for method, data in accuracies
    ]
    study = Study(tmp_path / "s", cells)
    study.write()
    for one, accuracy in zip(cells, accuracies.values(), strict=True):
        finish(study, one, accuracy)
    best = [line.row.method for line in StudyTable(findings(study)).lines if line.entries["one"].best]
    assert best == ["dml easy", "independent hard"]


def test_the_terminal_shows_every_row_and_says_how_it_was_tested(table: StudyTable) -> None:
    text = shown(table)
    assert "3 methods × 1 cohort × 3 seeds on digits, 1 epoch" in text.splitlines()[0]
    for expected in ("independent", "94.00 ± 1.00", "fused 96.00 ± 1.00", "corrected for 2 tests by Holm"):
        assert expected in " ".join(text.split())
    assert "nothing was selected on test images" in " ".join(text.split())


def test_a_narrow_terminal_leaves_columns_out_and_says_so(table: StudyTable) -> None:
    text = shown(table, 80)
    assert "94.00 ± 1.00" in text and "+3.00 ± 1.00" in text and "…" not in text
    assert re.search(r"In table.md, for want of room: ECE, training", text)


def test_markdown_has_as_many_cells_in_every_line(table: StudyTable) -> None:
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert "| `ffl` | 2xresnet8 | 3 | **94.00 ± 1.00** | +3.00 ± 1.00 |" in table.markdown()


def test_latex_escapes_and_balances(table: StudyTable, tmp_path: Path) -> None:
    text = table.latex()
    assert "\\toprule" in text and "$\\pm$" in text and "\\%" in text
    assert text.count("{") == text.count("}")
    rows = [line for line in text.splitlines() if line.rstrip().endswith("\\\\") and "multicolumn" not in line]
    assert len({line.count(" & ") for line in rows}) == 1
    if shutil.which("pdflatex"):
        whole = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + text + "\\end{document}"
        (tmp_path / "t.tex").write_text(whole)
        subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_csv_has_a_line_a_run_and_predictor_and_a_line_a_row_and_predictor(table: StudyTable) -> None:
    runs = list(csv.DictReader(io.StringIO(table.runs_csv())))
    assert len(runs) == 3 * (4 + 5 + 4)  # peer0, peer1, mean_peer, ensemble; FFL's fused
    (one,) = (r for r in runs if (r["method"], r["seed"], r["predictor"]) == ("ffl", "1", "fused"))
    assert float(one["top1_error"]) == pytest.approx(0.03) and one["device"] == "a processor, 1 threads"
    summary = {(r["method"], r["predictor"]): r for r in csv.DictReader(io.StringIO(table.summary_csv()))}
    assert len(summary) == 2 + 3 + 2  # peers of one kind are told by their mean
    fused = summary["ffl", "fused"]
    assert fused["against"] == "independent · 2xresnet8, ensemble" and float(fused["gain"]) == pytest.approx(4)
    assert (fused["n"], fused["pairs"], fused["wins"]) == ("3", "3", "3")


def test_peers_of_different_kinds_are_told_one_by_one(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9], "ffl": [0.95]}, peers="resnet8,wrn_10_1")
    table = StudyTable(findings(study))
    (line,) = (line for line in table.lines if line.row.method == "ffl")
    assert line.entries["each"].text == "resnet8 95.00; wrn_10_1 95.00"
    assert line.entries["p"].text == "–" and line.entries["gain"].text == "+5.00"


def test_times_of_different_devices_are_not_compared(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9, 0.9], "ffl": [0.95, 0.96]})
    file = study.run_folder(study.cells[-1]).recipe_file
    file.write_text(file.read_text().replace("a processor", "another"))
    assert "cost" not in [column.key for column in StudyTable(findings(study)).columns]


def test_nothing_that_is_missing_is_hidden(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9, 0.9, 0.91]})
    lost = [cell("ffl", seed) for seed in range(3)]
    study = Study(study.folder, lost, left_out={"one · a,b": "they differ"})
    study.write()
    study.errors.mkdir()
    study.error_file(lost[0]).write_text("failed: not finite\n\n")
    table = StudyTable(findings(study))
    assert table.problems == [
        "Left out: one · a,b: they differ",
        "Failed: ffl · 2xresnet8, seed 0: not finite",
        "Waiting: 2 of 6 runs",
    ]
    for text in (shown(table), table.markdown(), table.latex()):
        assert "not finite" in text and "they differ" in text and "0 of 3" in text


def test_who_shares_a_trunk_is_said(tmp_path: Path) -> None:
    Study(tmp_path / "s", [cell("dml"), cell("ffl", share_until="stage2")]).write()
    told = StudyTable(findings(Study.open(tmp_path / "s"))).trunks
    assert told == ["ffl · 2xresnet8: the peers share all up to stage2.", "All others stand apart."]
