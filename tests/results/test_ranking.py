"""What is ranked with what, and what has no rank."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from collegium.api import rank
from collegium.cli import main
from collegium.errors import UsageError
from collegium.pages.rank_table import Ranking, rank_text
from collegium.results import papers as tables
from collegium.results.comparison import findings
from collegium.results.published import published
from collegium.results.ranking import Standing, in_order, of_papers, of_runs, ranked
from collegium.study.cell import Cell
from collegium.study.study import Study
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder
from made_up_runs import write_run, write_study

ERRORS = {"peer0": 0.31, "peer1": 0.29, "mean_peer": 0.30, "ensemble": 0.28, "fused": 0.27}
RECIPE = Recipe(method={"name": "ffl"}, peers="2xresnet32", share_until="stage2", data={"name": "cifar100"}, epochs=100)


def value(standings: list[Standing], **wanted: object) -> Standing:
    (found,) = (s for s in standings if all(getattr(s, key) == v for key, v in wanted.items()))
    return found


def test_every_published_value_is_there_as_an_error_or_as_it_is() -> None:
    values = of_papers()
    assert len(values) == len(published()) == 437
    mcl = value(values, method="MCL", network="resnet32", peers="4 × resnet32, shared trunk")
    assert mcl.value == pytest.approx(100 - 74.04) and mcl.metric == "top-1 error" and "74.04" in mcl.source
    scene = value(values, method="CKI", data="indian_pines")
    assert (scene.value, scene.metric) == (81.21, "overall accuracy")


def test_a_value_belongs_to_the_network_that_it_is_of() -> None:
    values = [v for v in of_papers() if v.source.startswith("ffl/dml")]
    assert {v.network for v in values} == {"resnet32", "wrn_16_2", "resnet56", "wrn_40_2"}
    fused = value(of_papers(), method="FFL", network="resnet32", data="cifar10", deployed="several networks")
    assert fused.value == 5.78


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path: Path) -> None:
    for seed, error in enumerate((0.30, 0.32)):
        recipe = dataclasses.replace(RECIPE, seed=seed, device="cpu")
        write_run(tmp_path / f"ffl-{seed}", recipe, ERRORS | {"mean_peer": error})
    write_run(tmp_path / "again" / "ffl-0", RECIPE, ERRORS)  # an equal run elsewhere
    values, left_out = of_runs(tmp_path)
    assert not left_out
    one = value(values, predictor="mean_peer", metric="top-1 error")
    assert (one.n, one.network, one.peers, one.deployed) == (2, "resnet32", "2 × resnet32, shared trunk", "one network")
    assert one.value == pytest.approx(31.0) and one.std == pytest.approx(2**0.5)
    assert (one.epochs, one.images, one.method) == (100, 50_000, "FFL")
    assert value(values, predictor="fused", metric="top-5 error").deployed == "several networks"
    assert not [v for v in values if v.predictor.startswith("peer")]  # like peers are told by their mean


def test_runs_that_differ_in_the_split_or_in_one_of_the_seeds_all_count(tmp_path: Path) -> None:
    for k in range(3):
        split = dataclasses.replace(RECIPE, data={"name": "cifar100", "split_seed": k})
        write_run(tmp_path / f"split-{k}", split, ERRORS)
    write_run(tmp_path / "weights", dataclasses.replace(RECIPE, weight_seed=7), ERRORS)
    write_run(tmp_path / "order", dataclasses.replace(RECIPE, data_seed=7), ERRORS)
    values, _ = of_runs(tmp_path)
    assert value(values, predictor="mean_peer", metric="top-1 error").n == 5


def test_networks_that_started_from_a_file_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "scratch", RECIPE, ERRORS)
    write_run(tmp_path / "file", dataclasses.replace(RECIPE, peers="2xresnet32:weights=w.pt"), ERRORS)
    values, left_out = of_runs(tmp_path)
    assert not left_out
    assert {v.network for v in values if v.predictor == "mean_peer"} == {"resnet32", "resnet32 (weights of a file)"}


def test_runs_that_stopped_early_are_told_by_the_epochs_that_they_trained(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, patience=3, data={"name": "cifar100", "validation": 0.1})
    for seed, epoch in enumerate((30, 40)):
        write_run(tmp_path / str(seed), dataclasses.replace(recipe, seed=seed), ERRORS)
        result = RunFolder(tmp_path / str(seed)).result()
        stopped = {"epoch": epoch, "reason": "no gain"}
        RunFolder(tmp_path / str(seed)).write_result({**(result or {}), "stopped": stopped})
    values, _ = of_runs(tmp_path)
    assert {v.epochs for v in values} == {35}


def test_rows_of_one_method_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", RECIPE, ERRORS)
    write_run(tmp_path / "b", dataclasses.replace(RECIPE, weight_decay=5e-4), ERRORS)
    write_run(tmp_path / "c", dataclasses.replace(RECIPE, method={"name": "ffl", "ekd": False}), ERRORS)
    values, _ = of_runs(tmp_path)
    assert {v.method for v in values} == {"FFL, weight decay 0.0001", "FFL, weight decay 0.0005", "FFL (ekd no)"}


def test_mixed_peers_are_told_one_by_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a", dataclasses.replace(RECIPE, peers="resnet32,wrn_16_2", share_until=None), ERRORS)
    values, _ = of_runs(tmp_path)
    found = {v.predictor: v.network for v in values}
    assert found == {
        "peer0": "resnet32",
        "peer1": "wrn_16_2",
        "ensemble": "resnet32, wrn_16_2",
        "fused": "resnet32, wrn_16_2",
    }


def test_single_runs_and_published_values_are_placed_by_value_and_not_ordered(tmp_path: Path) -> None:
    write_run(tmp_path / "a", RECIPE, ERRORS | {"mean_peer": 0.2656})
    ours, _ = of_runs(tmp_path)
    groups = ranked([*ours, *of_papers()])
    group = groups["cifar100", "resnet32", "top-1 error", "one network", 50_000]
    (own,) = (s for s in group if s.origin == "ours")
    assert own.value == pytest.approx(26.56) and own.unranked == "a single run cannot be ordered"
    values = [s.value for s in group if not s.remark]
    assert values == sorted(values) and all(s.rank is None for s in group)
    assert {s.remark for s in group[len(values) :]} == {"the best of several runs"}
    assert {s.unranked for s in group if s.origin == "published"} == {
        "its runs are not at hand, so it cannot be ordered",
        "the best of several runs",
    }


def test_our_rows_are_ranked_as_far_as_their_seeds_tell_them_apart(tmp_path: Path) -> None:
    noise = (0.001, -0.002, 0.0, 0.0015, -0.0005)
    for name, error, scale in (("ffl", 0.31, 1), ("dml", 0.3105, -1), ("independent", 0.25, 0.5)):
        recipe = dataclasses.replace(RECIPE, method={"name": name}, share_until=None)
        for seed, deviation in enumerate(noise):
            errors = ERRORS | {"mean_peer": error + scale * deviation}
            write_run(tmp_path / f"{name}-{seed}", dataclasses.replace(recipe, seed=seed), errors)
    ours, _ = of_runs(tmp_path)
    group = ranked([*ours, *of_papers()])["cifar100", "resnet32", "top-1 error", "one network", 50_000]
    found = {s.method: rank_text(s) for s in group if s.origin == "ours"}
    assert found == {"Independent": "1", "FFL": "2=", "DML": "2="}
    alone = next(s for s in in_order([s for s in ours if s.method == "FFL" and s.predictor == "mean_peer"][:1]))
    assert alone.rank is None and alone.unranked == "no other row here has two seeds or more"


def test_several_networks_and_fewer_images_are_ranked_apart(tmp_path: Path) -> None:
    few = dataclasses.replace(RECIPE, data={"name": "cifar100", "per_class": 50})
    write_run(tmp_path / "a", RECIPE, ERRORS)
    write_run(tmp_path / "b", few, ERRORS)
    ours, _ = of_runs(tmp_path)
    groups = [g for g in ranked([*ours, *of_papers()]) if g[:3] == ("cifar100", "resnet32", "top-1 error")]
    assert set(groups) == {
        ("cifar100", "resnet32", "top-1 error", kind, images)
        for kind, images in [
            ("one network", 50_000),
            ("several networks", 50_000),
            ("not known", 50_000),
            ("one network", 5_000),
            ("several networks", 5_000),
        ]
    }


def test_a_trial_has_no_rank(tmp_path: Path) -> None:
    cells = tables.get("ffl/ablation").cells((0,), 0.02)
    write_study(tmp_path / "study", [(cell, ERRORS) for cell in cells])
    values, _ = of_runs(tmp_path)
    assert {v.remark for v in values} == {"a trial at a reduced scale"} and {v.images for v in values} == {1_000}
    assert {v.method for v in values} == {
        "FFL",
        "FFL (fusion sum)",
        "FFL (ekd no)",
        "FFL (ekd no, fkd no)",
        "FFL (fusion sum, ekd no, fkd no)",
    }
    assert all(s.rank is None for group in ranked(values).values() for s in group)
    assert (
        "study, A (all) · 2 % trial · 2xresnet32"
        in value(values, method="FFL", predictor="fused", metric="top-1 error").source
    )


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "good", RECIPE, ERRORS)
    write_run(tmp_path / "bad", RECIPE, ERRORS)
    (tmp_path / "bad" / "recipe.yaml").write_text("method: ffl\nnonsense: 1\n")
    values, left_out = of_runs(tmp_path)
    assert (
        values
        and list(left_out) == [str(tmp_path / "bad")]
        and "unknown entry 'nonsense'" in left_out[str(tmp_path / "bad")]
    )


def test_the_terminal_shows_what_is_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path / "a", RECIPE, ERRORS)
    ours, _ = of_runs(tmp_path)
    screen = Console(width=160, record=True, quiet=False, file=(tmp_path / "screen").open("w"))
    screen.print(Ranking([*ours, *of_papers()]))
    text = screen.export_text()
    assert (
        "cifar100, 50,000 training images · resnet32 · top-1 error of one network" in text and "wrn_40_2 ·" not in text
    )
    in_a_notebook = Ranking([*ours, *of_papers()])._repr_html_()
    assert "50,000 training images · resnet32" in in_a_notebook and "<table" in in_a_notebook
    screen.print(Ranking(of_papers(), data="cifar100", network="wrn_40_2"))
    assert "· wrn_40_2 · top-1 error of one network" in screen.export_text()
    with pytest.raises(UsageError, match="--peers resnet33: no value is known of it; did you mean 'resnet32'"):
        Ranking(of_papers(), network="resnet33")
    screen.file.close()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["rank", str(tmp_path), "--data", "cifar100", "--peers", "resnet20"])
    assert "FFSD" in capsys.readouterr().out
    assert "<!doctype html>" in (tmp_path / "rank.html").read_text()
    with pytest.raises(UsageError, match="there is no folder"):
        rank(tmp_path / "nothing")
    with pytest.raises(UsageError, match="there is no folder"):
        rank(tmp_path, out=tmp_path / "nothing" / "page.html")


DAMAGE = {
    "empty": "",
    "list": "[]",
    "null": "null",
    "cut": '{"method": "ffl", "peers": ["resnet32"',
    "deep": "[" * 10**5,
    "text": '{"method": 3}',
    "nan": '{"seed": NaN}',
}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", ["result.json", "recipe.yaml", "teacher/config.json"])
def test_a_damaged_run_is_left_out_and_said(file: str, text: str, tmp_path: Path) -> None:
    write_run(tmp_path / "whole", RECIPE, ERRORS)
    write_run(tmp_path / "damaged", dataclasses.replace(RECIPE, seed=1), ERRORS)
    (tmp_path / "damaged" / "teacher").mkdir()
    (tmp_path / "damaged" / file).write_text(text)
    values, left_out = of_runs(tmp_path)
    assert value(values, predictor="mean_peer", metric="top-1 error").n == 1
    ((place, reason),) = left_out.items()
    assert place == str(tmp_path / "damaged") and str(tmp_path / "damaged" / file) in reason


def test_results_that_contradict_their_recipe_or_each_other_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a", RECIPE, ERRORS)
    write_run(tmp_path / "b", dataclasses.replace(RECIPE, seed=1), {k: v for k, v in ERRORS.items() if k != "fused"})
    write_run(tmp_path / "c", dataclasses.replace(RECIPE, seed=2), ERRORS)
    result = json.loads((tmp_path / "c" / "result.json").read_text())
    RunFolder(tmp_path / "c").write_result(result | {"epochs": 7})
    values, left_out = of_runs(tmp_path)
    assert value(values, predictor="fused", metric="top-1 error").n == 1
    assert "has other predictors than a" in left_out["b"]
    assert "epochs 7, where recipe.yaml says 100" in left_out[str(tmp_path / "c")]


def test_a_study_with_a_damaged_run_is_compared_and_ranked_without_it(tmp_path: Path) -> None:
    cells = [Cell("ffl", dataclasses.replace(RECIPE, seed=seed)) for seed in range(3)]
    study = write_study(tmp_path / "study", [(cell, ERRORS) for cell in cells])
    study.run_folder(cells[0]).write_result({})
    study.run_folder(cells[1]).recipe_file.write_text("peers: [")
    found = findings(Study.open(study.folder))
    assert [o.state for o in found.outcomes] == ["broken", "broken", "done"] and list(found.rows[0].results) == [2]
    values, left_out = of_runs(tmp_path)
    assert value(values, predictor="mean_peer", metric="top-1 error").n == 1
    assert "result.json is not as it was written: method is missing" in left_out["study, ffl, seed 0"]
    assert "cannot read" in left_out["study, ffl, seed 1"]
