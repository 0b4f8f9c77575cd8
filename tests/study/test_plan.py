"""Contrasts as they are written, and a plan that is made once."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from collegium.errors import UsageError
from collegium.study.cell import Cell
from collegium.study.plan import Contrast, PlanOptions, make_plan, parse_contrasts
from collegium.study.study import Study
from collegium.training.recipe import read_yaml
from helpers_study import cell, finish

TRUNK = "ffl:share_until=stage2"


def rows(*methods: str, peers: tuple[str, ...] = ("2xresnet8",), seeds: int = 1) -> list[Cell]:
    """Cells that are called so; what they compute does not matter here."""
    return [
        Cell(f"{method} · {p}", cell(seed=seed, peers=p).recipe)
        for seed in range(seeds)
        for p in peers
        for method in methods
    ]


def pairs(text: str, cells: list[Cell]) -> list[str]:
    return [contrast.name.replace(" · 2xresnet8", "") for contrast in parse_contrasts(text, cells)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ffl vs independent", ["ffl vs independent"]),
        ("ffl:independent, dml : independent", ["ffl vs independent", "dml vs independent"]),
        (f"{TRUNK}:independent", [f"{TRUNK} vs independent"]),
        (f"dml:{TRUNK};ffl vs. dml;", [f"dml vs {TRUNK}", "ffl vs dml"]),
        ("ffl · 2xresnet8 vs independent", ["ffl vs independent"]),
    ],
)
def test_contrasts_are_pairs_of_rows(text: str, expected: list[str]) -> None:
    assert pairs(text, rows("independent", "dml", "ffl", TRUNK)) == expected


def test_a_pair_of_methods_is_one_contrast_for_each_cohort_that_has_both() -> None:
    cells = rows("independent", "ffl", peers=("2xresnet8", "2xresnet14")) + rows("dml")
    assert parse_contrasts("ffl:independent", cells) == (
        Contrast("ffl · 2xresnet8", "independent · 2xresnet8"),
        Contrast("ffl · 2xresnet14", "independent · 2xresnet14"),
    )
    assert parse_contrasts("dml:independent", cells) == (Contrast("dml · 2xresnet8", "independent · 2xresnet8"),)
    across = "ffl · 2xresnet8 vs ffl · 2xresnet14"
    assert [contrast.name for contrast in parse_contrasts(across, cells)] == [across]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" , ", "--contrasts names nothing; write it like"),
        ("fll:independent", "no row is called 'fll'; did you mean 'ffl'"),
        ("ffl vs nothing", "no row is called 'nothing'; known are"),
        ("ffl", "cannot read 'ffl': write two methods of this study as 'METHOD vs METHOD'"),
        ("ffl:ekd=no:independent", "cannot read 'ffl:ekd=no:independent'"),
        ("a:b:c", "'a:b:c' can be read in 2 ways; write it as 'METHOD vs METHOD'"),
        ("ffl:ffl", "compares ffl · 2xresnet8 with itself"),
        ("ffl:dml, dml:ffl", "names dml · 2xresnet8 vs ffl · 2xresnet8 twice"),
        ("ffl vs lone", "ffl and lone have no peers in common"),
    ],
)
def test_what_is_no_contrast_is_refused(text: str, sentence: str) -> None:
    cells = rows("independent", "ffl", "dml", "a", "a:b", "b:c", "c") + rows("lone", peers=("2xresnet14",))
    with pytest.raises(UsageError, match=sentence):
        parse_contrasts(text, cells)


def test_a_plan_says_all_that_was_decided_beforehand(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", rows("independent", "ffl", "dml", seeds=2))
    now = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
    options = PlanOptions("FFL  helps", "ffl:independent", "ensemble", 0.5)
    study.plan = plan = make_plan(options, study.cells, [], commit="abc", now=now)
    study.save()
    assert read_yaml(study.file)["plan"] == {
        "hypothesis": "FFL helps",
        "contrasts": [{"row": "ffl · 2xresnet8", "against": "independent · 2xresnet8"}],
        "deployed": "ensemble",
        "margin": 0.5,
        "rows": ["independent · 2xresnet8", "ffl · 2xresnet8", "dml · 2xresnet8"],
        "seeds": [0, 1],
        "written": "2026-01-31T12:00:05Z",
        "commit": "abc",
    }
    assert Study.open(study.folder).plan == plan


def test_by_default_every_row_is_compared_with_its_references(tmp_path: Path) -> None:
    cells = rows("independent", "ffl", TRUNK, "independent:share_until=stage2")
    a, f, t, i = (c.label for c in cells)
    study = Study(tmp_path / "s", cells, reference={f: a, t: a, i: a}, trunk_reference={t: i})
    study.set_plan(PlanOptions(hypothesis="a trunk harms"))
    assert study.plan is not None
    assert study.plan.contrasts == (Contrast(f, a), Contrast(t, a), Contrast(t, i), Contrast(i, a))
    assert (study.plan.deployed, study.plan.margin) == ("mean_peer", 1.0)
    study.write()
    again = Study.open(study.folder)
    assert again.references == study.references and again.plan == study.plan


def test_a_plan_does_not_change_but_rows_and_seeds_may_be_added(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first = Study(folder, rows("independent", "ffl", seeds=2))
    first.set_plan(PlanOptions("FFL helps", "ffl:independent"))
    first.write()
    more = Study(folder, rows("independent", "ffl", "dml", seeds=3))
    more.set_plan(PlanOptions("FFL helps", "ffl vs independent"))
    more.set_plan(PlanOptions())
    assert more.plan == first.plan
    later = [c.name for c in more.cells if more.added_later(c)]
    assert later == [f"{m} · 2xresnet8, seed {s}" for s in (0, 1) for m in ("dml",)] + [
        f"{m} · 2xresnet8, seed 2" for m in ("independent", "ffl", "dml")
    ]
    for name, options in {
        "hypothesis": PlanOptions("FFL harms"),
        "contrasts": PlanOptions(contrasts="ffl:independent, dml:independent"),
        "deployed": PlanOptions(deployed="ensemble"),
        "margin": PlanOptions(margin=2.0),
    }.items():
        with pytest.raises(UsageError, match=f"another --{name}, and a plan does not change; leave --{name} out"):
            more.set_plan(options)


def test_a_plan_comes_before_the_first_run(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", [cell("independent"), cell("ffl")])
    study.write()
    study.set_plan(PlanOptions())
    assert study.plan is None and "plan" not in read_yaml(study.file)
    finish(study, study.cells[0], 0.9)
    with pytest.raises(UsageError, match="independent · 2xresnet8, seed 0 has begun; leave out --contrasts, or choose"):
        study.set_plan(PlanOptions(contrasts="ffl:independent"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"hypothesis": "x"}, "the plan compares nothing"),
        (
            {"contrasts": "ffl:dml", "deployed": "fused"},
            "has no predictor 'fused'; it has mean_peer, ensemble, peer0, peer1",
        ),
        ({"margin": 0.0}, "--margin is a number of points above 0, not 0"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(given: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        Study(tmp_path / "s", rows("ffl", "dml")).set_plan(PlanOptions(**given))  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_what_is_no_plan_in_the_file_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", [cell("independent")])
    study.write()
    study.file.write_text(study.file.read_text() + "plan: {hypothesis: x}\n")
    with pytest.raises(UsageError, match="study.yaml is not that of a study"):
        Study.open(study.folder)
