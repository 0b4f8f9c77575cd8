import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from collegium.cohort import PeerOutputs, TeacherOutputs
from collegium.errors import UsageError
from collegium.methods.fitnets import FitNets


def outputs(*peers: list[tuple[int, ...]], teacher: list[tuple[int, ...]]) -> PeerOutputs:
    """Six images; each network by the shapes of its stages."""
    torch.manual_seed(0)
    maps = tuple(tuple(torch.randn(6, *shape, requires_grad=True) for shape in stages) for stages in peers)
    told = TeacherOutputs(torch.randn(6, 5), tuple(torch.randn(6, *shape).relu() for shape in teacher))
    return PeerOutputs(torch.randn(len(peers), 6, 5, requires_grad=True), maps, None, told)


STAGES = [(4, 8, 8), (4, 8, 8), (6, 4, 4), (8, 2, 2)]
WIDE = [(4, 8, 8), (8, 8, 8), (12, 4, 4), (16, 2, 2)]
DEEP = [(3, 16, 16), (5, 16, 16), (7, 8, 8), (9, 8, 8), (9, 4, 4)]


def regressed(module: nn.Module, feature: np.ndarray) -> np.ndarray:
    """1x1 convolution, norm over the batch, ReLU."""
    (conv, _), _ = module
    x = np.einsum("od,bdhw->bohw", conv.weight.detach().double().numpy()[:, :, 0, 0], feature)
    x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    return np.maximum(x, 0)


@pytest.mark.parametrize(("options", "beta"), [({}, 100), ({"beta": 3.0}, 3), ({"beta": 0.0}, 0)])
def test_every_peer_learns_from_the_labels_and_the_hint(naive, array, at, spec_of, labels, options, beta):
    out = outputs(STAGES, WIDE, teacher=WIDE)
    method = FitNets(spec_of(out), **options)
    terms = method(out, labels, at(0))["peers"]
    assert list(terms) == ["ce", "hint"]
    ce = sum(naive.cross_entropy(z, array(labels)) for z in array(out.logits))
    hints = [
        np.mean((regressed(module, array(stages[2])) - array(out.teacher.features[2])) ** 2)
        for module, stages in zip(method.regressors, out.features, strict=True)
    ]
    assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["hint"].item() == pytest.approx(beta * sum(hints), rel=1e-4)


def test_the_hint_moves_the_guided_stages_and_the_regressors_alone(at, spec_of, labels):
    out = outputs(STAGES, STAGES, teacher=WIDE)
    told = dataclasses.replace(out.teacher, features=tuple(f.requires_grad_() for f in out.teacher.features))
    out = dataclasses.replace(out, teacher=told)
    method = FitNets(spec_of(out))
    method(out, labels, at(0))["peers"]["hint"].backward()
    assert [[f.grad is not None for f in stages] for stages in out.features] == [[False, False, True, False]] * 2
    assert all(f.grad is None for f in out.teacher.features) and out.logits.grad is None
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


def test_the_gradient_is_that_of_the_mean_square(array, at, spec_of, labels):
    out = outputs(STAGES, teacher=STAGES)
    method = FitNets(spec_of(out))
    method.regressors[0] = nn.Identity()
    method(out, labels, at(0))["peers"]["hint"].backward()
    own, taught = out.features[0][2], out.teacher.features[2]
    torch.testing.assert_close(own.grad, 100 * 2 * (own - taught).detach() / own.numel())


def test_a_map_that_equals_the_hint_costs_nothing(at, spec_of, labels):
    out = outputs(STAGES, teacher=STAGES)
    equal = dataclasses.replace(out, features=(out.teacher.features,))
    method = FitNets(spec_of(out))
    method.regressors[0] = nn.Identity()
    assert method(equal, labels, at(0))["peers"]["hint"].item() == 0


@pytest.mark.parametrize(
    ("stages", "options", "hint", "guided"),
    [
        (STAGES, {}, 2, 2),
        (DEEP, {}, 2, 2),
        (DEEP[:3], {}, 2, 1),
        (DEEP[:1], {}, 2, 0),
        (STAGES, {"hint": 3, "guided": 1}, 3, 1),
        (DEEP, {"hint": -1, "guided": -1}, -1, -1),
    ],
)
def test_hint_and_guided_stage_are_the_middle_ones_or_chosen(at, spec_of, labels, stages, options, hint, guided):
    out = outputs(stages, teacher=WIDE)
    method = FitNets(spec_of(out), **options)
    (found,) = method.regressors
    assert found(out.features[0][guided]).shape == out.teacher.features[hint].shape
    method(out, labels, at(0))["peers"]["hint"].backward()
    assert out.features[0][guided].grad is not None


def test_a_stage_that_a_network_lacks_is_refused(spec_of):
    spec = spec_of(outputs(STAGES, DEEP, teacher=WIDE))
    with pytest.raises(UsageError, match=r"the teacher has 4 stages and no stage 4; take --method.hint from 0 to 3"):
        FitNets(spec, hint=4)
    with pytest.raises(UsageError, match=r"peer0 \(net\) has 4 stages and no stage -5; take --method.guided"):
        FitNets(spec, guided=-5)
    assert FitNets(spec, hint=-4, guided=-4)


def test_a_missing_teacher_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="FitNets needs a trained teacher"):
        FitNets(spec_of(random_outputs(2)))
