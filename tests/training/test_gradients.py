"""Players, their gradients, clipping and steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import Tensor, nn

from collegium.cohort import Cohort, PeerOutputs
from collegium.method import Method, ParameterGroup, Progress, Terms, trainable
from collegium.training import experiment as experiments
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.loop import Run
from collegium.training.run_folder import RunFolder


def start(tmp_path: Path, **changes: Any) -> Run:
    experiment = build(tiny(**changes))
    return Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)


def one_step(running: Run) -> None:
    images, target = next(iter(running.training_batches.epoch(0)))
    running.learner.train()
    running.train_step(images, target, 0.0)


class TwoPlayers(Method):
    """The peers descend their mean logit times a weight of the critic's; the critic descends the opposite."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.critic = nn.Parameter(torch.tensor(2.0))

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        value = out.logits.mean() * self.critic
        return {"peers": {"fool": value}, "critic": {"judge": -value, "size": self.critic**2}}

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        return {"peers": [{"params": trainable(cohort)}], "critic": [{"params": [self.critic]}]}


def test_several_players_compute_all_gradients_before_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.methods, "get", lambda name: TwoPlayers)
    plain = dict(momentum=0.0, weight_decay=0.0, schedule="constant", learning_rate=0.01)
    running = start(tmp_path, method="two_players", **plain)
    images, _ = next(iter(running.training_batches.epoch(0)))
    peers = trainable(running.learner.cohort)
    before = [p.detach().clone() for p in peers]

    # What each player's own loss says at the weights before the step.
    running.learner.train()
    mean = running.learner.cohort(images).logits.mean()
    expected_peers = torch.autograd.grad(2.0 * mean, peers, retain_graph=True)
    expected_critic = -mean.item() + 2 * 2.0

    one_step(running)
    for p, old, gradient in zip(peers, before, expected_peers, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.01 * gradient)
    critic = running.learner.method.critic
    assert isinstance(critic, Tensor)
    assert critic.item() == pytest.approx(2.0 - 0.01 * expected_critic, rel=1e-5)


def test_several_players_train_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.methods, "get", lambda name: TwoPlayers)
    running = start(tmp_path, method="two_players", precision="bf16")
    before = running.learner.method.critic.clone()  # type: ignore[operator]
    one_step(running)
    assert running.learner.method.critic != before


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    plain = dict(momentum=0.0, weight_decay=0.0, schedule="constant", learning_rate=1.0)
    running = start(tmp_path, method="dml", share_until=None, gradient_clip=0.01, **plain)
    before = [p.detach().clone() for p in running.learner.parameters()]
    one_step(running)
    steps = [p.detach() - old for p, old in zip(running.learner.parameters(), before, strict=True)]
    norm = torch.stack([step.norm() for step in steps]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)
