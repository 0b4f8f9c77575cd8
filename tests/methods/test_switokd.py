import dataclasses

import numpy as np
import pytest
import torch

from collegium.errors import UsageError
from collegium.methods.dml import DML
from collegium.methods.switokd import SwitOKD


def expert_mode(p_s: np.ndarray, p_t: np.ndarray, y: np.ndarray) -> bool:
    """Whether the teacher waits."""
    gap, s, t = (np.abs(a - b).sum(1).mean() for a, b in ((p_s, p_t), (p_s, y), (p_t, y)))
    return bool(gap > s - np.exp(-t / (s + t)) * t and t < s)


def misled(random_outputs, peers: int, teacher: int, error: float):
    """A teacher that prefers the right class and doubts one other; students that are sure of a third by ``error``."""
    out, y = random_outputs(peers), np.array([0, 1, 2, 3, 4, 1])
    z = 0.1 * out.logits.detach()
    for k in range(peers):
        if k == teacher:
            z[k, range(6), y] += 2
            z[k, range(6), (y + 1) % 5] += 1
        else:
            z[k, range(6), (y + 2) % 5] += error
    return dataclasses.replace(out, logits=z.requires_grad_())


@pytest.mark.parametrize("peers", [2, 3, 4])
@pytest.mark.parametrize("teacher", [0, 1])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("error", [None, -6.0, 0.1, 3.0, 6.0])
def test_all_terms_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, teacher, temperature, error
):
    out = random_outputs(peers) if error is None else misled(random_outputs, peers, teacher, error)
    terms = SwitOKD(spec_of(out), teacher=teacher, temperature=temperature)(out, labels, at(0))["peers"]
    z, y = array(out.logits), array(labels)
    p, students = naive.softmax(z / temperature), [k for k in range(peers) if k != teacher]
    w = {k: not expert_mode(p[k], p[teacher], np.eye(5)[y]) for k in students}
    kd = sum(naive.kd(z[k], z[j], temperature) for k in students for j in range(peers) if j != k)
    replies = sum(w[k] * naive.kd(z[teacher], z[k], temperature) for k in students)
    own = any(w.values()) * naive.cross_entropy(z[teacher], y)
    assert list(terms) == ["ce", "kd", "ce_teacher", "kd_teacher"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(z[k], y) for k in students), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-4)
    assert terms["ce_teacher"].item() == pytest.approx(own, rel=1e-5)
    assert terms["kd_teacher"].item() == pytest.approx(replies, rel=1e-4)


def test_the_teacher_waits_while_it_is_too_far_ahead_and_learns_otherwise(at, random_outputs, spec_of, labels):
    learns = []
    for error in (0.0, 0.1, 3.0, 6.0):
        out = misled(random_outputs, 2, 1, error)
        sum(SwitOKD(spec_of(out))(out, labels, at(0))["peers"].values()).backward()
        assert out.logits.grad[0].any()
        learns.append(bool(out.logits.grad[1].any()))
    assert learns == [True, True, False, False]


def test_a_teacher_that_is_behind_learns_however_far(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 2, 1, 6.0)
    terms = SwitOKD(spec_of(out), teacher=0)(out, labels, at(0))["peers"]
    assert terms["ce_teacher"].item() > 0 and terms["kd_teacher"].item() > 0


def test_it_switches_where_the_gap_crosses_the_threshold(naive, array, at, random_outputs, spec_of, labels):
    """Just before and just after the error at which the rule, by bisection in float64, changes."""
    y, low, high = np.eye(5)[array(labels)], 0.1, 3.0
    for _ in range(30):
        error = (low + high) / 2
        p = naive.softmax(array(misled(random_outputs, 2, 1, error).logits))
        low, high = (low, error) if expert_mode(p[0], p[1], y) else (error, high)
    rests = []
    for error in (low - 1e-3, high + 1e-3):
        out = misled(random_outputs, 2, 1, error)
        rests.append(SwitOKD(spec_of(out))(out, labels, at(0))["peers"]["ce_teacher"].item() == 0)
    assert rests == [False, True]


def test_in_learning_mode_two_peers_learn_as_in_dml(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 2, 1, 0.1)
    total = sum(SwitOKD(spec_of(out))(out, labels, at(0))["peers"].values())
    mutual = sum(DML(spec_of(out))(out, labels, at(0))["peers"].values())
    torch.testing.assert_close(total, mutual)
    torch.testing.assert_close(
        torch.autograd.grad(total, out.logits), torch.autograd.grad(mutual, out.logits), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("error", "waits"), [(0.1, False), (6.0, True)])
def test_targets_are_constants(naive, array, at, random_outputs, spec_of, labels, error, waits):
    out = misled(random_outputs, 2, 0, error)
    sum(SwitOKD(spec_of(out), teacher=0)(out, labels, at(0))["peers"].values()).backward()
    (t, s), y = naive.softmax(array(out.logits)), np.eye(5)[array(labels)]
    expected = np.stack([(1 - waits) * (2 * t - y - s), 2 * s - y - t]) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-6)


def test_a_teacher_of_two_learns_from_the_student_that_keeps_up(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 3, 1, 6.0)
    z = out.logits.detach().clone()
    z[2] = z[1]  # as good as the teacher
    terms = SwitOKD(spec_of(out))(dataclasses.replace(out, logits=z), labels, at(0))["peers"]
    assert terms["ce_teacher"].item() > 0 and terms["kd_teacher"].item() == pytest.approx(0, abs=1e-6)
    z[2] = z[0]
    terms = SwitOKD(spec_of(out))(dataclasses.replace(out, logits=z), labels, at(0))["peers"]
    assert terms["ce_teacher"].item() == terms["kd_teacher"].item() == 0


def test_peers_that_are_never_wrong_cost_nothing(at, random_outputs, spec_of, labels):
    out = dataclasses.replace(random_outputs(2), logits=1000 * torch.eye(5)[labels].expand(2, -1, -1))
    assert sum(SwitOKD(spec_of(out))(out, labels, at(0))["peers"].values()).item() == pytest.approx(0)


@pytest.mark.parametrize("teacher", [-1, 2])
def test_a_teacher_that_is_no_peer_is_refused(random_outputs, spec_of, teacher):
    with pytest.raises(UsageError, match=f"one of the peers 0 to 1, not {teacher}; set it with --method.teacher"):
        SwitOKD(spec_of(random_outputs(2)), teacher=teacher)


def test_a_temperature_of_zero_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="SwitOKD's temperature must be more than 0, not 0"):
        SwitOKD(spec_of(random_outputs(2)), temperature=0.0)


@pytest.mark.parametrize(("teacher", "student"), [(0, 1), (1, 0), (2, 0)])
def test_the_teacher_is_not_what_is_taken_home(random_outputs, spec_of, teacher, student):
    assert SwitOKD(spec_of(random_outputs(3)), teacher=teacher).deployed_peer == student
