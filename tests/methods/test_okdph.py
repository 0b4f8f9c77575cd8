import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from collegium.cohort import Cohort, describe
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.methods.okdph import OKDPH, PRESETS, Preset
from collegium.networks import build
from collegium.training.recipe import Recipe
from collegium.training.run import restore, train

PEERS = pytest.mark.parametrize("peers", [2, 3])


def learner_of(peers: int, **options: object) -> Distiller:
    torch.manual_seed(0)
    return Distiller(OKDPH, f"{peers}xresnet8", image_shape=(3, 8, 8), num_classes=5, **options)


def parted(learner: Distiller) -> Distiller:
    """The same after the peers have learned apart; the copy has followed."""
    with torch.no_grad():
        for x in learner.cohort.parameters():
            x.add_(torch.randn_like(x) / 10)
    learner._follow(learner.method.shadow, 0.0)
    return learner


@PEERS
@pytest.mark.parametrize("trunk", [None, "stage1"])
def test_peers_start_as_copies_of_the_first(peers, trunk):
    torch.manual_seed(0)
    networks = [build("resnet8", num_classes=5) for _ in range(peers)]
    networks[0].stages["stem"][1].running_mean.fill_(0.5)
    first = {name: x.clone() for name, x in networks[0].state_dict().items()}
    learner = Distiller(OKDPH, networks, image_shape=(3, 8, 8), num_classes=5, share_until=trunk)
    for k in range(peers):
        state = learner.cohort.peer(k).state_dict()
        assert all(torch.equal(state[name], first[name]) for name in first)
    assert all(torch.equal(x, first[name]) for name, x in learner.shadow.peer(0).state_dict().items())


def test_in_a_run_peers_part_by_their_views(tmp_path):
    data = {"name": "digits", "per_class": 4}
    recipe = dict(method="okdph", peers="2xresnet8", data=data, batch_size=20, epochs=1, device="cpu")
    train(Recipe.from_dict(recipe), tmp_path / "run", quiet=True)
    a, b = (restore(tmp_path / "run").learner.cohort.peer(k).state_dict() for k in range(2))
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_is_not_said(random_outputs, spec_of, name):
    known = PRESETS[name]
    method = OKDPH(spec_of(random_outputs(2)), preset=name)
    assert (method.omega, method.beta, method.gamma, method.interval) == known
    other = OKDPH(spec_of(random_outputs(2)), preset=name, omega=0.1, beta=0.0, gamma=0.0, interval=7)
    assert (other.omega, other.beta, other.gamma, other.interval) == (0.1, 0.0, 0.0, 7)
    assert set(PRESETS) == set(get_args(Preset))


@PEERS
def test_peers_imitate_the_mean_of_all_logits(naive, array, at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    shadow = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
    out = dataclasses.replace(out, shadow=shadow)
    method = OKDPH(spec_of(out))
    terms = method(out, labels, at(0))["peers"]
    z, y = array(out.logits), array(labels)
    told = np.concatenate([z, array(shadow)]).mean(0)
    assert list(terms) == ["ce", "kd"]
    assert terms["ce"].item() == pytest.approx(0.8 * sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.8 * sum(naive.kd(one, told, 4) for one in z), rel=1e-4)
    terms["kd"].backward()
    q, p = naive.softmax(z / 4), naive.softmax(told / 4)
    torch.testing.assert_close(array(out.logits.grad), 0.8 * 4 * (q - p) / 6, rtol=1e-4, atol=1e-6)
    predicted = method.predict(out)
    assert list(predicted) == ["hybrid"] and torch.equal(predicted["hybrid"], shadow[0])


@PEERS
@pytest.mark.parametrize("views", [True, False])
def test_the_hybrid_network_has_the_mean_of_the_peers_weights_from_the_start(at, peers, views):
    learner = parted(learner_of(peers))
    expected = build("resnet8", num_classes=5)
    states = [learner.cohort.peer(k).state_dict() for k in range(peers)]
    expected.load_state_dict(
        {name: torch.stack([s[name] for s in states]).double().mean(0).to(states[0][name].dtype) for name in states[0]}
    )
    images = torch.randn(peers, 4, 3, 8, 8)
    out = learner._outputs(images if views else images[0], copies=True)
    assert out.shadow.shape == (1, 4, 5) and not out.shadow.requires_grad
    torch.testing.assert_close(out.shadow[0], expected.train()(images[0]))
    learner.eval()
    predicted = learner.predict(images[0])
    assert set(predicted) == {"ensemble", "hybrid", *(f"peer{k}" for k in range(peers))}


@pytest.mark.parametrize("options", [{"interval": 4}, {}])
@pytest.mark.parametrize(("step", "share"), [(1, 0), (2, 0), (3, 0), (4, 0.25), (7, 0), (8, 0.25)])
def test_peers_return_to_their_mean_which_stays(step, share, options):
    learner = parted(learner_of(2, gamma=0.25, **options))
    before = [[p.clone() for p in learner.cohort.peer(k).parameters()] for k in range(2)]
    learner.after_step(step, epoch_steps=9 if options else 4)
    copied = list(learner.shadow.parameters())
    for a, b, old_a, old_b, mean in zip(
        *(learner.cohort.peer(k).parameters() for k in range(2)), *before, copied, strict=True
    ):
        torch.testing.assert_close(mean, (old_a + old_b) / 2)
        torch.testing.assert_close(a, old_a + share * (mean - old_a))
        torch.testing.assert_close(b, old_b + share * (mean - old_b))


def test_unlike_peers_are_refused():
    cohort = Cohort([build("resnet8", num_classes=5), build("resnet14", num_classes=5)])
    with pytest.raises(UsageError, match="one kind, not resnet8, resnet14; write for example --peers 2xresnet8"):
        OKDPH(describe(cohort, (3, 8, 8), 5))


def test_peers_of_one_name_with_other_weights_are_refused():
    first, second = (build("resnet8", num_classes=5) for _ in range(2))
    second.stages["stage3"].append(nn.Conv2d(64, 64, 1))
    with pytest.raises(UsageError, match="OKDPH averages weights.*resnet8, resnet8 differ in names or shapes"):
        Distiller(OKDPH, [first, second], image_shape=(3, 8, 8), num_classes=5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"gamma": 1.5}, {"interval": 0}])
def test_impossible_settings_are_refused(random_outputs, spec_of, options):
    with pytest.raises(UsageError, match=f"OKDPH's {next(iter(options))} must be"):
        OKDPH(spec_of(random_outputs(2)), **options)


def test_the_peers_may_return_to_their_mean_in_every_step(random_outputs, spec_of):
    assert OKDPH(spec_of(random_outputs(2)), interval=1).interval == 1
