"""What a table of a study says, in every form that it is written in."""

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from collegium.pages.study_table import StudyTable
from collegium.results.comparison import findings
from collegium.study.plan import PlanOptions
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
    entries = {line.row.method: {k: e.text for k, e in line.cells.items()} for line in table.lines}
    assert entries["independent"]["one"] == "91.00 ± 1.00" and entries["independent"]["gain"] == "–"
    ffl = entries["ffl"]
    assert (ffl["n"], ffl["one"], ffl["ensemble"], ffl["own"]) == (
        "3", "94.00 ± 1.00", "95.00 ± 1.00", "fused 96.00 ± 1.00",
    )  # fmt: skip
    # Two tests: t(0.9875; 2) = 6.205, over sqrt(3) is 3.58; noncentrality 8.01 over sqrt(3) is 4.62. Deviation 1.
    assert (ffl["gain"], ffl["wins"], ffl["cost"]) == ("+3.00 [−0.58, 6.58]", "3 of 3", "2.00 ×")
    assert (ffl["smallest"], ffl["verdict"]) == ("4.62", "undecided") and "over" not in [c.key for c in table.columns]
    # Two tests: the smaller p value counts twice.
    p = {m: stats.ttest_rel(ACCURACIES[m], ACCURACIES["independent"]).pvalue for m in ("ffl", "dml")}
    assert ffl["p"] == f"{2 * p['ffl']:.3f}" and entries["dml"]["p"] == f"{p['dml']:.3f}"
    assert [line.row.method for line in table.lines if line.cells["one"].strong] == ["ffl"]


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
    best = [line.row.method for line in StudyTable(findings(study)).lines if line.cells["one"].strong]
    assert best == ["dml easy", "independent hard"]


def test_the_terminal_shows_every_row_and_says_how_it_was_tested(table: StudyTable) -> None:
    text = shown(table)
    assert text.startswith("Undecided: the best of 2 contrasts is ffl, which made one network 3.00 points")
    assert "3 methods × 1 cohort × 3 seeds on digits, 1 epoch" in text
    for form in (table.markdown(), table._repr_html_()):
        assert "Undecided: the best of 2 contrasts is ffl" in form.splitlines()[0]
    for expected in ("independent", "94.00 ± 1.00", "fused 96.00 ± 1.00", "corrected for 2 tests by Holm"):
        assert expected in " ".join(text.split())
    assert "nothing was selected on test images" in " ".join(text.split())


def test_a_narrow_terminal_leaves_columns_out_and_says_so(table: StudyTable) -> None:
    text = shown(table, 80)
    assert "94.00 ± 1.00" in text and "+3.00 [−0.58, 6.58]" in text and "…" not in text
    assert "could have shown gains of 4.62 to 7.43 points" in " ".join(text.split())
    assert re.search(r"In table.md, for want of room: ECE, training", text)


def test_the_caption_explains_the_columns_that_are_shown(table: StudyTable) -> None:
    wide, narrow = (" ".join(shown(table, width).split()) for width in (400, 80))
    for explained in ("ECE: expected", "training time: training seconds", "; wins: seeds", "ensemble: mean of"):
        assert explained in wide
    for column in ("ECE", "training", "wins", "p"):
        assert column in re.findall(r"In table.md, for want of room: (.*?)\.", narrow)[0].split(", ")
    for explained in ("ECE: expected", "training time: ", "wins: seeds", "p: two-sided"):
        assert explained not in narrow
    assert "p is that of the two-sided paired t-test" in narrow and "better or worse where p < 0.05" in narrow


def test_latex_leaves_out_what_a_page_has_no_room_for(tmp_path: Path, table: StudyTable) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9, 0.8], "ffl": [0.95, 0.9]}, peers="resnet8,wrn_10_1")
    mixed = StudyTable(findings(study))
    for each in (mixed, table):
        text = each.latex()
        (left_out,) = re.findall(r"% In table.md, for want of room: (.*)\.", text)
        assert "ECE" in left_out and "ECE" not in text.partition("\\begin{table}")[2]
        rows = [line for line in text.splitlines() if line.rstrip().endswith("\\\\") and " & " in line]
        plain = [re.sub(r"\\[a-z]+|[{}$@]|\[t\]", "", row) for row in rows]
        assert max(map(len, plain)) <= 130
    assert "ECE" in StudyTable(findings(made_up(tmp_path / "t", {"independent": [0.9]}))).latex()


