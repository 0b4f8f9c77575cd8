import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import collegium
from collegium.data import load
from collegium.errors import UsageError
from collegium.networks import build
from collegium.training.recipe import Recipe
from collegium.yaml_text import parse_yaml


def arrays(seed: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), labels


SMALL = dict(epochs=1, batch_size=8, quiet=True, device="cpu")


def test_own_arrays_and_own_networks_train_and_can_be_evaluated_again(tmp_path: Path) -> None:
    def own() -> list[collegium.Network]:
        torch.manual_seed(0)
        return [build("resnet8", num_classes=3), build("wrn_10_1", num_classes=3)]

    train, test = arrays(0), arrays(1)
    result = collegium.train(method="ffl", peers=own(), data=(train, test), run=tmp_path / "run", **SMALL)
    assert result["peers"] == ["resnet8", "wrn_10_1"]
    with pytest.raises(UsageError, match="given its peers from Python .*: pass peers="):
        collegium.evaluate(tmp_path / "run")
    scores = collegium.evaluate(tmp_path / "run", peers=own(), data=(train, test))
    assert scores["fused"] == result["predictors"]["fused"]["last"]
    for shown in (result, scores):
        accuracy = 100 - 100 * scores["fused"]["top1_error"]
        assert f'<th scope="row">fused</th><td>{accuracy:.2f}</td>' in shown._repr_html_()  # type: ignore[attr-defined]


def test_other_data_in_the_same_folder_are_another_run(tmp_path: Path) -> None:
    both = dict(method="dml", peers="2xresnet8", run=tmp_path / "run", **SMALL)
    collegium.train(data=(arrays(0), arrays(1)), **both)
    with pytest.raises(UsageError, match="another recipe .*fingerprint"):
        collegium.train(data=(arrays(2), arrays(1)), **both)


def test_other_data_are_normalised_as_the_training_images_were(tmp_path: Path) -> None:
    bright = (np.clip(arrays(1)[0].astype(int) + 90, 0, 255).astype(np.uint8), arrays(1)[1])
    both = dict(method="independent", peers="2xresnet8", **SMALL)
    result = collegium.train(data=(arrays(0), bright), run=tmp_path / "run", **both)
    again = collegium.evaluate(tmp_path / "run", data=(bright, bright))
    assert again["peer0"] == result["predictors"]["peer0"]["last"]


def test_a_teacher_may_be_a_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = build("resnet8", num_classes=10, in_channels=1)
    data = {"name": "digits", "per_class": 2}
    call = dict(method="kd", peers="resnet8", data=data, teacher=teacher, run=tmp_path / "run", **SMALL)
    assert collegium.train(**call)["complete"]
    with pytest.raises(UsageError, match="given its teacher from Python"):
        collegium.evaluate(tmp_path / "run")
    assert "peer0" in collegium.evaluate(tmp_path / "run", teacher=teacher)


def test_a_recipe_can_be_named(tmp_path: Path) -> None:
    result = collegium.train(config="digits", run=tmp_path / "run", **(SMALL | {"batch_size": 20}))
    assert (result["method"], result["share_until"], result["training_images"]) == ("ffl", "stage2", 200)


def test_names_are_as_short_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"name": "digits", "per_class": 2}
    result = collegium.train(method={"name": "dml", "temperature": 2.0}, peers="2xresnet8", data=data, **SMALL)
    assert result["method"] == "dml"
    assert (tmp_path / "runs" / "dml-digits-seed0" / "result.json").exists()


