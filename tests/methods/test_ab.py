import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from collegium.cohort import PeerOutputs, TeacherOutputs
from collegium.errors import UsageError
from collegium.methods.ab import AB, boundary_loss

STAGES = [(4, 8, 8), (4, 8, 8), (6, 4, 4), (8, 2, 2)]
WIDE = [(4, 8, 8), (8, 8, 8), (12, 4, 4), (16, 2, 2)]
DEEP = [(3, 16, 16), (5, 16, 16), (7, 8, 8), (9, 8, 8), (9, 4, 4)]


def outputs(*peers: list[tuple[int, ...]], teacher: list[tuple[int, ...]]) -> PeerOutputs:
    """Six images; each network by the shapes of its stages."""
    torch.manual_seed(0)
    maps = tuple(tuple(torch.randn(6, *shape, requires_grad=True) for shape in stages) for stages in peers)
    told = TeacherOutputs(torch.randn(6, 5), tuple(torch.randn(6, *shape, requires_grad=True) for shape in teacher))
    return PeerOutputs(torch.randn(len(peers), 6, 5, requires_grad=True), maps, None, told)


def boundary(s: np.ndarray, t: np.ndarray, margin: float = 1.0) -> float:
    """Neuron by neuron, in the form that the authors' code has."""
    total = 0.0
    for a, b in zip(s.flatten(), t.flatten(), strict=True):
        if b <= 0 and a > -margin:
            total += (a + margin) ** 2
        if b > 0 and a <= margin:
            total += (a - margin) ** 2
    return total / len(s)


@pytest.mark.parametrize("peers", [(STAGES,), (STAGES, WIDE), (STAGES, DEEP)])
@pytest.mark.parametrize(
    ("options", "beta", "margin", "stages"),
    [({}, 1, 1, 3), ({"beta": 2.0, "margin": 0.5, "stages": 1}, 2, 0.5, 1), ({"stages": 9}, 1, 1, 4)],
)
def test_at_first_the_boundaries_of_the_last_stages_teach(
    array, at, spec_of, labels, peers, options, beta, margin, stages
):
    out = outputs(*peers, teacher=WIDE)
    method = AB(spec_of(out), **options)
    terms = method(out, labels, at(0))["peers"]
    assert list(terms) == ["boundary", "ce"] and terms["ce"].item() == 0
    expected = 0.0
    for own, connectors in zip(out.features, method.connectors, strict=True):
        assert len(connectors) == stages
        for above, connect in enumerate(connectors):
            s, t = connect(own[-1 - above]), out.teacher.features[-1 - above]
            assert s.shape == t.shape
            expected += 2.0**-above * boundary(array(s), array(t), margin)
    assert terms["boundary"].item() == pytest.approx(beta * 3 / 1000 * expected, rel=1e-4)


@pytest.mark.parametrize(("epoch", "beginning"), [(0, True), (29, True), (30, False), (269, False)])
def test_the_phases_change_after_the_share_of_training(naive, array, at, spec_of, labels, epoch, beginning):
    out = outputs(STAGES, WIDE, teacher=WIDE)
    method = AB(spec_of(out), alpha=0.25, temperature=2.0)
    terms = method(out, labels, at(epoch, 270))["peers"]
    z, told = array(out.logits), array(out.teacher.logits)
    ce = 0.75 * sum(naive.cross_entropy(one, array(labels)) for one in z)
    kd = 0.25 * sum(naive.kd(one, told, 2) for one in z)
    assert list(terms) == ["boundary", "ce", "kd"]
    assert (terms["boundary"].item() > 0) == beginning
    assert terms["ce"].item() == pytest.approx(0 if beginning else ce, rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0 if beginning else kd, rel=1e-4)


def test_without_an_initialisation_the_labels_alone_teach(naive, array, at, spec_of, labels):
    out = outputs(STAGES, teacher=WIDE)
    terms = AB(spec_of(out), initialisation=0.0)(out, labels, at(0))["peers"]
    assert terms["boundary"].item() == 0
    assert terms["ce"].item() == pytest.approx(naive.cross_entropy(array(out.logits[0]), array(labels)), rel=1e-5)


def test_a_neuron_is_pushed_over_its_boundary_until_the_margin():
    s = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float32).view(1, 4, 1, 1).requires_grad_()
    for sign, value, gradient in ((1, 9 + 2.25 + 0.25, [-6, -3, -1, 0]), (-1, 0.25 + 2.25 + 9, [0, 1, 3, 6])):
        s.grad = None
        loss = boundary_loss(s, sign * torch.rand_like(s).add(0.1), 1.0)
        loss.backward()
        assert loss.item() == pytest.approx(value)
        assert s.grad.flatten().tolist() == pytest.approx(gradient)
    assert boundary_loss(s, torch.zeros_like(s), 1.0).item() == pytest.approx(0.25 + 2.25 + 9)


def test_a_teacher_s_relu_changes_nothing(at, spec_of, labels):
    out = outputs(STAGES, teacher=WIDE)
    told = dataclasses.replace(out.teacher, features=tuple(f.relu() for f in out.teacher.features))
    method = AB(spec_of(out))
    before, after = (method(o, labels, at(0))["peers"] for o in (out, dataclasses.replace(out, teacher=told)))
    assert before == after


def test_neurons_beyond_the_margin_cost_nothing(at, spec_of, labels):
    out = outputs(WIDE, teacher=WIDE)
    agreeing = dataclasses.replace(out, features=(tuple(1.5 * f.detach().sign() for f in out.teacher.features),))
    method = AB(spec_of(out))
    method.connectors = nn.ModuleList([nn.ModuleList([nn.Identity()] * 3)])
    assert method(agreeing, labels, at(0))["peers"]["boundary"].item() == 0


def test_the_boundaries_move_peers_and_connectors_and_never_the_teacher(at, spec_of, labels):
    out = outputs(STAGES, DEEP, teacher=WIDE)
    method = AB(spec_of(out))
    method(out, labels, at(0))["peers"]["boundary"].backward()
    moved = [[f.grad is not None and bool(f.grad.any()) for f in stages] for stages in out.features]
    assert moved == [[False, True, True, True], [False, False, True, True, True]]
    assert all(f.grad is None for f in out.teacher.features) and out.logits.grad is None
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


def test_a_missing_teacher_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="AB needs a trained teacher"):
        AB(spec_of(random_outputs(2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initialisation": 1.5}, "AB's initialisation must be a share from 0 to 1, not 1.5"),
        ({"alpha": -0.5}, "AB's alpha must be a share from 0 to 1, not -0.5"),
        ({"margin": 0.0}, "AB's margin must be more than 0 and finite, not 0"),
        ({"stages": 0}, "AB's stages must be more than 0 and finite, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(random_outputs, spec_of, options, message):
    with pytest.raises(UsageError, match=message):
        AB(spec_of(random_outputs(2, teacher=True)), **options)


def test_the_defaults_are_those_of_the_benchmark(spec_of):
    method = AB(spec_of(outputs(STAGES, teacher=WIDE)))
    assert (method.margin, method.beta, method.alpha, method.temperature) == (1, 1, 0, 4)
