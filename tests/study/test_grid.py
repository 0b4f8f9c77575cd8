import dataclasses

import pytest

from collegium.errors import UsageError
from collegium.study.grid import Grid, Variant, make_grid, parse_cohorts, parse_methods, parse_seeds
from collegium.study.trial import Trial
from collegium.training.recipe import Recipe
from helpers_study import cell

BASE = cell().recipe
TRIAL = Trial()


def grid(methods: str, peers: str = "2xresnet8", seeds: tuple[int, ...] = (0,), **keywords: str) -> Grid:
    base = dataclasses.replace(BASE, share_until=keywords.pop("share_until", None))
    return make_grid(base, methods, peers, seeds, trial=TRIAL, **keywords)


def rows(found: Grid) -> dict[str, Recipe]:
    return {c.label: c.recipe for c in found.cells}


def test_every_method_with_every_cohort_and_seed_seed_by_seed() -> None:
    found = grid("independent,dml", "2xresnet8; resnet8, wrn_10_1", (0, 5))
    labels = [f"{m} · {p}" for p in ("2xresnet8", "resnet8,wrn_10_1") for m in ("independent", "dml")]
    assert [c.name for c in found.cells] == [f"{label}, seed {seed}" for seed in (0, 5) for label in labels]
    assert found.reference == {f"dml · {p}": f"independent · {p}" for p in ("2xresnet8", "resnet8,wrn_10_1")}
    assert all(c.recipe.batch_size == 20 for c in found.cells)


def test_options_follow_a_method_s_name() -> None:
    assert parse_methods("ffl, ffl:ekd=false:temperature=4") == [
        Variant("ffl", "ffl", {}),
        Variant("ffl:ekd=false:temperature=4", "ffl", {"ekd": False, "temperature": 4}),
    ]
    (tree,) = parse_methods("one:share_until=stage1,stage2;")
    assert tree.recipe == {"share_until": "stage1,stage2"}
    found = rows(grid("ffl;ffl:ekd=false"))
    assert found["ffl:ekd=false · 2xresnet8"].method == {"name": "ffl", "ekd": False}


def test_a_row_may_have_entries_of_the_recipe_for_itself() -> None:
    (smooth,) = parse_methods("independent:label_smoothing=0.1:weight_decay=0.001")
    assert smooth.options == {} and smooth.recipe == {"label_smoothing": 0.1, "weight_decay": 0.001}
    found = grid("independent,independent:label_smoothing=0.1,independent:share_until=stage2")
    recipes = {label.partition(" ")[0]: recipe for label, recipe in rows(found).items()}
    assert recipes["independent:label_smoothing=0.1"].label_smoothing == 0.1
    assert recipes["independent"].label_smoothing == 0.0
    assert recipes["independent:share_until=stage2"].share_until == "stage2"
    assert set(found.reference.values()) == {"independent · 2xresnet8"}


def test_a_seed_may_choose_the_split_too() -> None:
    found = grid("independent,dml", seeds=(3, 4), vary="split")
    assert [c.recipe.data["split_seed"] for c in found.cells] == [3, 3, 4, 4]
    assert [c.recipe.seed for c in found.cells] == [3, 3, 4, 4]
    assert all("split_seed" not in c.recipe.data for c in grid("dml", seeds=(3,)).cells)


def test_a_split_that_nothing_draws_is_refused() -> None:
    whole = dataclasses.replace(BASE, data={"name": "digits"})
    with pytest.raises(UsageError, match="nothing to draw: all of digits's training images.*--data.per-class"):
        make_grid(whole, "dml", "2xresnet8", [0], vary="split", trial=TRIAL)
    fixed = dataclasses.replace(BASE, data={"name": "digits", "per_class": 5, "split_seed": 2})
    with pytest.raises(UsageError, match="leave out --data.split-seed"):
        make_grid(fixed, "dml", "2xresnet8", [0], vary="split", trial=TRIAL)
    noisy = dataclasses.replace(BASE, data={"name": "digits", "label_noise": 0.2})
    assert make_grid(noisy, "dml", "2xresnet8", [7], vary="split", trial=TRIAL).cells[0].recipe.data["split_seed"] == 7


