"""Parameters that are not trained."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, killed, run, tiny, weights
from many import CASES, prepared, running

import collegium
from collegium import networks
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.training.devices import Devices
from collegium.training.engine import own_random_state
from collegium.training.experiment import build
from collegium.training.notes import run_notes
from collegium.training.recipe import Recipe

TWO: dict[str, Any] = dict(method={"name": "dml"}, share_until=None)


def frozen(**entries: Any) -> set[str]:
    cohort = build(tiny(**{**TWO, **entries})).learner.cohort
    return {name for name, p in cohort.named_parameters() if not p.requires_grad}


def test_patterns_match_names_with_and_without_the_stages_and_of_one_peer() -> None:
    every = frozen(freeze="stem*")
    assert every and every == {name for name in every if ".stages.stem." in name}
    assert {name.split(".")[1] for name in every} == {"0", "1"}
    assert every == frozen(freeze="stages.stem.*") == frozen(freeze="peer0.stem*, peer1.stem*")
    assert frozen(freeze="peer1.stem*") == {name for name in every if name.startswith("branches.1.")}
    assert frozen(freeze="stem*,classifier.linear.bias") > every


def test_patterns_match_the_names_of_timm() -> None:
    found = frozen(freeze="conv1*,bn1*", peers="2xtimm/resnet10t")
    assert found and all(".conv1." in name or ".bn1." in name for name in found)
    assert not any("layer" in name for name in found)


def test_what_peers_share_is_frozen_once() -> None:
    found = frozen(freeze="stem*", share_until="stage1")
    assert found and all(name.startswith("trunk.stem.") for name in found)


@pytest.mark.parametrize(
    ("freeze", "sentence"),
    [
        (" , ", "freeze names no parameters: give patterns like 'stem[*],stage1[*]', or leave it out"),
        ("stam*", "no parameter of the peers is called like 'stam[*]', which was to be frozen; did you mean 'stem'"),
        ("stem*,peer2.stem*", "no parameter of the peers is called like 'peer2.stem[*]'"),
        ("peer1.*", r"peer1 \(resnet8\) would have nothing left to train"),
    ],
)
def test_a_pattern_without_use_is_refused(freeze: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(tmp_path / "run", **TWO, freeze=freeze)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", CASES)
def test_frozen_weights_and_statistics_stand_still_with_every_method(case: str) -> None:
    training = running(case, Devices(), freeze="stem*,stage1*", weight_decay=0.1)
    with own_random_state(training.fabric.device):
        images, target = prepared(training)
        before = copy.deepcopy(training.learner.state_dict())
        for _ in range(2):
            training.train_step(images, target, 0.5)
    still, moved = set(), set()
    for name, tensor in training.learner.state_dict().items():
        if name.startswith("cohort.") and "teacher" not in name:
            (still if torch.equal(tensor, before[name]) else moved).add(name)
    low = {name for name in still | moved if ".stem." in name or ".stage1." in name}
    assert low <= still and any("running_var" in name for name in low)
    assert any("running_var" in name for name in moved) and any(name.endswith("weight") for name in moved)


def test_norms_of_which_a_part_is_trained_go_on_and_given_modules_are_no_way_around() -> None:
    torch.manual_seed(0)
    peers = [networks.build("resnet8", num_classes=10, in_channels=1) for _ in range(2)]
    kd = Distiller("dml", peers, image_shape=(1, 16, 16), num_classes=10, freeze="stem.1.weight,stage1*")
    modes = {name: module.training for name, module in kd.train().cohort.named_modules() if "branches.0" in name}
    assert modes["branches.0.stages.stem.1"] and not modes["branches.0.stages.stage1.0.norm1"]
    assert modes["branches.0.stages.stage2.0.norm1"] and not kd.eval().cohort.branches[0].training


def test_a_frozen_run_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[str, Any] = dict(
        method={"name": "afd"}, share_until=None, freeze="stem*", ema=0.9, layer_decay=0.8, start_from=None
    )
    run(tmp_path / "whole", **entries)
    killed(tmp_path / "run", (1, 1), monkeypatch, **entries)
    run(tmp_path / "run", **entries)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    state = weights(tmp_path / "run")
    name = "branches.0.stages.stem.0.weight"
    assert torch.equal(state["cohort." + name], state["average." + name])


def test_networks_of_the_caller_are_given_back_as_trainable_as_they_were(tmp_path: Path) -> None:
    peers = [networks.build("resnet8", num_classes=10, in_channels=1) for _ in range(2)]
    peers[1].classifier.requires_grad_(False)
    before = [p.requires_grad for peer in peers for p in peer.parameters()]
    data: dict[str, Any] = {"name": "digits", "per_class": 4}
    entries: dict[str, Any] = dict(data=data, epochs=1, batch_size=20, device="cpu", quiet=True)
    collegium.train(method="dml", peers=peers, run=tmp_path / "run", freeze="stem*", **entries)
    assert [p.requires_grad for peer in peers for p in peer.parameters()] == before


def test_a_note_says_whether_what_is_frozen_is_random() -> None:
    for peers, random in (("2xresnet8", True), ("resnet8:weights=a.pt,resnet8", False), ("2xt:pretrained", False)):
        (note,) = run_notes(Recipe(peers=peers, freeze="stem*"), steps=5, images=8)
        assert ("random weights" in note) == random
