"""What is built from a recipe: copies that follow the peers, players' optimizers, views, notes."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny
from torch import Tensor

from collegium.cohort import Cohort, PeerOutputs
from collegium.data import from_scene
from collegium.errors import UsageError
from collegium.method import Method, ParameterGroup, Progress, Shadow, Terms, trainable
from collegium.methods.ffl import FFL
from collegium.training import experiment as experiments
from collegium.training.engine import make_fabric
from collegium.training.experiment import Experiment, build
from collegium.training.loop import Run
from collegium.training.run_folder import RunFolder


class Following(Method):
    """The peers descend their distance to the copies' logits, and everything that is called is kept."""

    shadow = Shadow(decay=0.9)
    own_views = True

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.seen: list[PeerOutputs] = []
        self.steps: list[int] = []

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        self.seen.append(out)
        assert out.shadow is not None
        return {"peers": {"follow": (out.logits - out.shadow).square().mean() + out.logits.square().mean()}}

    def after_step(self, cohort: Cohort, step: int, epoch_steps: int) -> None:
        self.steps.append(step)


class Stale(Following):
    shadow = Shadow(decay=0.0, every=2)


class Mixed(Method):
    """One player has an optimizer and a rate of its own, on parameters that another player owns too."""

    optimizers = {"second": "adam"}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        return {"peers": {"one": out.logits.square().mean()}, "second": {"two": out.logits.mean()}}

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        whole = trainable(cohort)
        return {"peers": [{"params": whole}], "second": [{"params": whole, "lr": 1e-3, "weight_decay": 0.0}]}


def made(kind: type[Method], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Experiment:
    monkeypatch.setattr(experiments.methods, "get", lambda name: kind)
    return build(tiny(method="made", share_until=None, **changes))


def steps(experiment: Experiment, folder: Any, count: int) -> Run:
    running = Run(experiment, RunFolder(folder), make_fabric(experiment.recipe), quiet=True)
    running.learner.train()
    for _, (images, target) in zip(range(count), running.training_batches.epoch(0), strict=False):
        running.train_step(images, target, 0.0)
        running.step += 1
    return running


def test_copies_follow_the_peers_by_their_moving_average(tmp_path, monkeypatch) -> None:
    experiment = made(Following, monkeypatch)
    learner = experiment.learner
    expected = [p.detach().clone() for p in learner.cohort.parameters()]
    assert learner.shadow is not None and not any(p.requires_grad for p in learner.shadow.parameters())
    running = Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)
    learner.train()
    for step, (images, target) in enumerate(running.training_batches.epoch(0), start=1):
        running.train_step(images, target, 0.0)
        running.step += 1
        decay = min(1 - 1 / step, 0.9)
        expected = [
            decay * old + (1 - decay) * p.detach() for old, p in zip(expected, learner.cohort.parameters(), strict=True)
        ]
    for copied, value in zip(learner.shadow.parameters(), expected, strict=True):
        torch.testing.assert_close(copied, value)


def test_stale_copies_stay_between_their_updates_and_bring_their_statistics(tmp_path, monkeypatch) -> None:
    experiment = made(Stale, monkeypatch)
    start = [p.detach().clone() for p in experiment.learner.cohort.parameters()]
    one = steps(experiment, tmp_path, 1).learner
    assert all(torch.equal(a, b) for a, b in zip(one.shadow.parameters(), start, strict=True))
    two = steps(made(Stale, monkeypatch), tmp_path, 2).learner
    for part in ("parameters", "buffers"):
        pairs = zip(getattr(two.shadow, part)(), getattr(two.cohort, part)(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_every_peer_and_its_copy_see_a_view_of_their_own(tmp_path, monkeypatch) -> None:
    running = steps(made(Following, monkeypatch), tmp_path, 2)
    method = running.learner.method
    images, _ = next(iter(running.training_batches.epoch(0)))
    assert images.ndim == 5 and not torch.equal(images[0], images[1])
    assert method.steps == [1, 2]
    # The copies start as the peers: in the first step both said the same of each view.
    torch.testing.assert_close(method.seen[0].shadow, method.seen[0].logits.detach())


def test_a_player_may_have_an_optimizer_and_a_rate_of_its_own(tmp_path, monkeypatch) -> None:
    running = steps(made(Mixed, monkeypatch, learning_rate=0.05), tmp_path, 1)
    kinds = {player: type(optimizer).__name__ for player, optimizer in running.players.optimizers.items()}
    assert kinds == {"peers": "SGD", "second": "Adam"}
    (group,) = running.players.optimizers["second"].param_groups
    assert group["base"] == 1e-3 and group["weight_decay"] == 0.0
    assert running.players.optimizers["peers"].param_groups[0]["base"] == 0.05


def test_copies_are_saved_and_restored_with_the_run(tmp_path, monkeypatch) -> None:
    running = steps(made(Following, monkeypatch), tmp_path, 3)
    running.read_tally()
    state = running.state_dict()
    other = steps(made(Following, monkeypatch), tmp_path, 0)
    other.load_state_dict(state)
    pairs = zip(other.learner.shadow.parameters(), running.learner.shadow.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_peer_that_sees_resized_images_is_noted() -> None:
    experiment = build(tiny(peers="resnet8,timm/vit_tiny_patch16_224", method="dml", share_until=None))
    assert any("peer1 (timm/vit_tiny_patch16_224) takes 224x224 only" in note for note in experiment.notes)


def test_what_a_network_has_to_say_is_noted_once() -> None:
    scene = np.random.default_rng(0).normal(size=(8, 12, 61)), np.repeat([[1, 1, 1, 2, 2, 2]], 2, 1).repeat(8, 0)
    data = from_scene(*scene, patch=1, per_class=3)
    recipe = tiny(peers="2xhybridsn_1_bn,spectral_resnet8", method="dml", share_until=None)
    notes = build(recipe, data=data).notes
    assert notes[:1] == data.notes and len(notes) == 2
    assert notes[1].startswith("hybridsn_1_bn convolves over 61 bands")


def test_a_method_must_deploy_a_peer_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FFL, "deployed_peer", 2, raising=False)
    with pytest.raises(UsageError, match="FFL.deployed_peer must be the index of one of 2 peers, not 2"):
        build(tiny())


def test_peers_of_one_seed_start_alike_under_every_method() -> None:
    def start_of(method: str) -> list[Tensor]:
        return list(build(tiny(method=method, share_until=None)).learner.cohort.parameters())

    for a, b in zip(start_of("independent"), start_of("ffl"), strict=True):
        assert torch.equal(a, b)


def test_building_leaves_the_random_state_of_the_user_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build(tiny())
    assert torch.equal(torch.rand(2), expected)
