import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import PeerOutputs, TeacherOutputs
from collegium.errors import UsageError
from collegium.methods.at import AT

STAGES = [(4, 8, 8), (4, 8, 8), (6, 4, 4), (8, 2, 2)]
WIDE = [(4, 8, 8), (8, 8, 8), (12, 4, 4), (16, 2, 2)]
DEEP = [(3, 16, 16), (5, 16, 16), (7, 8, 8), (9, 8, 8), (9, 4, 4)]


def outputs(*peers: list[tuple[int, ...]], teacher: list[tuple[int, ...]]) -> PeerOutputs:
    """Six images; each network by the shapes of its stages."""
    torch.manual_seed(0)
    maps = tuple(tuple(torch.randn(6, *shape, requires_grad=True) for shape in stages) for stages in peers)
    told = TeacherOutputs(torch.randn(6, 5), tuple(torch.randn(6, *shape, requires_grad=True) for shape in teacher))
    return PeerOutputs(torch.randn(len(peers), 6, 5, requires_grad=True), maps, None, told)


def attention(f: np.ndarray, size: int) -> np.ndarray:
    b, d, h, _ = f.shape
    pooled = f.reshape(b, d, size, h // size, size, h // size).mean((3, 5))
    a = (pooled**2).mean(1).reshape(b, -1)
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    size = min(a.shape[2], b.shape[2])
    return float(((attention(a, size) - attention(b, size)) ** 2).mean())


@pytest.mark.parametrize(
    ("options", "beta", "stages"), [({}, 1000, 3), ({"beta": 2.0, "stages": 1}, 2, 1), ({"stages": 9}, 1000, 4)]
)
@pytest.mark.parametrize("peers", [(STAGES,), (STAGES, WIDE), (STAGES, DEEP)])
def test_every_peer_learns_from_the_labels_and_the_attention(
    naive, array, at, spec_of, labels, peers, options, beta, stages
):
    out = outputs(*peers, teacher=WIDE)
    terms = AT(spec_of(out), **options)(out, labels, at(0))["peers"]
    assert list(terms) == ["ce", "attention"]
    taught = [array(f) for f in out.teacher.features]
    expected = sum(
        distance(array(own[-stage]), taught[-stage]) for own in out.features for stage in range(1, stages + 1)
    )
    ce = sum(naive.cross_entropy(z, array(labels)) for z in array(out.logits))
    assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["attention"].item() == pytest.approx(beta * expected, rel=1e-4)


def test_the_attention_moves_the_last_stages_of_the_peers_and_never_the_teacher(at, spec_of, labels):
    out = outputs(STAGES, DEEP, teacher=WIDE)
    AT(spec_of(out))(out, labels, at(0))["peers"]["attention"].backward()
    moved = [[f.grad is not None and bool(f.grad.any()) for f in stages] for stages in out.features]
    assert moved == [[False, True, True, True], [False, False, True, True, True]]
    assert all(f.grad is None for f in out.teacher.features) and out.logits.grad is None


def test_the_gradient_is_that_of_the_equation(array, at, spec_of, labels):
    """The loss is as flat along a map itself as its normalisation makes it, and falls along its gradient."""
    out = outputs(STAGES, teacher=WIDE)
    method = AT(spec_of(out), beta=1.0, stages=1)
    method(out, labels, at(0))["peers"]["attention"].backward()
    own, taught, gradient = array(out.features[0][-1]), array(out.teacher.features[-1]), array(out.features[0][-1].grad)
    direction = np.random.default_rng(0).normal(size=own.shape)
    slope = (distance(own + 1e-6 * direction, taught) - distance(own - 1e-6 * direction, taught)) / 2e-6
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-3)
    assert (gradient * own).sum() == pytest.approx(0, abs=1e-6)


def test_maps_active_in_the_same_places_cost_nothing(at, spec_of, labels):
    out = outputs(STAGES, teacher=STAGES)
    scaled = dataclasses.replace(out, features=(tuple(-3 * f for f in out.teacher.features),))
    assert AT(spec_of(out))(scaled, labels, at(0))["peers"]["attention"].item() == pytest.approx(0, abs=1e-8)


def test_a_missing_teacher_and_no_stages_are_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="AT needs a trained teacher"):
        AT(spec_of(random_outputs(2)))
    with pytest.raises(UsageError, match="AT's stages must be more than 0 and finite, not 0"):
        AT(spec_of(random_outputs(2, teacher=True)), stages=0)