def test_cohorts_and_seeds() -> None:
    assert parse_cohorts("2xresnet32; resnet32 , wrn_16_2;") == ["2xresnet32", "resnet32,wrn_16_2"]
    assert parse_seeds("0, 1,12") == [0, 1, 12]
    assert parse_seeds("0-3,7, 9-10") == [0, 1, 2, 3, 7, 9, 10]


def test_who_shares_a_trunk() -> None:
    said = {label.partition(" ")[0]: r.share_until for label, r in rows(grid("independent,dml,one")).items()}
    assert said == {"independent": None, "dml": None, "one": "stage2"}, "ONE alone needs a trunk"
    said = {k.partition(" ")[0]: r.share_until for k, r in rows(grid("independent,dml", share_until="stage1")).items()}
    assert said == {"independent": None, "dml": "stage1"}
    assert rows(grid("one:share_until=stage1"))["one:share_until=stage1 · 2xresnet8"].share_until == "stage1"


def test_independent_networks_on_a_trunk_are_a_second_reference() -> None:
    found = grid("independent,independent:share_until=stage2,dml,ffl:share_until=stage2,ffl:share_until=stage1,one")
    trunk = "independent:share_until=stage2"
    said = {label.partition(" ")[0]: recipe.share_until for label, recipe in rows(found).items()}
    assert said["independent"] is None and said[trunk] == "stage2"
    short = {row.partition(" ")[0]: other.partition(" ")[0] for row, other in found.reference.items()}
    assert short == dict.fromkeys(
        [trunk, "dml", "ffl:share_until=stage2", "ffl:share_until=stage1", "one"], "independent"
    )
    assert found.trunk_reference == {
        f"{row} · 2xresnet8": f"{trunk} · 2xresnet8" for row in ("ffl:share_until=stage2", "one")
    }


def test_networks_on_a_trunk_are_the_reference_where_there_are_no_others() -> None:
    found = grid("independent:share_until=stage2,dml,one")
    assert found.reference == {"one · 2xresnet8": "independent:share_until=stage2 · 2xresnet8"}
    assert not found.trunk_reference


def test_a_method_that_fits_another_cohort_is_left_out_with_the_reason() -> None:
    found = grid("independent,one", "2xresnet8; resnet8,wrn_10_1")
    assert "one · resnet8,wrn_10_1" not in rows(found) and "one · 2xresnet8" in rows(found)
    reason = found.left_out["one · resnet8,wrn_10_1"]
    assert "ONE's gate reads the output of a shared trunk" in reason
    assert "with one:share_until=stage2, or switch the gate off with one:gate=false" in reason


def test_a_teacher_is_a_run_of_its_own_for_the_methods_that_need_one() -> None:
    found = grid("independent,kd", "resnet8", (0, 1), teacher="resnet14")
    assert [(c.label, c.seed, c.teacher) for c in found.cells if c.seed == 1] == [
        ("teacher · resnet14", 1, None),
        ("independent · resnet8", 1, None),
        ("kd · resnet8", 1, "teacher · resnet14"),
    ]
    assert rows(found)["teacher · resnet14"].method_name == "independent"
    assert found.reference == {"kd · resnet8": "independent · resnet8"}


