import io
import math
from typing import Any

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from collegium.errors import UsageError
from collegium.method import ParameterGroup, torch_groups
from collegium.training.experiment import build
from collegium.training.optimizers import (
    learning_rate_factor,
    make_optimizer,
    optimizer_names,
    set_learning_rate,
    soften,
)
from collegium.training.recipe import Recipe


@pytest.mark.parametrize(("fraction", "factor"), [(0.0, 1.0), (0.4999, 1.0), (0.5, 0.1), (0.75, 0.01), (0.999, 0.01)])
def test_the_step_schedule_drops_at_its_milestones(fraction: float, factor: float) -> None:
    assert learning_rate_factor(Recipe(), fraction) == pytest.approx(factor)


def test_the_papers_drops_fall_on_epochs_150_and_225_of_300() -> None:
    factors = [learning_rate_factor(Recipe(epochs=300), epoch / 300) for epoch in range(300)]
    drops = [epoch for epoch in range(1, 300) if factors[epoch] < factors[epoch - 1]]
    assert drops == [150, 225]


def test_the_cosine_schedule_is_half_a_cosine() -> None:
    for fraction in (0.0, 0.25, 0.5, 0.9):
        factor = learning_rate_factor(Recipe(schedule="cosine"), fraction)
        assert factor == pytest.approx((1 + math.cos(math.pi * fraction)) / 2)


def test_the_cosine_schedule_ends_at_the_lowest_rate_as_torchs_does() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01)
    recipe = Recipe(schedule="cosine", learning_rate=0.2, min_learning_rate=0.01)
    for step in range(51):
        assert 0.2 * learning_rate_factor(recipe, step / 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_one_cycle_agrees_with_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    steps = 1000
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    recipe = Recipe(schedule="one_cycle")
    for step in range(steps - 1):
        # torch places its peak half a step aside, hence the tolerance.
        ours = learning_rate_factor(recipe, step / (steps - 1))
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.01)
        optimizer.step()
        theirs.step()


def test_warm_up_rises_linearly_from_zero() -> None:
    recipe = Recipe(schedule="constant", warmup=0.1)
    assert [learning_rate_factor(recipe, f) for f in (0.0, 0.05, 0.1, 0.5)] == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_groups_keep_the_rate_and_decay_that_the_method_sets() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    recipe = Recipe(learning_rate=0.2, weight_decay=1e-4, schedule="step", milestones=(0.5,), decay=0.5)
    groups: list[ParameterGroup] = [
        {"params": [a]},
        {"params": [b], "weight_decay": 1e-5, "lr_scale": 0.01},
        {"params": []},
    ]
    optimizer = make_optimizer(recipe, torch_groups(groups, lr=0.2, weight_decay=1e-4))
    set_learning_rate({"peers": optimizer}, recipe, 0.5)
    settings = [(g["lr"], g["weight_decay"], g["nesterov"]) for g in optimizer.param_groups]
    assert settings == [(0.1, 1e-4, True), (pytest.approx(0.001), 1e-5, True)]


def test_a_group_with_milestones_drops_to_a_tenth_at_each_and_not_by_the_schedule() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    recipe = Recipe(learning_rate=0.2, schedule="cosine", warmup=0.1)
    groups = torch_groups([{"params": [a]}, {"params": [b], "milestones": (0.25, 0.5)}], lr=0.2, weight_decay=0.0)
    optimizer = make_optimizer(recipe, groups, "adam")
    rates = []
    for fraction in (0.0, 0.2, 0.25, 0.5, 0.9):
        set_learning_rate({"peers": optimizer}, recipe, fraction)
        rates.append(optimizer.param_groups[1]["lr"])
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * learning_rate_factor(recipe, fraction))
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.002, 0.002])


