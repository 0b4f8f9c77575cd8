import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import collegium
from collegium.baseline import baseline_beside, folder_alone, known_baseline, recipe_alone
from collegium.errors import UsageError
from collegium.networks import build
from collegium.study.cell import Cell
from collegium.study.study import Study
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

SMALL: dict[str, Any] = dict(
    data={"name": "digits", "per_class": 5}, epochs=1, batch_size=10, seed=3, device="cpu", quiet=True
)


def printed(what: object) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_deployed_network_is_trained_alone_beside_the_run_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = dict(SMALL, method="okddip", peers="2xresnet8,resnet14", run=tmp_path / "run", baseline=True, quiet=False)
    result = collegium.train(**call)
    told = capsys.readouterr().err.splitlines()
    begins = told.index("For comparison, the deployed network alone:")
    assert told[begins + 1].startswith("data ") and f"folder    {tmp_path / 'run-baseline'}" in told[begins:]
    alone = RunFolder(tmp_path / "run-baseline")
    recipe, found = alone.recipe(), alone.result()
    assert found is not None
    assert (recipe.method_name, recipe.peers, recipe.share_until, recipe.seed) == ("independent", "resnet14", None, 3)
    assert result.baseline.top1_error == found["predictors"]["peer0"]["last"]["top1_error"]
    # The same as the network trained by a command of its own.
    by_hand = collegium.train(method="independent", peers="resnet14", run=tmp_path / "by_hand", **SMALL)
    assert by_hand["predictors"] == found["predictors"]
    first, second, *_ = printed(result).splitlines()
    ours, theirs = (
        100 - 100 * error for error in (result["predictors"]["peer2"]["last"]["top1_error"], result.baseline.top1_error)
    )
    assert first == f"The deployed network, peer2 (resnet14): {ours:.2f} % test accuracy"
    gain = f"{ours - theirs:+.2f}".replace("-", "−")
    assert (
        f"alone ({tmp_path / 'run-baseline'}): {theirs:.2f} %. The difference, {gain} points, is of one seed" in second
    )
    assert second in result._repr_html_()
    ran = RunFolder(tmp_path / "run").recipe()
    assert baseline_beside(tmp_path / "run", ran, 2) == result.baseline
    assert baseline_beside(tmp_path / "run", ran, 0) is None, "another network"
    assert baseline_beside(tmp_path / "run", dataclasses.replace(ran, seed=4), 2) is None, "another seed"
    assert baseline_beside(tmp_path / "by_hand", recipe, 0) is None, "nothing there"
    written = alone.result_file.stat().st_mtime_ns
    assert collegium.train(**call).baseline == result.baseline
    assert not capsys.readouterr().err
    assert alone.result_file.stat().st_mtime_ns == written


def test_own_networks_have_a_baseline_of_their_untrained_weights(tmp_path: Path) -> None:
    def own() -> list[Any]:
        return [build("resnet8", num_classes=10, in_channels=1), build("resnet14", num_classes=10, in_channels=1)]

    peers = own()
    before = {name: tensor.clone() for name, tensor in peers[0].state_dict().items()}
    collegium.train(method="dml", peers=peers, run=tmp_path / "run", baseline=True, **SMALL)
    twin = own()[0]
    twin.load_state_dict(before)
    by_hand = collegium.train(method="independent", peers=[twin], run=tmp_path / "by_hand", **SMALL)
    found = RunFolder(tmp_path / "run-baseline").result()
    assert found is not None and found["predictors"] == by_hand["predictors"]
    assert baseline_beside(tmp_path / "run", RunFolder(tmp_path / "run").recipe(), 0) is not None


def test_a_study_s_run_is_taken_where_it_is_the_same(tmp_path: Path) -> None:
    values = {key: value for key, value in SMALL.items() if key != "quiet"}
    recipe = Recipe.from_dict({**values, "method": "independent", "peers": "2xresnet8"})
    cells = [Cell("independent", dataclasses.replace(recipe, seed=seed)) for seed in (2, 3)]
    study = Study(tmp_path / "study", cells)
    study.write()
    for cell in cells:
        collegium.train(run=study.run_folder(cell).path, quiet=True, **cell.recipe.to_dict())
    call = dict(method="dml", peers="2xresnet8", run=tmp_path / "run", baseline_from=tmp_path / "study", **SMALL)
    result = collegium.train(**call)
    wanted = study.run_folder(cells[1]).result()
    assert wanted is not None and not folder_alone(tmp_path / "run").exists()
    assert result.baseline.top1_error == wanted["predictors"]["peer0"]["last"]["top1_error"]
    alone = recipe_alone(dataclasses.replace(recipe, seed=3), "resnet8", 0)
    assert known_baseline(tmp_path / "study", alone, 1).place.startswith("peer1 of ")
    for same in (dict(evaluate_every=2), dict(ema=0.9), dict(device="auto")):
        assert known_baseline(tmp_path / "study", dataclasses.replace(alone, **same), 0) is not None
    for other in (dict(seed=4), dict(epochs=2), dict(peers="resnet14"), dict(learning_rate=0.2)):
        assert known_baseline(tmp_path / "study", dataclasses.replace(alone, **other), 0) is None


