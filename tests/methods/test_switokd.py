import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.methods.dml import DML
from collegium.methods.switokd import SwitOKD
from collegium.networks import build
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run import train


def terms_of(method: SwitOKD, *arguments) -> dict[str, torch.Tensor]:
    """Of students and teacher together."""
    players = method(*arguments)
    assert list(players) == ["peers", "teacher"] and method.may_rest == {"teacher"}
    return {**players["peers"], **players["teacher"]}


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
    terms = terms_of(SwitOKD(spec_of(out), teacher=teacher, temperature=temperature), out, labels, at(0))
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
        sum(terms_of(SwitOKD(spec_of(out)), out, labels, at(0)).values()).backward()
        assert out.logits.grad[0].any()
        learns.append(bool(out.logits.grad[1].any()))
    assert learns == [True, True, False, False]


def test_a_teacher_that_is_behind_learns_however_far(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 2, 1, 6.0)
    terms = terms_of(SwitOKD(spec_of(out), teacher=0), out, labels, at(0))
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
        rests.append(terms_of(SwitOKD(spec_of(out)), out, labels, at(0))["ce_teacher"].item() == 0)
    assert rests == [False, True]


def test_in_learning_mode_two_peers_learn_as_in_dml(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 2, 1, 0.1)
    total = sum(terms_of(SwitOKD(spec_of(out)), out, labels, at(0)).values())
    mutual = sum(DML(spec_of(out))(out, labels, at(0))["peers"].values())
    torch.testing.assert_close(total, mutual)
    torch.testing.assert_close(
        torch.autograd.grad(total, out.logits), torch.autograd.grad(mutual, out.logits), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("error", "waits"), [(0.1, False), (6.0, True)])
def test_targets_are_constants(naive, array, at, random_outputs, spec_of, labels, error, waits):
    out = misled(random_outputs, 2, 0, error)
    sum(terms_of(SwitOKD(spec_of(out), teacher=0), out, labels, at(0)).values()).backward()
    (t, s), y = naive.softmax(array(out.logits)), np.eye(5)[array(labels)]
    expected = np.stack([(1 - waits) * (2 * t - y - s), 2 * s - y - t]) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-6)


def test_a_teacher_of_two_learns_from_the_student_that_keeps_up(at, random_outputs, spec_of, labels):
    out = misled(random_outputs, 3, 1, 6.0)
    z = out.logits.detach().clone()
    z[2] = z[1]  # as good as the teacher
    terms = terms_of(SwitOKD(spec_of(out)), dataclasses.replace(out, logits=z), labels, at(0))
    assert terms["ce_teacher"].item() > 0 and terms["kd_teacher"].item() == pytest.approx(0, abs=1e-6)
    z[2] = z[0]
    terms = terms_of(SwitOKD(spec_of(out)), dataclasses.replace(out, logits=z), labels, at(0))
    assert terms["ce_teacher"].item() == terms["kd_teacher"].item() == 0


def test_peers_that_are_never_wrong_cost_nothing(at, random_outputs, spec_of, labels):
    out = dataclasses.replace(random_outputs(2), logits=1000 * torch.eye(5)[labels].expand(2, -1, -1))
    assert sum(terms_of(SwitOKD(spec_of(out)), out, labels, at(0)).values()).item() == pytest.approx(0)


@pytest.mark.parametrize("teacher", [-1, 2])
def test_a_teacher_that_is_no_peer_is_refused(random_outputs, spec_of, teacher):
    with pytest.raises(UsageError, match=f"one of the peers 0 to 1, not {teacher}; set it with --method.teacher"):
        SwitOKD(spec_of(random_outputs(2)), teacher=teacher)


def test_a_temperature_of_zero_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="SwitOKD's temperature must be more than 0 and finite, not 0"):
        SwitOKD(spec_of(random_outputs(2)), temperature=0.0)


@pytest.mark.parametrize(("teacher", "student"), [(0, 1), (1, 0), (2, 0)])
def test_the_teacher_is_not_what_is_taken_home(random_outputs, spec_of, teacher, student):
    assert SwitOKD(spec_of(random_outputs(3)), teacher=teacher).deployed_peer == student


def test_a_waiting_teacher_stands_still_bit_for_bit_and_goes_on_where_it_was(tmp_path, monkeypatch):
    """Its weights and momentum; its students, and the running statistics of its norms, go on."""
    mode, step, states = iter([True, True, False, False, True]), Run.train_step, []
    monkeypatch.setattr(
        SwitOKD, "_learning", lambda self, students, *_: torch.full((len(students),), next(mode))
    )  # fmt: skip

    def watched(self, *arguments):
        step(self, *arguments)
        momentum = self.players.optimizers["teacher"].state_dict()["state"].values()
        states.append(
            {
                "teacher": [*self.learner.cohort.branches[1].parameters(), *(m["momentum_buffer"] for m in momentum)],
                "student": list(self.learner.cohort.branches[0].parameters()),
                "norms": [b for b in self.learner.cohort.branches[1].buffers() if b.is_floating_point()],
            }
        )
        states[-1] = {who: [x.detach().clone() for x in tensors] for who, tensors in states[-1].items()}

    monkeypatch.setattr(Run, "train_step", watched)
    data = {"name": "digits", "per_class": 6}
    recipe = dict(method="switokd", peers="resnet8,resnet14", data=data, batch_size=12, epochs=1, device="cpu")
    train(Recipe.from_dict(recipe), tmp_path / "run", quiet=True)
    moved = {
        who: [
            any(not torch.equal(x, y) for x, y in zip(a[who], b[who], strict=True))
            for a, b in zip(states, states[1:], strict=False)
        ]
        for who in states[0]
    }
    assert len(states) == 5
    assert moved == {"teacher": [True, False, False, True], "student": [True] * 4, "norms": [True] * 4}


def test_on_a_trunk_the_students_player_takes_the_trunk_and_the_teacher_s_terms_reach_it(at, labels):
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(2)], share_until="stage1")
    method = SwitOKD(describe(cohort, (3, 16, 16), 5))
    groups = method.players(cohort)
    students, teacher = (groups[player][0]["params"] for player in ("peers", "teacher"))
    trunk = list(cohort.trunk.parameters())
    assert {id(p) for p in trunk} < {id(p) for p in students}
    assert [id(p) for p in teacher] == [id(p) for p in cohort.branches[1].parameters()]
    terms = method(cohort(torch.randn(6, 3, 16, 16)), labels, at(0))
    assert terms["peers"]["ce_teacher"] is terms["teacher"]["ce_teacher"]
    assert any(g.any() for g in torch.autograd.grad(terms["peers"]["ce_teacher"], trunk, retain_graph=True))


def test_without_a_trunk_the_students_player_has_their_own_terms_alone(at, random_outputs, spec_of, labels):
    out = dataclasses.replace(random_outputs(2), trunk=None)
    terms = SwitOKD(spec_of(out))(out, labels, at(0))
    assert {player: set(named) for player, named in terms.items()} == {
        "peers": {"ce", "kd"},
        "teacher": {"ce_teacher", "kd_teacher"},
    }
