"""Runs with ``ema``: averaged peers are scored, saved, exported and resumed like the others."""

from pathlib import Path

import pytest
import torch
from helpers import assert_same_run, killed, run, weights

import collegium
from collegium.pages.run_page import write_report
from collegium.results.ranking import deployed
from collegium.training.run import restore
from collegium.training.run_folder import RunFolder

AVERAGED = dict(ema=0.8, share_until=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged") / "run"
    run(folder, **AVERAGED)
    return folder


def test_they_are_scored_beside_the_others(folder: Path) -> None:
    result = RunFolder(folder).result()
    assert result is not None
    assert list(result["predictors"]) == [
        *("peer0", "peer1", "ensemble", "fused"),
        *("peer0_ema", "peer1_ema", "ensemble_ema"),
    ]
    peers = [result["predictors"][f"peer{k}"]["last"]["nll"] for k in range(2)]
    assert result["mean_peer"]["last"]["nll"] == pytest.approx(sum(peers) / 2)
    for name in ("peer0", "peer1", "ensemble"):
        assert result["cost"][name] == result["cost"][name + "_ema"]
    assert result["predictors"]["peer0"]["last"] != result["predictors"]["peer0_ema"]["last"]
    again = collegium.evaluate(folder)
    assert again["peer1_ema"] == pytest.approx(result["predictors"]["peer1_ema"]["last"])
    assert deployed("peer0_ema", []) == "one network" and deployed("ensemble_ema", []) == "several networks"


def test_the_cost_of_the_methods_own_predictor_does_not_change(folder: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", **AVERAGED | {"ema": None, "epochs": 1})
    result = RunFolder(folder).result()
    assert result is not None and result["cost"]["fused"] == plain["cost"]["fused"]
    assert (tmp_path / "plain" / "peers").is_dir() and not (tmp_path / "plain" / "peers" / "peer0_ema").exists()


def test_they_are_loaded_and_exported_like_peers(folder: Path) -> None:
    images = torch.randn(3, 1, 16, 16)
    found = restore(folder).predict(images)
    torch.testing.assert_close(collegium.load_peer(folder / "peers" / "peer1_ema")(images), found["peer1_ema"])
    for name in ("peer0_ema", "ensemble_ema"):
        made = collegium.export(folder, predictor=name, normalised=True)
        torch.testing.assert_close(torch.export.load(made.path).module()(images), found[name], atol=1e-5, rtol=1e-4)


def test_the_page_tells_of_them_and_does_not_take_them_for_the_methods_own(folder: Path) -> None:
    page = write_report(folder).read_text()
    assert "With averaged weights, one peer gets" in page and "own predictor, fused, gives" in page


@pytest.mark.parametrize("steps", [1, 6])
def test_a_killed_run_goes_on_exactly(
    steps: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path / "run", divmod(steps, 4), monkeypatch, **AVERAGED)
    run(tmp_path / "run", **AVERAGED)
    assert_same_run(folder, tmp_path / "run")
    assert "average.branches.1.stages.stem.0.weight" in weights(folder)


def test_several_players_and_a_trunk_are_averaged_too(tmp_path: Path) -> None:
    result = run(tmp_path / "afd", method={"name": "afd"}, share_until=None, ema=0.9, epochs=1)
    assert "peer1_ema" in result["predictors"]
    run(tmp_path / "trunk", method={"name": "dml"}, share_until="stage1", ema=0.9, epochs=1)
    state = weights(tmp_path / "trunk")
    trained = {name for name in state if name.startswith("cohort.")}
    assert {name.replace("cohort.", "average.") for name in trained} <= state.keys()
    assert any(name.startswith("cohort.trunk.") for name in trained)
    peer = collegium.load_peer(tmp_path / "trunk" / "peers" / "peer1_ema")
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(peer(images), restore(tmp_path / "trunk").predict(images)["peer1_ema"])