def test_nesterov_sgd_takes_the_step_of_the_equation() -> None:
    """v <- m v + g + wd p;  p <- p - lr (g + wd p + m v), Sutskever et al. 2013 in torch's form."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer(
        Recipe(learning_rate=0.1, momentum=0.9), [{"params": [p], "lr": 0.1, "weight_decay": 0.01}]
    )
    expected, v = 1.0, 0.0
    for g in (0.5, -0.3):
        p.grad = torch.tensor([g])
        optimizer.step()
        d = g + 0.01 * expected
        v = 0.9 * v + d if v else d
        expected -= 0.1 * (d + 0.9 * v)
        assert p.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_other_optimizers(name: str, kind: type[torch.optim.Optimizer]) -> None:
    recipe = Recipe.from_dict({"optimizer": name})
    assert type(make_optimizer(recipe, [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1}])) is kind


def _cohort() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)) for _ in "ab"
    )


def _own_optimizer(peers: nn.ModuleList, recipe: Recipe) -> torch.optim.Optimizer:
    rates = recipe.learning_rate, recipe.learning_rate / 10
    groups: list[ParameterGroup] = [
        {"params": list(peer.parameters()), "lr": lr} for peer, lr in zip(peers, rates, strict=True)
    ]
    return make_optimizer(recipe, torch_groups(groups, lr=0.1, weight_decay=1e-2))


def _take_steps(peers: nn.ModuleList, optimizer: torch.optim.Optimizer, recipe: Recipe, steps: range) -> None:
    for step in steps:
        set_learning_rate({"peers": optimizer}, recipe, step / 5)
        random = torch.Generator().manual_seed(step)
        images, target = torch.randn(8, 1, 4, 4, generator=random), torch.randint(3, (8,), generator=random)
        for peer in peers if step else peers[:1]:  # a peer without gradients, as of another process, stays as it is
            nn.functional.cross_entropy(peer(images), target).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", list_optimizers())
def test_every_optimizer_of_timm_steps_and_goes_on_exactly_or_is_refused(name: str) -> None:
    recipe = Recipe(optimizer=name, learning_rate=0.01, schedule="cosine")
    peers = _cohort()
    start = {key: tensor.clone() for key, tensor in peers.state_dict().items()}
    if name not in optimizer_names():
        with pytest.raises(UsageError, match=f"the optimizer {name} .*; take another of"):
            _own_optimizer(peers, recipe)
        return
    optimizer = _own_optimizer(peers, recipe)
    _take_steps(peers, optimizer, recipe, range(2))
    file = io.BytesIO()
    torch.save([peers.state_dict(), optimizer.state_dict()], file)
    _take_steps(peers, optimizer, recipe, range(2, 4))
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    again = _cohort()
    again.load_state_dict(weights)
    resumed = _own_optimizer(again, recipe)
    resumed.load_state_dict(state)
    _take_steps(again, resumed, recipe, range(2, 4))
    for key, tensor in peers.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
        assert tensor.isfinite().all() and (tensor.ndim < 2 or not torch.equal(tensor, start[key])), key


def test_most_optimizers_of_timm_can_be_used() -> None:
    assert {"sgd", "adam", "adamw", "lamb", "lion", "nadamw", "rmsproptf", "adafactor"} <= set(optimizer_names())
    assert not {"adahessian", "kron", "bnbsgd", "fusedlamb"} & set(optimizer_names())


def test_options_of_an_optimizer_reach_it() -> None:
    recipe = Recipe(optimizer="adamw", optimizer_options={"betas": [0.8, 0.95], "eps": 1e-6})
    (group,) = make_optimizer(recipe, [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1}]).param_groups
    assert (list(group["betas"]), group["eps"]) == ([0.8, 0.95], 1e-6)
    (group,) = make_optimizer(recipe, [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1}], "adam").param_groups
    assert group["betas"] == (0.9, 0.999), "a method's own optimizer has none of the run's options"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"optimizer": "adamv"}, "there is no optimizer 'adamv' in timm; did you mean 'adam' or"),
        ({"optimizer": "lookahead_adam"}, "there is no optimizer 'lookahead_adam' in timm"),
        ({"optimizer": "adamw", "optimizer_options": {"beta": 1}}, "adamw has no option 'beta'; did you mean 'betas'"),
        ({"optimizer_options": {"momentum": 0.5}}, "sgd has no option 'momentum'; the recipe has an entry of its own"),
        ({"optimizer": "adam", "optimizer_options": {"betas": 0.9}}, "the optimizer adam cannot be made with these"),
        ({"optimizer": "sgdw", "momentum": 0.0}, "the optimizer sgdw cannot be made with these options: Nesterov"),
    ],
)
def test_a_wrong_optimizer_is_told_before_anything_is_read(entries: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(Recipe(**entries, data={"name": "no such data"}))


def test_smoothed_targets_give_torchs_smoothed_loss() -> None:
    logits, target = torch.randn(6, 5), torch.randint(5, (6,))
    ours = nn.functional.cross_entropy(logits, soften(target, 5, 0.1))
    theirs = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)
    assert soften(target, 5, 0.0) is target