def test_a_teacher_may_be_given_to_a_method_that_does_without() -> None:
    found = grid("dualnet,dml", "2xresnet8", (0,), teacher="resnet8")
    assert [(c.label, c.teacher) for c in found.cells[1:]] == [
        ("dualnet · 2xresnet8", "teacher · resnet8"),
        ("dml · 2xresnet8", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("",), "the grid is empty: --methods names nothing"),
        (("dml", " ; "), "the grid is empty: --peers names nothing"),
        (("dml", "2xresnet8", ()), "the grid is empty: --seeds names nothing"),
        (("dml,ffx",), "no method is called 'ffx'; did you mean 'ffl'"),
        (("ffl:temprature=3",), "FFL has no option 'temprature'; did you mean 'temperature'"),
        (("ffl:temperature=warm",), "FFL's temperature must be a number, not 'warm'"),
        (("ffl:ekd=",), "cannot read 'ffl:ekd=': write a method's options like"),
        (("ffl:share_until",), "ffl:share_until: share_until must be a text or nothing, not True"),
        (("dml:learning_rate=fast",), "dml:learning_rate=fast: learning_rate must be a number, not 'fast'"),
        (("dml,dml",), "--methods names dml twice"),
        (("dml", "2xresnte20"), "no network is called 'resnte20'; did you mean 'resnet20'"),
        (("dml", "2xresnet8;2xresnet8"), "--peers names 2xresnet8 twice"),
        (("dml", "resnet8"), "dml · resnet8: DML needs at least 2 peers"),
        (("independent,dml", "2xresnet8;resnet8,resnet9"), "has 6n \\+ 2 layers"),
        (("one", "resnet8,wrn_10_1"), "one · resnet8,wrn_10_1: ONE's gate reads"),
        (("dml:share_until=stage9",), "cannot be cut after 'stage9'"),
        (("kd", "resnet8"), "KD needs a trained teacher"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        grid(*arguments)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    with pytest.raises(UsageError, match="none of the methods dml learns from a teacher"):
        grid("dml", teacher="resnet20")
    for text in ("0,x", "-1", "1-", "0-2-4"):
        with pytest.raises(UsageError, match="--seeds expects whole numbers like 0,1,2 or a range like 0-7, got "):
            parse_seeds(text)
    for text in ("3-0", "0-999999999"):
        with pytest.raises(UsageError, match="--seeds expects a range from the lower to the higher, .*, got "):
            parse_seeds(text)
    with pytest.raises(UsageError, match="names 1 twice"):
        parse_seeds("0-2,1")


def test_a_sweep_gives_every_method_rows_with_each_combination() -> None:
    found = grid("independent,dml:temperature=2", seeds=(0, 1), sweep="learning-rate=0.1, 0.05; weight_decay=0,1e-3")
    pairs = [(0.1, 0), (0.1, 1e-3), (0.05, 0), (0.05, 1e-3)]
    labels = [
        f"{method}:learning_rate={rate}:weight_decay={decay:g} · 2xresnet8".replace("1e-03", "0.001")
        for rate, decay in pairs
        for method in ("independent", "dml:temperature=2")
    ]
    assert [c.label for c in found.cells] == labels * 2
    assert found.reference == dict(zip(labels[1::2], labels[::2], strict=True))
    for label, recipe in rows(found).items():
        rate, decay = pairs[labels.index(label) // 2]
        assert (recipe.learning_rate, recipe.weight_decay) == (rate, decay)
    assert rows(found)[labels[1]].method == {"name": "dml", "temperature": 2}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("", "the sweep names nothing"),
        ("learning_rate", "cannot read 'learning_rate': write a sweep like learning_rate=0.1,0.05"),
        ("learning_rate=", "cannot read 'learning_rate=': write a sweep like"),
        ("learning_rat=0.1", "none is called 'learning_rat'; did you mean 'learning_rate'"),
        ("seed=0,1", "none is called 'seed'"),
        ("learning_rate=0.1;learning-rate=1", "the sweep names learning_rate twice"),
        ("learning_rate=0.1,0.1", "--sweep learning_rate names 0.1 twice"),
        ("learning_rate=fast", "the sweep's learning_rate must be a number, not 'fast'"),
        ("learning_rate=-1", "learning_rate must be"),
        ("label_smoothing=0,0.1", "dml:label_smoothing=0.2 has its own label_smoothing, which the sweep gives too"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid("independent;dml:label_smoothing=0.2", sweep=sweep)
