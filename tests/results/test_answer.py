"""The sentence that says whether a study's method was worth it."""

from pathlib import Path

import pytest
from scipy import stats

from collegium.results.answer import answer
from collegium.results.comparison import findings
from collegium.study.plan import PlanOptions
from collegium.study.study import Study
from helpers_study import cell, finish, made_up

ALONE = [0.90, 0.91, 0.92, 0.91]


def said(folder: Path, accuracies: dict[str, list[float]], plan: PlanOptions | None = None, **changes: object) -> str:
    return answer(findings(made_up(folder / "s", accuracies, plan, **changes)))


def test_yes_says_how_much_and_what_it_costs(tmp_path: Path) -> None:
    # Gains 3, 3.1, 2.9, 3: t(0.975; 3) · 0.0816 / 2 = 0.13.
    assert said(tmp_path, {"independent": ALONE, "ffl": [0.93, 0.941, 0.949, 0.94]}) == (
        "Yes: ffl makes one network 3.00 points (2.87 to 3.13) more accurate than the same network alone, at 2.00 "
        "times the training time of 2 networks alone and no extra cost at inference."
    )


def test_the_best_that_is_better_is_named_of_so_many(tmp_path: Path) -> None:
    text = said(
        tmp_path,
        {"independent": ALONE, "ffl": [0.95, 0.80, 0.99, 0.94], "dml": [0.93, 0.941, 0.949, 0.94]},
    )
    assert text.startswith("Yes: the best of 2 contrasts is dml, which makes one network 3.00 points (")


def test_undecided_says_what_could_have_been_shown(tmp_path: Path) -> None:
    text = said(tmp_path, {"independent": ALONE, "ffl": [0.91, 0.90, 0.94, 0.90]})
    assert text.startswith("Undecided: ffl made one network 0.25 points (−2.14 to 2.64) more accurate than the same")
    assert text.endswith("; this study could have shown 3.19 points.")
    assert stats.nct.sf(stats.t.isf(0.025, 3), 3, 3.19 / (1.5 / 2)) == pytest.approx(0.8, abs=2e-3)
    assert "training time" not in text


def test_undecided_and_behind_is_told_as_less(tmp_path: Path) -> None:
    text = said(tmp_path, {"independent": ALONE, "ffl": [0.90, 0.90, 0.91, 0.915]})
    assert text.startswith("Undecided: ffl made one network 0.38 points (−0.82 to 1.57) less accurate")


@pytest.mark.parametrize(
    ("ffl", "expected"),
    [
        (
            [0.87, 0.881, 0.889, 0.88],
            "No: ffl makes one network 3.00 points (2.87 to 3.13) less accurate than the same",
        ),
        (
            [0.90, 0.911, 0.919, 0.91],
            "No: ffl changes the accuracy of one network by less than 0.13 points from that of the same network alone, "
            "at 2.00 times the training time of 2 networks alone and no extra cost at inference.",
        ),
    ],
)
def test_no_is_worse_or_as_good_as_no_difference(tmp_path: Path, ffl: list[float], expected: str) -> None:
    assert said(tmp_path, {"independent": ALONE, "ffl": ffl}).startswith(expected)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, {"independent": [0.9], "ffl": [0.95]}) == (
        "Undecided: ffl made one network 5.00 points more accurate than the same network alone with one seed, and one "
        "seed decides nothing."
    )


def test_seeds_that_are_missing_and_contrasts_that_have_no_runs(tmp_path: Path) -> None:
    study = made_up(
        tmp_path / "s",
        {"independent": ALONE, "ffl": [0.93, 0.941, 0.949, 0.94], "dml": [0.9] * 4},
        PlanOptions(contrasts="ffl:independent, ffl vs dml"),
    )
    study.run_folder(cell("independent", 3)).result_file.unlink()
    text = answer(findings(study))
    assert text.startswith("Yes, with 3 of 4 seeds so far: ffl makes one network 3.00 points")  # alone, not over dml
    for seed in range(4):
        study.run_folder(cell("ffl", seed)).result_file.unlink()
    assert answer(findings(study)) == "Undecided: no planned contrast has a pair of finished runs yet."


def test_a_baseline_with_another_recipe_is_named(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": ALONE})
    rows = [cell("dml", seed, label_smoothing=0.1) for seed in range(4)]
    study = Study(study.folder, rows, reference={rows[0].label: "independent · 2xresnet8"})
    study.write()
    for row, accuracy in zip(rows, [0.93, 0.941, 0.949, 0.94], strict=True):
        finish(study, row, accuracy)
    assert "more accurate than independent, at 1.00 times" in answer(findings(study))


def test_a_row_beside_another_method_is_named(tmp_path: Path) -> None:
    plan = PlanOptions(contrasts="ffl vs dml")
    text = said(tmp_path, {"dml": ALONE, "ffl": [0.93, 0.941, 0.949, 0.94]}, plan)
    assert text.endswith("more accurate than dml, at 2.00 times its training time and no extra cost at inference.")


@pytest.mark.parametrize(("deployed", "expected"), [("ensemble", "the ensemble"), ("peer1", "resnet8")])
def test_of_another_predictor(tmp_path: Path, deployed: str, expected: str) -> None:
    plan = PlanOptions(contrasts="ffl:independent", deployed=deployed)
    text = said(tmp_path, {"independent": ALONE, "ffl": [0.93, 0.941, 0.949, 0.94]}, plan)
    than = "that of independent" if deployed == "ensemble" else "the same network alone"
    assert f"makes {expected} 3.00 points (2.87 to 3.13) more accurate than {than}, at" in text


def test_times_of_two_machines_are_left_out(tmp_path: Path) -> None:
    study = made_up(tmp_path / "s", {"independent": ALONE, "ffl": [0.93, 0.941, 0.949, 0.94]})
    file = study.run_folder(cell("ffl", 0)).recipe_file
    file.write_text(file.read_text().replace("a processor", "another"))
    assert answer(findings(study)).endswith("the same network alone, at no extra cost at inference.")


def test_nothing_is_said_where_nothing_is_compared(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", [cell("ffl")])
    study.write()
    finish(study, cell("ffl"), 0.9)
    assert answer(findings(study)) == ""