def test_a_narrow_terminal_breaks_words_before_numbers(tmp_path: Path) -> None:
    long = "dml:temperature=3:divergence=renyi:order=2"
    cells = [
        dataclasses.replace(cell(method, seed), label=f"{label} · 2xresnet8")
        for method, label in (("independent", "independent"), ("dml", long))
        for seed in range(2)
    ]
    study = Study(tmp_path / "s", cells, reference={f"{long} · 2xresnet8": "independent · 2xresnet8"})
    study.write()
    for one, accuracy in zip(cells, (0.3, 0.9, 0.95, 0.35), strict=True):
        finish(study, one, accuracy)
    text = shown(StudyTable(findings(study)), 80)
    for whole in (
        "65.00 ± 42.43",
        "undecided",
        "verdict",
        "one network",
        "dml:",
        "temperature=3:",
        "divergence=renyi:",
    ):
        assert whole in text
    assert "…" not in text and max(map(len, text.splitlines())) <= 80


def test_markdown_has_as_many_cells_in_every_line(table: StudyTable) -> None:
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert "| `ffl` | 2xresnet8 | 3 | **94.00 ± 1.00** | +3.00 [−0.58, 6.58] |" in table.markdown()


def test_latex_escapes_and_balances(table: StudyTable, tmp_path: Path) -> None:
    text = table.latex()
    assert "\\toprule" in text and "$\\pm$" in text and "\\%" in text
    assert text.count("{") == text.count("}")
    for environment in ("table", "tabular", "minipage"):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}") == 1
    caption, _, notes = text.partition("\\begin{tabular}{lrrrl")  # words at the left
    assert notes and caption.rstrip().endswith("\\label{tab:comparison}")
    assert "selected on test images.}" in caption and "gain:" not in caption  # short; the rest stands below
    assert "gain: of one network" in notes.partition("\\footnotesize")[2]
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
    assert line.cells["each"].text == "resnet8 95.00; wrn_10_1 95.00"
    assert line.cells["p"].text == "–" and line.cells["gain"].text == "+5.00"
    assert line.cells["verdict"].text == "undecided (one seed)" and line.cells["smallest"].text == "–"


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
    assert told == ["ffl · 2xresnet8: the peers share all up to stage2.", "All others share no layers."]


PLAN = PlanOptions("FFL beats training alone", "ffl vs independent, ffl vs dml")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> StudyTable:
    """Three planned seeds; two seeds and a row were added later."""
    folder = tmp_path_factory.mktemp("planned") / "s"
    study = made_up(folder, ACCURACIES, PLAN)
    added = [cell(method, seed) for method in ACCURACIES for seed in (3, 4)] + [cell("okddip", 0)]
    study = Study(folder, added, reference={added[-1].label: "independent · 2xresnet8"})
    study.write()
    for c in added:
        ffl = c.recipe.method_name == "ffl"
        finish(study, c, 0.5 if ffl else 0.9, own={"fused": 0.5} if ffl else {})
    return StudyTable(findings(Study.open(folder)))


def test_the_plan_is_shown_above_the_table(planned: StudyTable) -> None:
    for text in (shown(planned), planned.markdown(), planned.latex()):
        text = " ".join(text.split())
        assert "Hypothesis: FFL beats training alone" in text
        assert "Contrasts: ffl vs independent; ffl vs dml, of one network, n = 3 (seeds 0, 1, 2)." in text
        assert re.search(r"Planned 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC.*, before the first run", text)
        assert text.index("Hypothesis") < text.index("one network,") or text.index("Hypothesis") < text.index("94.00")