def test_the_page_is_written(tmp_path: Path) -> None:
    data = {"name": "digits", "per_class": 2}
    collegium.train(method="independent", peers="2xresnet8", data=data, run=tmp_path / "run", **SMALL)
    assert collegium.report(tmp_path / "run") == tmp_path / "run" / "report.html"
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(peers=[build("resnet8", num_classes=10, in_channels=3), build("resnet8", num_classes=10)]), "3 channels"),
        (dict(peers=[build("resnet8", num_classes=9, in_channels=1) for _ in "ab"]), "9 classes, the data have 10"),
        (dict(peers=[build("resnet8", num_classes=10, in_channels=1)]), "FFL needs at least 2 peers"),
        (dict(method={"name": "ffl", "temprature": 1}), "no option 'temprature'; did you mean 'temperature'"),
        (dict(method={"name": "dml", "target": "all"}), "target must be one of pairwise, ensemble, not 'all'"),
        (dict(data={"name": "digits", "per_class": 10_000}), "10000"),
        (dict(data={"name": "digits", "validation": 1.5}), "share to hold out"),
        (dict(data={"name": "digits", "per_class": "ten"}), "per_class must be a whole number or nothing, not 'ten'"),
        (dict(data=np.zeros(3)), "data must be a name, an ImageData, "),
        (dict(peers=["resnet8", "resnet8"]), "are torch modules, not str"),
        (dict(optimizer="lam"), "there is no optimizer 'lam' in timm; did you mean 'lamb'"),
        (dict(method={"name": "dml", "temperature": "4"}), "DML's temperature must be a number, not '4'"),
        (dict(method={"name": "dml", "temperature": 0}), "DML's temperature must be more than 0"),
        (dict(method={"name": "ffl", "ramp": -1.0}), "FFL's ramp must be a share from 0 to 1"),
        (dict(data=(arrays(0), (arrays(0)[0], arrays(0)[1] * 0)), peers="2xresnet9"), "6n \\+ 2 layers"),
        (dict(epoch=3), "unknown entry 'epoch'"),
        (dict(teacher="nowhere", method="kd"), "nowhere is neither a peer's folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        collegium.train(run=tmp_path / "run", **{"peers": "2xresnet8", **SMALL, **changes})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"run": 3}, "run must be a text or a path"),
        ({"layout": "rows"}, "layout must be one of data, peers"),
        ({"devices": "two"}, "devices must be a whole number"),
        ({"config": 3}, "config must be a text"),
        ({"peers": 3}, "peers are names in a text, or a list of torch modules, not int"),
    ],
)
def test_an_argument_of_another_kind_is_refused(
    wrong: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        collegium.train(**wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.requires_grad_(False), "has no weight to train"),
        (lambda p: nn.init.constant_(p, float("nan")), "weights that are not finite"),
    ],
)
def test_own_networks_that_cannot_be_trained_are_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(256, 10)) for _ in range(2)]
    for parameter in nets[1].parameters():
        spoil(parameter)
    with pytest.raises(UsageError, match=f"peer1 .Sequential. has {message.removeprefix('has ')}"):
        collegium.train(run=tmp_path / "run", method="dml", peers=nets, data="digits")
    assert not (tmp_path / "run").exists()


def test_labels_out_of_range_are_refused() -> None:
    images, labels = arrays(0)
    data = load("digits")
    with pytest.raises(UsageError, match="label"):
        collegium.from_arrays((images, labels), (images, labels), class_names=("only", "two"))
    assert data.num_classes == 10