def test_peers_that_stop_together_are_not_alone(tmp_path: Path) -> None:
    values = {key: value for key, value in SMALL.items() if key != "quiet"} | {"patience": 1}
    values["data"] = {**values["data"], "validation": 0.2}
    recipe = Recipe.from_dict({**values, "method": "independent", "peers": "2xresnet8"})
    study = Study(tmp_path / "study", [Cell("independent", recipe)])
    study.write()
    collegium.train(run=study.run_folder(study.cells[0]).path, quiet=True, **recipe.to_dict())
    assert known_baseline(tmp_path / "study", recipe_alone(recipe, "resnet8", 0), 0) is None


def test_what_a_recipe_says_of_the_deployed_peer_is_said_of_the_one_that_is_alone(tmp_path: Path) -> None:
    call = dict(method="okddip", peers="2xresnet8,timm/resnet10t", run=tmp_path / "run", baseline=True, **SMALL)
    entries: dict[str, Any] = dict(
        freeze="stem*,peer1.stage1*,conv1*,peer2.bn1*",
        peer_learning_rates=[0.1, 0.1, 0.05],
        peer_weight_decays=[0, 0, 1e-3],
    )
    assert collegium.train(**call, **entries)["deployed_peer"] == "peer2"
    recipe = RunFolder(tmp_path / "run-baseline").recipe()
    assert (recipe.freeze, recipe.peer_learning_rates) == ("conv1*,peer0.bn1*", (0.05,))
    assert recipe.peer_weight_decays == (1e-3,)
    whole = Recipe(peers="2xresnet8", freeze="peer0.stem*")
    assert recipe_alone(whole, "resnet8", 1, ["stages.stem.0.weight"]).freeze is None


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        (dict(method="independent", baseline=True), "independent is the baseline itself"),
        (dict(method="dml", baseline_from="nowhere"), "nowhere is not a study"),
    ),
)
def test_what_can_have_no_baseline_is_told_before_training(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        collegium.train(peers="2xresnet8", run=tmp_path / "run", **(SMALL | changed))
    assert list(tmp_path.iterdir()) == []


def test_an_old_folder_in_the_baseline_s_place_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = RunFolder(folder_alone(run))
    other.path.mkdir()
    other.open(Recipe(method={"name": "independent"}, peers="resnet8", epochs=7), {})
    call = dict(SMALL, method="dml", peers="resnet8,resnet14", run=run, baseline=True)
    with pytest.raises(
        UsageError, match=r"no baseline can be trained beside the run: .*run-baseline holds a run of an"
    ):
        collegium.train(**call)
    assert not run.exists()
    (other.recipe_file).unlink()
    (other.path / "mine.txt").touch()
    with pytest.raises(UsageError, match="run-baseline is not empty and holds no run"):
        collegium.train(**call)
    assert not run.exists()


def test_a_baseline_that_was_begun_goes_on(tmp_path: Path) -> None:
    call = dict(SMALL, method="okddip", peers="2xresnet8,resnet14", run=tmp_path / "run", baseline=True)
    first = collegium.train(**call)
    RunFolder(tmp_path / "run-baseline").result_file.unlink()
    assert collegium.train(**call).baseline == first.baseline
    assert collegium.train(**{**call, "epochs": 2, "overwrite": True})["epochs"] == 2


def test_the_baseline_of_a_later_peer_starts_from_the_peer_of_its_number(tmp_path: Path) -> None:
    collegium.train(method="independent", peers="2xresnet8,resnet14", run=tmp_path / "start", **SMALL)
    start = dict(SMALL, peers="2xresnet8,resnet14", start_from=str(tmp_path / "start"))
    collegium.train(method="okddip", run=tmp_path / "run", baseline=True, **start)
    alone = RunFolder(tmp_path / "run-baseline")
    assert alone.recipe().start_from == str(tmp_path / "start" / "peers" / "peer2")
    # As the third of networks that do not teach each other.
    beside = collegium.train(method="independent", run=tmp_path / "beside", **start)
    found = alone.result()
    assert found is not None
    assert found["predictors"]["peer0"]["last"] == beside["predictors"]["peer2"]["last"]
    ran = RunFolder(tmp_path / "run").recipe()
    assert baseline_beside(tmp_path / "run", ran, 2) is not None
    cell = Cell("independent", RunFolder(tmp_path / "beside").recipe())
    study = Study(tmp_path / "study", [cell])
    study.write()
    shutil.copytree(tmp_path / "beside", study.run_folder(cell).path)
    known = known_baseline(tmp_path / "study", recipe_alone(ran, "resnet14", 2), 2)
    assert known is not None and known.place.startswith("peer2 of ")