def test_only_the_contrasts_of_the_plan_decide_and_by_the_planned_seeds(planned: StudyTable) -> None:
    entries = {line.row.method: {k: e.text for k, e in line.cells.items()} for line in planned.lines}
    ffl, dml = entries["ffl"], entries["dml"]
    assert ffl["over"] == "independent; dml" and ffl["wins"] == "3 of 3; 3 of 3"
    assert ffl["gain"].startswith("+3.00 [−0.58, 6.58]; +3.17 [") and ffl["verdict"].count("undecided") == 2
    # DML is not named: all five seeds, an interval of 95 %, and no test.
    accuracy = [100 * (a - b) for a, b in zip(ACCURACIES["dml"], ACCURACIES["independent"], strict=True)] + [0, 0]
    low, high = stats.ttest_1samp(accuracy, 0).confidence_interval()
    assert dml["gain"] == f"−0.10 [{low:.2f}, {high:.2f}]".replace("-", "−")
    assert (dml["p"], dml["smallest"], dml["verdict"], dml["over"]) == ("–", "–", "descriptive", "independent")
    assert "corrected for 2 tests by Holm's procedure" in planned.markdown()
    assert "with its confidence interval at 1 – 0.05 / 2, of 95 % where it is descriptive" in planned.markdown()


def test_what_was_added_later_is_marked(planned: StudyTable) -> None:
    entries = {line.row.method: line.cells["n"].text for line in planned.lines}
    assert entries["ffl"] == "5, 2 added later" and entries["okddip"] == "1 added later"
    runs = list(csv.DictReader(io.StringIO(planned.runs_csv())))
    later = {(r["method"], r["seed"]) for r in runs if r["added_later"] == "yes"}
    assert later == {(m, s) for m in ACCURACIES for s in "34"} | {("okddip", "0")}
    summary = list(csv.DictReader(io.StringIO(planned.summary_csv())))
    assert {(r["method"], r["added_later"]) for r in summary} == {*((m, "2") for m in ACCURACIES), ("okddip", "1")}


def test_the_summary_has_a_line_for_each_contrast(planned: StudyTable) -> None:
    summary = list(csv.DictReader(io.StringIO(planned.summary_csv())))
    found = {r["against"]: r for r in summary if (r["method"], r["predictor"]) == ("ffl", "mean_peer")}
    assert list(found) == ["independent · 2xresnet8, mean_peer", "dml · 2xresnet8, mean_peer"]
    first = found["independent · 2xresnet8, mean_peer"]
    assert (first["pairs"], first["verdict"]) == ("3", "undecided")
    p, smaller = (stats.ttest_rel(ACCURACIES["ffl"], ACCURACIES[other]).pvalue for other in ("independent", "dml"))
    assert (float(first["p"]), float(first["p_holm"])) == pytest.approx((p, 2 * smaller), rel=1e-6)
    assert (float(first["gain_low"]), float(first["gain_high"])) == pytest.approx((-0.5827, 6.5827), abs=1e-4)
    assert float(first["smallest_gain"]) == pytest.approx(4.6248, abs=1e-4)
    (ensemble,) = (r for r in summary if (r["method"], r["predictor"]) == ("dml", "ensemble"))
    assert (ensemble["p"], ensemble["p_holm"], ensemble["verdict"]) == ("", "", "descriptive")