def test_a_method_s_name_alone_keeps_the_config_s_options(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("method: {name: dml, temperature: 7}\npeers: 2xresnet8\ndata: {name: digits, per_class: 8}\n")
    collegium.train(config=config, method="dml", data="digits", run=tmp_path / "a", **SMALL)
    kept = Recipe.read(tmp_path / "a" / "recipe.yaml")
    assert kept.method["temperature"] == 7 and kept.data["per_class"] == 8
    collegium.train(config=config, method={"name": "dml"}, run=tmp_path / "b", **SMALL)
    assert Recipe.read(tmp_path / "b" / "recipe.yaml").method["temperature"] == 1


def test_a_run_needs_nothing_of_what_it_started_from_once_it_has_begun(tmp_path: Path) -> None:
    given = dict(data={"name": "digits", "per_class": 4}, **SMALL)
    collegium.train(method="independent", peers="2xresnet8", run=tmp_path / "source", **given)
    started = dict(method="kd", peers="1xresnet8", run=tmp_path / "run", **given)
    started |= dict(start_from=str(tmp_path / "source"), teacher=str(tmp_path / "source" / "peers" / "peer1"))
    result = collegium.train(**started)
    assert "peer0 (resnet8) starts from" in result["notes"][0]
    (tmp_path / "source").rename(tmp_path / "elsewhere")
    assert collegium.evaluate(tmp_path / "run")["peer0"] == result["predictors"]["peer0"]["last"]
    assert collegium.report(tmp_path / "run").is_file()
    assert collegium.train(**started) == result


def test_own_networks_have_their_weights_back_when_a_finished_call_is_repeated(tmp_path: Path) -> None:
    def call(seed: int) -> list[torch.nn.Module]:
        torch.manual_seed(seed)
        own = [build("resnet8", num_classes=3) for _ in range(2)]
        data = (arrays(0), arrays(1))
        collegium.train(method="dml", peers=own, share_until="stage1", data=data, run=tmp_path / "run", **SMALL)
        return own

    for k, (trained, again) in enumerate(zip(call(0), call(1), strict=True)):
        kept = load_file(tmp_path / "run" / "peers" / f"peer{k}" / "model.safetensors")
        assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.state_dict().items())
        for a, b in zip(trained.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="checkpoints are gone.*--overwrite"):
        call(1)


def test_compare_keeps_the_config_s_options_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("method: dml\npeers: 2xresnet8\ndata: {name: digits, per_class: 8}\n")
    seen: list[Recipe] = []

    def make_grid(given: Recipe, *_: object, **__: object) -> None:
        seen.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr("collegium.study.grid.make_grid", make_grid)
    for data, per_class in (("digits", 8), ({"name": "digits"}, None)):
        with pytest.raises(KeyboardInterrupt):
            collegium.compare(methods="dml", peers="2xresnet8", study=tmp_path / "s", config=config, data=data)
        assert seen.pop().data.get("per_class") == per_class


def test_a_run_keeps_what_its_peers_weights_were_and_needs_their_file_no_more(tmp_path: Path) -> None:
    torch.manual_seed(3)
    file = tmp_path / "weights.pt"
    torch.save(build("resnet8", num_classes=4, in_channels=1).state_dict(), file)
    call = dict(method="dml", peers=f"resnet8:weights={file},resnet8", data={"name": "digits", "per_class": 4}, **SMALL)
    call["run"] = tmp_path / "run"
    result = collegium.train(**call)
    note = f"peer0 (resnet8) starts from {file}; its layer classifier.linear is new (4 classes there, 10 here)."
    assert result["notes"] == [note] and result["peers"] == ["resnet8", "resnet8"]
    recorded = parse_yaml((tmp_path / "run" / "recipe.yaml").read_text())["provenance"]["weights"]
    assert recorded == {"peer0": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "note": note}}
    file.unlink()
    (tmp_path / "run" / "result.json").unlink()
    assert collegium.train(**call)["notes"] == [note]
    assert collegium.evaluate(tmp_path / "run")["peer0"] == result["predictors"]["peer0"]["last"]
    assert isinstance(collegium.load_peer(tmp_path / "run"), torch.nn.Module)


def test_a_run_without_a_checkpoint_does_not_go_on_with_other_weights(tmp_path: Path) -> None:
    file, run = tmp_path / "weights.pt", tmp_path / "run"
    call = dict(method="dml", peers=f"resnet8:weights={file},resnet8", data={"name": "digits", "per_class": 4}, **SMALL)
    torch.save(build("resnet8", num_classes=10, in_channels=1).state_dict(), file)
    collegium.train(**call, run=run)
    for path in [*(run / "checkpoints").iterdir(), run / "result.json"]:
        path.unlink()
    collegium.train(**call, run=run)
    for path in [*(run / "checkpoints").iterdir(), run / "result.json"]:
        path.unlink()
    torch.save(build("resnet8", num_classes=10, in_channels=1).state_dict(), file)
    with pytest.raises(UsageError, match="was begun with other weights for peer0"):
        collegium.train(**call, run=run)
