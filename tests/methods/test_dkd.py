import dataclasses

import numpy as np
import pytest
import torch

from collegium.errors import UsageError
from collegium.methods.dkd import DKD
from collegium.methods.kd import KD


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def parts(naive, z: np.ndarray, teacher: np.ndarray, y: np.ndarray, temperature: float) -> tuple[float, float]:
    """TCKD and NCKD, mean over the batch."""
    p, q, target, others = naive.softmax(teacher / temperature), naive.softmax(z / temperature), 0.0, 0.0
    for b, c in enumerate(y):
        target += kl(np.array([p[b, c], 1 - p[b, c]]), np.array([q[b, c], 1 - q[b, c]]))
        rest_p, rest_q = np.delete(p[b], c), np.delete(q[b], c)
        others += kl(rest_p / rest_p.sum(), rest_q / rest_q.sum())
    return temperature**2 * target / len(y), temperature**2 * others / len(y)


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize(
    ("options", "temperature", "alpha", "beta"),
    [({}, 4, 1, 8), ({"temperature": 2.0, "alpha": 0.3, "beta": 0.7, "standardise": True}, 2, 0.3, 0.7)],
)
@pytest.mark.parametrize(("epoch", "w"), [(0, 0.04), (9, 0.4), (24, 1), (200, 1)])
def test_all_terms_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, options, temperature, alpha, beta, epoch, w
):
    out = random_outputs(peers, teacher=True)
    terms = DKD(spec_of(out), **options)(out, labels, at(epoch))["peers"]
    z, teacher, y = array(out.logits), array(out.teacher.logits), array(labels)
    assert list(terms) == ["ce", "tckd", "nckd"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, y) for one in z), rel=1e-5)
    if options.get("standardise"):
        z, teacher = ((x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True) for x in (z, teacher))
    target, others = np.sum([parts(naive, one, teacher, y, temperature) for one in z], 0)
    assert terms["tckd"].item() == pytest.approx(w * alpha * target, rel=1e-4)
    assert terms["nckd"].item() == pytest.approx(w * beta * others, rel=1e-4)


def test_weighted_image_by_image_both_terms_are_kd(naive, array, at, random_outputs, spec_of):
    """KL(p_t || p) = KL(b_t || b) + (1 - p_t(y)) KL(of the others), with one image."""
    out = random_outputs(1, batch=1, teacher=True)
    y = torch.tensor([2])
    confidence = naive.softmax(array(out.teacher.logits) / 4)[0, 2]
    terms = DKD(spec_of(out), beta=1 - confidence, warmup=0.0)(out, y, at(0))["peers"]
    kd = KD(spec_of(out), alpha=1.0)(out, y, at(0))["peers"]["kd"]
    torch.testing.assert_close(terms["tckd"] + terms["nckd"], kd)
    torch.testing.assert_close(
        torch.autograd.grad(terms["tckd"] + terms["nckd"], out.logits), torch.autograd.grad(kd, out.logits)
    )


def test_the_ranking_of_the_others_does_not_move_the_true_class(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(2, teacher=True)
    terms = DKD(spec_of(out), warmup=0.0)(out, labels, at(0))["peers"]
    (gradient,) = torch.autograd.grad(terms["nckd"], out.logits)
    assert not gradient[:, range(6), labels].any()
    z, teacher = array(out.logits) / 4, array(out.teacher.logits) / 4
    for x in (z, teacher):
        x[..., range(6), labels] = -np.inf
    np.testing.assert_allclose(
        array(gradient), 8 * 4 * (naive.softmax(z) - naive.softmax(teacher)) / 6, rtol=1e-4, atol=1e-6
    )


def test_the_most_certain_predictions_cost_a_finite_amount(at, random_outputs, spec_of, labels):
    out = random_outputs(1, teacher=True)
    z = (torch.eye(5)[labels] * 400)[None].requires_grad_()
    terms = DKD(spec_of(out))(dataclasses.replace(out, logits=z), labels, at(0))["peers"]
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values()) and z.grad.isfinite().all()


def test_a_peer_that_equals_the_teacher_learns_nothing_from_it(at, random_outputs, spec_of, labels):
    out = random_outputs(2, teacher=True)
    equal = dataclasses.replace(out, logits=out.teacher.logits.expand(2, -1, -1))
    terms = DKD(spec_of(out))(equal, labels, at(0))["peers"]
    assert terms["tckd"].item() == terms["nckd"].item() == 0


def test_the_likeliest_class_of_a_mixed_label_is_the_true_one(at, random_outputs, spec_of, labels):
    out = random_outputs(2, teacher=True)
    hard, soft = (DKD(spec_of(out))(out, y, at(0))["peers"] for y in (labels, 0.7 * torch.eye(5)[labels] + 0.06))
    assert torch.equal(hard["tckd"], soft["tckd"]) and torch.equal(hard["nckd"], soft["nckd"])


def test_a_missing_teacher_and_impossible_settings_are_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="DKD needs a trained teacher"):
        DKD(spec_of(random_outputs(2)))
    spec = spec_of(random_outputs(1, teacher=True))
    with pytest.raises(UsageError, match="DKD's temperature must be more than 0 and finite, not 0"):
        DKD(spec, temperature=0.0)
    with pytest.raises(UsageError, match="DKD's warmup must be a share from 0 to 1, not 2"):
        DKD(spec, warmup=2.0)
