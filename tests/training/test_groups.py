"""Settings of single parameters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, killed, run, tiny
from timm.optim import param_groups_layer_decay

from collegium.errors import UsageError
from collegium.training.experiment import build
from collegium.training.groups import optimizer_groups


def settings(**entries: Any) -> dict[str, tuple[float, float]]:
    """Name of a parameter -> learning rate and weight decay of the group that has it, of the first player."""
    recipe = tiny(**{"method": {"name": "dml"}, "share_until": None, "learning_rate": 0.1, **entries})
    learner = build(recipe).learner
    groups = optimizer_groups(learner, recipe)[next(iter(learner.method.players(learner.cohort)))]
    assert [g["lr"] for g in groups] == sorted((g["lr"] for g in groups), reverse=True)
    owner = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(owner) == sum(len(g["params"]) for g in groups)
    return {name: owner[id(p)] for name, p in learner.named_parameters() if id(p) in owner}


def test_alike_parameters_stay_in_the_groups_of_the_method() -> None:
    recipe = tiny()
    learner = build(recipe).learner
    expected = learner.players(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    found = optimizer_groups(learner, recipe)
    for a, b in zip(found["peers"], expected["peers"], strict=True):
        assert a.keys() == b.keys() and (a["lr"], a["weight_decay"]) == (b["lr"], b["weight_decay"])
        assert all(x is y for x, y in zip(a["params"], b["params"], strict=True))


def test_norms_and_biases_are_spared_weight_decay() -> None:
    found = settings(decay_norms_and_biases=False, weight_decay=0.3)
    dimensions = {name: p.ndim for name, p in build(tiny(share_until=None)).learner.named_parameters()}
    for name, (_, decay) in found.items():
        assert decay == (0.0 if dimensions[name] == 1 else 0.3), name
    assert found["cohort.branches.0.stages.stem.0.weight"][1] == 0.3
    assert found["cohort.branches.0.stages.stem.1.weight"][1] == 0.0
    assert {decay for _, decay in settings(weight_decay=0.3).values()} == {0.3}


def test_a_layer_has_the_rate_of_the_stage_above_it_times_the_decay() -> None:
    found = settings(layer_decay=0.5)  # stem, stage1, stage2, stage3, classifier
    expected = {"stages.stem": 1 / 16, "stages.stage1": 1 / 8, "stages.stage2": 1 / 4, "stages.stage3": 1 / 2}
    for name, (rate, _) in found.items():
        stage = ".".join(name.split(".")[3:5])
        assert rate == pytest.approx(0.1 * expected.get(stage, 1.0)), name


def test_layers_of_a_timm_model_are_those_that_it_names() -> None:
    peers = "timm/vit_tiny_patch16_224:img_size=16:patch_size=4:depth=3,timm/resnet10t"
    entries: dict[str, Any] = dict(peers=peers, layer_decay=0.5, decay_norms_and_biases=False, weight_decay=0.3)
    found = settings(**entries)
    learner = build(tiny(method={"name": "dml"}, share_until=None, **entries)).learner
    names = {id(p): name for name, p in learner.named_parameters()}
    for k in range(2):
        plain: Any = learner.cohort.peer(k).plain()
        named = dict(plain.named_parameters())
        spared = {id(named[name]) for name in getattr(plain, "no_weight_decay", set)() if name in named}
        groups: Any = param_groups_layer_decay(plain, weight_decay=0.3, layer_decay=0.5)
        for group in groups:
            for p in group["params"]:
                rate, decay = found[names[id(p)]]
                assert rate == pytest.approx(0.1 * group["lr_scale"])
                assert decay == (0.0 if id(p) in spared else group["weight_decay"]), names[id(p)]
        assert len({group["lr_scale"] for group in groups}) > 3


def test_peers_have_rates_and_decays_of_their_own_and_what_they_share_the_recipes() -> None:
    own = dict(peer_learning_rates=[0.2, 0.05], peer_weight_decays=[0.0, 0.01], weight_decay=0.001)
    for name, values in settings(**own).items():
        assert values == ((0.2, 0.0) if "branches.0" in name else (0.05, 0.01)), name
    found = settings(**own, share_until="stage1", method={"name": "ffl", "fusion_weight_decay": 0.7})
    assert {values for name, values in found.items() if ".trunk." in name} == {(0.1, 0.001)}
    assert {values for name, values in found.items() if name.startswith("method.")} == {(0.1, 0.7)}
    assert {values for name, values in found.items() if "branches.1" in name} == {(0.05, 0.01)}


def test_a_methods_own_rate_holds() -> None:
    """AFD's second player trains the same peers at a rate of its own."""
    recipe = tiny(
        method={"name": "afd"}, share_until=None, peer_learning_rates=[0.2, 0.05], peer_weight_decays=[0.5, 1]
    )
    learner = build(recipe).learner
    groups = optimizer_groups(learner, recipe)
    plain = learner.players(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    assert {g["lr"] for g in groups["adversarial"]} == {g["lr"] for g in plain["adversarial"]}
    assert {g["weight_decay"] for g in groups["adversarial"]} == {g["weight_decay"] for g in plain["adversarial"]}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"peer_learning_rates": [0.1]}, "peer_learning_rates has 1 values for 2 peers: give one for each"),
        ({"peer_weight_decays": [0.1] * 3}, "peer_weight_decays has 3 values for 2 peers"),
        ({"peer_learning_rates": [0.1, 0]}, "peer_learning_rates must be more than 0"),
        ({"layer_decay": 1.5}, "layer_decay must be more than 0 and at most 1"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    entries: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(tmp_path / "run", **entries)
    assert not (tmp_path / "run").exists()


def test_a_network_without_stages_takes_no_layer_decay(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"peer0 \(.*\) cannot be divided into layers"):
        peers = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)) for _ in range(2)]
        recipe = tiny(method={"name": "dml"}, share_until=None, peers="python:a,python:b", layer_decay=0.5)
        optimizer_groups(build(recipe, peers=peers).learner, recipe)


@pytest.mark.parametrize("peers", ["2xresnet8", "2xtimm/resnet10t"])
def test_layer_decay_of_networks_of_which_the_head_alone_is_trained_is_refused_for_that_reason(peers: str) -> None:
    below = "stages*" if peers == "2xresnet8" else "conv1*,bn1*,layer*"
    recipe = tiny(method={"name": "dml"}, share_until=None, peers=peers, layer_decay=0.5, freeze=below)
    learner = build(recipe).learner
    with pytest.raises(UsageError, match="freeze leaves no peer more than one layer to train: leave one of"):
        optimizer_groups(learner, recipe)
    one = tiny(
        method={"name": "dml"},
        share_until=None,
        peers=peers,
        layer_decay=0.5,
        freeze=",".join(f"peer0.{pattern}" for pattern in below.split(",")),
    )
    assert len(optimizer_groups(build(one).learner, one)["peers"]) > 2  # the other peer's layers have theirs


def test_runs_with_all_of_it_go_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several players, whose gradients keep the order of the method's groups."""
    entries: dict[str, Any] = dict(
        method={"name": "afd"},
        share_until=None,
        peer_learning_rates=[0.05, 0.01],
        layer_decay=0.7,
        decay_norms_and_biases=False,
        gradient_clip=1.0,
    )
    result = run(tmp_path / "whole", **entries)
    assert result["complete"]
    killed(tmp_path / "run", (1, 1), monkeypatch, **entries)
    run(tmp_path / "run", **entries)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
