"""The folder of a study: what it says of its cells, and what it refuses."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from collegium.errors import UsageError
from collegium.methods.ffl import FFL
from collegium.options import _signature
from collegium.study.cell import Cell
from collegium.study.study import Study
from collegium.yaml_text import read_yaml
from helpers_study import cell, finish, made_up


def test_a_study_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    cells = [cell("independent", 0), cell("ffl", 0, share_until="stage2"), cell("ffl", 1, share_until="stage2")]
    cells += [cell("kd", 0, peers="resnet8", teacher="teacher"), Cell("teacher", cell(epochs=2).recipe)]
    reference = {cells[1].label: cells[0].label}
    study = Study(tmp_path / "s", cells, reference=reference, left_out={"one · a,b": "they differ"})
    study.write()
    again = Study.open(tmp_path / "s")
    assert [(c.label, c.key, c.teacher) for c in again.cells] == [(c.label, c.key, c.teacher) for c in cells]
    assert (again.reference, again.left_out) == (reference, {"one · a,b": "they differ"})
    said = read_yaml(study.file)
    assert said["common"]["batch_size"] == 20 and "epochs" not in said["common"]
    assert said["provenance"]["torch"]


def test_cells_can_be_added_and_nothing_is_lost(tmp_path: Path) -> None:
    Study(tmp_path / "s", [cell("independent", 0)]).write()
    Study(tmp_path / "s", [cell("independent", 0), cell("independent", 1), cell("ffl", 0)]).write()
    assert [c.name for c in Study.open(tmp_path / "s").cells] == [
        "independent · 2xresnet8, seed 0", "independent · 2xresnet8, seed 1", "ffl · 2xresnet8, seed 0",
    ]  # fmt: skip


def test_states(tmp_path: Path) -> None:
    cells = [cell("independent", seed) for seed in range(4)]
    study = Study(tmp_path / "s", cells)
    study.write()
    finish(study, cells[0], 0.9)
    finish(study, cells[1], 0.9)
    study.run_folder(cells[1]).result_file.unlink()
    study.errors.mkdir()
    study.error_file(cells[2]).write_text("failed: the loss is not finite\n\nTraceback ...")
    found = Study.open(tmp_path / "s").outcomes()
    assert [o.state for o in found] == ["done", "broken", "failed", "waiting"]
    assert found[0].result is not None and found[0].result["complete"]
    assert found[2].error == "the loss is not finite"


def test_a_cell_waits_for_its_teacher_and_is_taught_by_the_one_of_its_seed(tmp_path: Path) -> None:
    teachers = [Cell("teacher", cell(seed=seed).recipe) for seed in (0, 1)]
    students = [cell("kd", seed, peers="resnet8", teacher="teacher") for seed in (0, 1)]
    study = Study(tmp_path / "s", [*teachers, *students])
    for teacher, student in zip(teachers, students, strict=True):
        assert study.recipe(student).teacher == str(study.run_folder(teacher).path.resolve())
        assert study._job(student).after == teacher.key
    study.errors.mkdir(parents=True)
    study.error_file(teachers[1]).write_text("failed: no\n\n")
    assert study.outcome(students[1]).error == "its teacher teacher did not finish"
    with pytest.raises(UsageError, match="needs the teacher 'teacher' of the same seed"):
        Study(tmp_path / "t", [teachers[0], students[1]])


def test_a_run_stays_where_it_began(tmp_path: Path) -> None:
    begun = cell("independent", 0)
    study = Study(tmp_path / "s", [begun])
    finish(study, begun, 0.9)
    elsewhere = cell("independent", 0, device="auto")
    assert elsewhere.key == begun.key
    assert Study(tmp_path / "s2", [elsewhere]).recipe(elsewhere).device == "auto"
    study.write()
    assert Study(tmp_path / "s", [elsewhere]).recipe(elsewhere).device == "cpu"


@pytest.fixture
def changeable_defaults() -> Iterator[None]:
    """Signatures are read anew, in the test and after it."""
    _signature.cache_clear()
    yield
    _signature.cache_clear()


def test_runs_are_found_where_a_default_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changeable_defaults: None
) -> None:
    begun = cell("ffl")
    study = Study(tmp_path / "s", [begun])
    finish(study, begun, 0.9)
    study.write()
    monkeypatch.setitem(FFL.__init__.__kwdefaults__, "temperature", 4.0)
    _signature.cache_clear()
    assert dataclasses.replace(begun).key == begun.key  # which says nothing of a default
    (outcome,) = Study.open(tmp_path / "s").outcomes()
    assert outcome.state == "done" and outcome.cell.recipe.method["temperature"] == 3.0
    with pytest.raises(UsageError, match="another recipe .method.temperature: 4.0 here, 3.0 there"):
        Study(tmp_path / "s", [cell("ffl")])
    explicit = dataclasses.replace(
        begun, recipe=dataclasses.replace(begun.recipe, method={"name": "ffl", "temperature": 3})
    )
    assert Study(tmp_path / "s", [explicit]).outcomes()[0].state == "done"


@pytest.mark.parametrize(
    ("cells", "reference", "sentence"),
    [
        ([], {}, "the grid is empty"),
        ([cell("ffl"), cell("ffl", epochs=3)], {}, "'ffl · 2xresnet8, seed 0' with another recipe .epochs: 3 here, 1"),
        ([cell("ffl")], {"ffl · 2xresnet8": "independent"}, "no row of the study is called 'independent'"),
    ],
)
def test_a_grid_that_contradicts_itself_is_refused(
    cells: list[Cell], reference: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Study(tmp_path / "s", cells, reference=reference)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(UsageError, match="photos holds something that is no study; choose another folder"):
        Study(tmp_path / "photos", [cell()])
    with pytest.raises(UsageError, match="is not a study: it has no study.yaml"):
        Study.open(tmp_path / "photos")
    Study(tmp_path / "s", [cell("ffl")]).write()
    with pytest.raises(UsageError, match="batch_size: 10 here, 20 there.*choose another folder with --study"):
        Study(tmp_path / "s", [cell("ffl", batch_size=10)])
    (tmp_path / "s" / "study.yaml").write_text("cells: 3\n")
    with pytest.raises(UsageError, match="study.yaml is not that of a study"):
        Study.open(tmp_path / "s")


def test_a_run_of_another_recipe_in_the_place_of_a_cell_s_is_refused(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": [0.9]})
    file = study.run_folder(study.cells[0]).recipe_file
    file.write_text(file.read_text().replace("epochs: 1", "epochs: 2"))
    with pytest.raises(UsageError, match="holds a run of another recipe .epochs: 2 here, 1 there"):
        study.run()
    (outcome,) = study.outcomes()  # which a table shows beside the others
    assert outcome.state == "broken" and "another recipe" in str(outcome.error)


def test_what_cannot_be_built_is_found_before_anything_is_written(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", [cell("independent"), cell("one")])
    with pytest.raises(UsageError, match="one · 2xresnet8: ONE's gate reads .* a shared trunk"):
        study.run()
    assert not (tmp_path / "s").exists()