def test_a_decision_before_all_planned_seeds_are_done_says_so(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", ACCURACIES, PLAN)
    study.run_folder(cell("ffl", 2)).result_file.unlink()
    table = StudyTable(findings(study))
    (line,) = (line for line in table.lines if line.row.method == "ffl")
    assert line.cells["verdict"].text == "undecided (2 of 3 seeds); undecided (2 of 3 seeds)"
    for method in ("independent", "dml"):
        study.run_folder(cell(method, 0)).result_file.unlink()
    (line,) = (line for line in StudyTable(findings(study)).lines if line.row.method == "ffl")
    assert line.cells["verdict"].text == "undecided (1 of 3 seeds); undecided (1 of 3 seeds)"
    assert line.cells["p"].text == "–; –"


def test_another_predictor_can_be_the_one_that_is_deployed(tmp_path: Path) -> None:
    for deployed, name, gain in (("ensemble", "the ensemble", "+3.00"), ("peer1", "peer1", "+3.00")):
        study = made_up(tmp_path / deployed, ACCURACIES, PlanOptions(contrasts="ffl:independent", deployed=deployed))
        table = StudyTable(findings(study))
        (line,) = (line for line in table.lines if line.row.method == "ffl")
        assert line.cells["gain"].text.startswith(gain) and line.cells["verdict"].text == "better"
        assert f"gain: of {name} over independent" in table.markdown() and f", of {name}, n = 3" in table.markdown()
        (decided,) = (c for c in table.findings.comparisons if c.decision is not None)
        assert (decided.predictor, decided.against) == (deployed, deployed)


def test_rows_on_a_trunk_have_a_gain_over_both_references(tmp_path: Path) -> None:
    trunk = [
        dataclasses.replace(cell("independent", s, share_until="stage2"), label="trunk · 2xresnet8") for s in (0, 1)
    ]
    cells = [cell(m, s) for m in ("independent", "ffl") for s in (0, 1)] + trunk
    alone, ffl, on_trunk = "independent · 2xresnet8", "ffl · 2xresnet8", "trunk · 2xresnet8"
    reference = {ffl: alone, on_trunk: alone}
    study = Study(tmp_path / "s", cells, reference=reference, trunk_reference={ffl: on_trunk})
    study.write()
    for c, accuracy in zip(cells, (0.90, 0.92, 0.93, 0.94, 0.91, 0.91), strict=True):
        finish(study, c, accuracy)
    entries = {line.row.method: line.cells for line in StudyTable(findings(study)).lines}
    assert entries["ffl"]["over"].text == "independent; trunk"
    assert [text.partition(" ")[0] for text in entries["ffl"]["gain"].text.split("; ")] == ["+2.50", "+2.50"]
    assert entries["trunk"]["over"].text == "independent"
    assert "corrected for 3 tests" in StudyTable(findings(study)).markdown()


def test_names_in_files_break_no_format_and_control_no_terminal(tmp_path: Path) -> None:
    wicked = dataclasses.replace(cell("dml"), label="=ffl|x\x1b]0;T\x07[/bold]\n% y · 2xresnet8")
    study = Study(tmp_path / "s", [wicked], left_out={"a\x1b[2J|[/red]": "they\ndiffer \\input{x}"})
    study.write()
    finish(study, wicked, 0.9)
    table = StudyTable(findings(Study.open(tmp_path / "s")))
    assert "\x1b" not in shown(table) and "[/bold]" in shown(table) and "[/red]" in shown(table)
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 3 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    after = table.latex().partition("\\end{table}")[2]
    assert all(line.startswith("%") for line in after.strip().splitlines())
    (run, *_) = csv.DictReader(io.StringIO(table.runs_csv()))
    assert run["method"] == "'=ffl|x]0;T[/bold] % y"


def test_a_notebook_gets_the_table_and_its_caption_escaped(table: StudyTable, tmp_path: Path) -> None:
    text = table._repr_html_()
    assert text.count("<tr>") == 1 + len(ACCURACIES) and "94.00 ± 1.00" in text
    assert "Top-1 accuracy on the" in text
    wicked = dataclasses.replace(cell("dml"), label="<img src=x> · 2xresnet8")
    study = Study(tmp_path / "s", [wicked], left_out={"a": "<script>"})
    study.write()
    finish(study, wicked, 0.9)
    text = StudyTable(findings(Study.open(tmp_path / "s")))._repr_html_()
    assert "&lt;img src=x&gt;" in text and "&lt;script&gt;" in text
    assert "<img" not in text and "<script" not in text


def test_validation_accuracies_stand_beside_where_images_are_held_out(tmp_path: Path, table: StudyTable) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.90, 0.92], "ffl": [0.93, 0.95]})
    for cell_, accuracy in zip(study.cells, (0.85, 0.80, 0.87, 0.82), strict=True):
        file = study.run_folder(cell_).result_file
        result = json.loads(file.read_text())
        result["mean_peer"]["validation"] = result["mean_peer"]["last"] | {"top1_error": 1 - accuracy}
        file.write_text(json.dumps(result))
    found = StudyTable(findings(study))
    cells = {line.row.method: line.cells for line in found.lines}
    by_row = {cell_.label: [] for cell_ in study.cells}
    for cell_, accuracy in zip(study.cells, (85, 80, 87, 82), strict=True):
        by_row[cell_.label].append(accuracy)
    for method, told in cells.items():
        values = by_row[f"{method} · {study.cells[0].label.split(' · ')[1]}"]
        assert told["validation"].value == pytest.approx(sum(values) / 2)
    assert "by which settings are chosen" in found.markdown()
    assert "validation" not in [column.key for column in table.columns]
