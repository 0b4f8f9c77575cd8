"""Finished runs of `collegium train` as the rows of a comparison."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import collegium
from collegium.cli import main
from collegium.errors import UsageError
from collegium.pages.study_table import StudyTable
from collegium.results.comparison import findings
from collegium.results.runs import read_runs
from collegium.study.cell import Cell
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder
from made_up_runs import write_run, write_study

ALONE = {"peer0": 0.31, "peer1": 0.29, "mean_peer": 0.30, "ensemble": 0.28}
SINGLE = {"peer0": 0.31, "mean_peer": 0.31, "ensemble": 0.31}


def recipe(method: str = "dml", seed: int = 0, *, peers: str = "2xresnet32", **changes: Any) -> Recipe:
    values = {"method": method, "peers": peers, "data": "cifar100", "epochs": 100, "seed": seed, "device": "cpu"}
    return Recipe.from_dict(values | changes)


def write(folder: Path, name: str, *, error: float = 0.3, **given: Any) -> Path:
    made = recipe(**given)
    one = made.peers.count(",") == 0 and "x" not in made.peers
    write_run(folder / name, made, (SINGLE if one else ALONE) | {"mean_peer": error})
    return folder / name


def test_runs_that_differ_in_the_seed_are_a_row_compared_with_networks_alone(tmp_path: Path) -> None:
    for seed, (alone, dml) in enumerate([(0.30, 0.27), (0.31, 0.279), (0.29, 0.261)]):
        write(tmp_path, f"alone-{seed}", method="independent", seed=seed, error=alone)
        write(tmp_path, f"dml-{seed}", method="dml", seed=seed, error=dml)
    table = collegium.compare_runs(sorted(tmp_path.iterdir()))
    (compared,) = table.findings.headline
    assert (compared.row.label, compared.over, compared.gain.spread.n) == ("dml · 2xresnet32", "independent", 3)
    assert compared.gain.by_seed == pytest.approx({0: 3.0, 1: 3.1, 2: 2.9})
    assert table.answer.startswith("Yes: dml makes one network 3.00 points") and not table.problems
    assert "3 seeds on cifar100" in table.title


def test_rows_are_called_by_the_entries_in_which_they_differ(tmp_path: Path) -> None:
    write(tmp_path, "a", method="independent")
    write(tmp_path, "b", method={"name": "dml", "temperature": 3.0}, learning_rate=0.05)
    write(tmp_path, "c", method="ffl", share_until="stage2", data={"name": "cifar100", "per_class": 50})
    found = read_runs([tmp_path], tmp_path)
    assert found.labels == [
        "independent:learning_rate=0.1 · 2xresnet32",
        "dml:temperature=3:learning_rate=0.05 · 2xresnet32",
        "ffl:share_until=stage2:learning_rate=0.1:data.per_class=50 · 2xresnet32",
    ]


def test_an_unfair_comparison_is_not_made_and_said(tmp_path: Path) -> None:
    write(tmp_path, "a", method="independent")
    write(tmp_path, "fair", method="dml", weight_decay=5e-4)
    write(tmp_path, "longer", method="ffl", epochs=200)
    write(tmp_path, "less", method="okddip", peers="2xresnet32", data={"name": "cifar100", "per_class": 50})
    write(tmp_path, "peers", method="dml", peers="2xresnet20")
    found = read_runs([tmp_path], tmp_path)
    (fair,) = found.reference
    assert fair.startswith("dml:") and found.reference[fair].startswith("independent")
    said = {label.partition(":")[0].partition(" ")[0] + label[-8:]: why for label, why in found.not_compared.items()}
    assert said == {
        "fflresnet32": "the runs of independent that are nearest to it have other epochs",
        "okddipresnet32": "the runs of independent that are nearest to it have other data",
        "dmlresnet20": "no run of independent with these peers is among them",
    }
    problems = StudyTable(findings(found)).problems
    assert len(problems) == 3 and all(problem.startswith("Not compared: ") for problem in problems)


def test_of_several_baselines_the_one_of_the_same_recipe_is_taken_or_none(tmp_path: Path) -> None:
    write(tmp_path, "a", method="independent", weight_decay=1e-4)
    write(tmp_path, "b", method="independent", weight_decay=5e-4)
    write(tmp_path, "same", method="dml", weight_decay=5e-4)
    write(tmp_path, "neither", method="dml", weight_decay=1e-3)
    found = read_runs([tmp_path], tmp_path)
    assert found.reference == {
        "dml:weight_decay=0.0005 · 2xresnet32": "independent:weight_decay=0.0005 · 2xresnet32",
    }
    assert "are equally near to its recipe" in found.not_compared["dml:weight_decay=0.001 · 2xresnet32"]


def test_rows_on_a_trunk_have_both_references(tmp_path: Path) -> None:
    write(tmp_path, "a", method="independent")
    write(tmp_path, "b", method="independent", share_until="stage2")
    write(tmp_path, "c", method="ffl", share_until="stage2")
    found = read_runs([tmp_path], tmp_path)
    apart, trunk, ffl = found.labels
    assert found.reference == {ffl: apart, trunk: apart} and found.trunk_reference == {ffl: trunk}


def test_the_network_alone_beside_runs_is_a_baseline_of_one_network(tmp_path: Path) -> None:
    for seed, (alone, dml) in enumerate([(0.30, 0.27), (0.31, 0.279), (0.29, 0.261)]):
        write(tmp_path, f"dml-{seed}", method="dml", seed=seed, error=dml)
        write(tmp_path, f"dml-{seed}-baseline", method="independent", peers="resnet32", seed=seed, error=alone)
    table = collegium.compare_runs(tmp_path)
    assert {c.predictor for c in table.findings.comparisons} == {"mean_peer"}  # an ensemble of one is none
    assert "3.00 points (2.75 to 3.25) more accurate than the same network alone" in table.answer


def test_peers_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    write(tmp_path, "a", method="dml")
    write(tmp_path, "b", method="dml", seed=1, peers="resnet32,resnet32")
    (row,) = findings(read_runs([tmp_path], tmp_path)).rows
    assert (row.method, row.cohort, list(row.results)) == ("dml", "2xresnet32", [0, 1])


def test_what_cannot_be_compared_is_left_out_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path, "good", method="dml")
    write(tmp_path, "other_split", method="dml", data={"name": "cifar100", "split_seed": 3})
    write(tmp_path, "twice", method="dml")
    write(tmp_path, "broken", method="dml", seed=1)
    (tmp_path / "broken" / "result.json").write_text("{")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").write_text((tmp_path / "good" / "recipe.yaml").read_text())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "file.txt").touch()
    write(tmp_path, "odd", method="dml", seed=2)
    result = RunFolder(tmp_path / "odd").result() or {}
    more = {"predictors": result["predictors"] | {"fused": result["predictors"]["peer0"]}}
    more |= {key: result[key] | {"fused": result[key]["peer0"]} for key in ("cost", "class_accuracy")}
    RunFolder(tmp_path / "odd").write_result(result | more)
    found = read_runs(sorted(tmp_path.iterdir()), tmp_path)
    reasons = {Path(place).name: why for place, why in found.left_out.items()}
    assert len(found.cells) == 1
    assert "result.json is" in reasons["broken"]
    assert reasons["unfinished"] == "it is not finished; repeat the command that trains it"
    assert reasons["foreign"] == "it holds no finished run" and reasons["file.txt"] == "it is a file, not a run"
    assert "but another split, weight seed or data seed" in reasons["other_split"]
    assert reasons["twice"].startswith("it has the recipe and the seed of ")
    assert "it has other predictors than" in reasons["odd"]


def test_runs_on_data_that_have_changed_are_not_mixed(tmp_path: Path) -> None:
    for name, method, fingerprint in (("a", "independent", "1"), ("b", "dml", "2")):
        file = write(tmp_path, name, method=method) / "recipe.yaml"
        file.write_text(f"{file.read_text()}provenance: {{data_fingerprint: '{fingerprint}'}}\n")
    ((place, why),) = read_runs([tmp_path], tmp_path).left_out.items()
    assert place == str(tmp_path / "b") and "trained on other images than" in why


def test_a_study_s_runs_may_be_among_them(tmp_path: Path) -> None:
    write_study(tmp_path / "study", [(Cell("alone", recipe("independent")), ALONE)])
    write(tmp_path, "dml", method="dml")
    found = read_runs([tmp_path / "study", tmp_path / "dml"], tmp_path)
    assert found.reference == {"dml · 2xresnet32": "independent · 2xresnet32"}


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no finished run to compare .*empty: it holds no finished run"):
        collegium.compare_runs([tmp_path / "empty"])
    with pytest.raises(UsageError, match="there is no folder .*nowhere"):
        collegium.compare_runs([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="the name of a folder is empty"):
        collegium.compare_runs([])
    write(tmp_path, "dml", method="dml")
    with pytest.raises(UsageError, match="is a run or a study; choose another folder with --out"):
        collegium.compare_runs(tmp_path / "dml", out=tmp_path / "dml")


def test_code_that_a_run_names_is_not_imported(tmp_path: Path) -> None:
    made = dataclasses.replace(recipe("dml"), method={"name": "module:theirs.Mine"})
    write_run(tmp_path / "theirs", made, ALONE)
    write(tmp_path, "alone", method="independent")
    table = collegium.compare_runs(tmp_path)
    assert "module:theirs.Mine" in table.markdown()


def test_the_command_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write(tmp_path, "a", method="independent")), str(write(tmp_path, "b", method="dml"))]
    before = sorted(tmp_path.rglob("*"))
    main(["compare", *runs])
    assert "With --out FOLDER the table and a page" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    main(["compare", *runs, "--out", str(tmp_path / "out")])
    assert "The page of these runs:" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "table.md", "table.tex", "summary.csv", "runs.csv", "report.html",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "one seed decides nothing" in page and "recipe.yaml" in page
