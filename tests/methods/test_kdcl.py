import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from collegium.errors import UsageError
from collegium.methods.kdcl import KDCL, _best_mixture, _least_error

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])
TARGETS = pytest.mark.parametrize("target", ["naive", "linear", "minlogit", "general"])
SOFT = torch.tensor([[0.6, 0.3, 0.1, 0, 0], [0, 1, 0, 0, 0], [0.2] * 5]).repeat(2, 1)


def one_hot(target: np.ndarray) -> np.ndarray:
    return np.eye(5)[target] if target.ndim == 1 else target


def best_weights(naive: SimpleNamespace, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By a general-purpose optimizer."""
    found = minimize(
        lambda w: naive.cross_entropy(np.tensordot(w, z, 1), y),
        np.full(len(z), 1 / len(z)),
        bounds=[(0, 1)] * len(z),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    return found.x


def soft_target(naive: SimpleNamespace, z: np.ndarray, y: np.ndarray, target: str) -> np.ndarray:
    """Image by image; "general" knows nothing yet and weighs all alike."""
    if target == "linear":
        return np.tensordot(best_weights(naive, z, y), z, 1)
    if target == "general":
        return z.mean(0)
    rows, labels = [], one_hot(y)
    for b in range(z.shape[1]):
        if target == "naive":
            losses = [naive.cross_entropy(one[b : b + 1], labels[b : b + 1]) for one in z]
            rows.append(z[int(np.argmin(losses)), b])
        else:
            shifted = [one[b] - labels[b] @ one[b] for one in z]
            rows.append([min(one[c] for one in shifted) for c in range(z.shape[2])])
    return np.array(rows)


@PEERS
@TARGETS
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("temperature", "weight"), [(3.0, 1.0), (2.0, 0.5)])
def test_every_peer_imitates_the_one_target(
    naive, array, at, random_outputs, spec_of, labels, peers, target, soft, temperature, weight
):
    out, y = random_outputs(peers), SOFT if soft else labels
    method = KDCL(spec_of(out), target=target, temperature=temperature, weight=weight)
    terms = method(out, y, at(0))["peers"]
    z = array(out.logits)
    taught = soft_target(naive, z, array(y), target)
    assert list(terms) == ["ce", "kd"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, array(y)) for one in z), rel=1e-5)
    kd = weight * sum(naive.kd(one, taught, temperature) for one in z)
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-2 if target == "linear" else 1e-4)


@TARGETS
def test_the_target_stands_still(naive, array, at, random_outputs, spec_of, labels, target):
    out = random_outputs(3)
    KDCL(spec_of(out), target=target)(out, labels, at(0))["peers"]["kd"].backward()
    z = array(out.logits)
    p = naive.softmax(soft_target(naive, z, array(labels), target) / 3)
    expected = 3 * (naive.softmax(z / 3) - p) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-3 if target == "linear" else 1e-6)


def test_the_defaults_are_minlogit_and_a_view_for_each_peer(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    method = KDCL(spec_of(out))
    assert method.own_views and not KDCL(spec_of(out), own_views=False).own_views
    stated = KDCL(spec_of(out), target="minlogit", temperature=3.0, weight=1.0)
    assert method(out, labels, at(0)) == stated(out, labels, at(0))


@TARGETS
def test_equal_peers_cost_nothing(at, random_outputs, spec_of, labels, target):
    out = random_outputs(3)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1))
    assert abs(KDCL(spec_of(out), target=target)(equal, labels, at(0))["peers"]["kd"].item()) < 1e-5


@TARGETS
def test_the_most_certain_predictions_cost_a_finite_amount(at, random_outputs, spec_of, labels, target):
    out = random_outputs(3)
    eye = torch.eye(5)
    certain = torch.stack([200 * eye[labels], 300 * eye[(labels + 1) % 5], 0 * eye[labels]]).requires_grad_()
    terms = KDCL(spec_of(out), target=target)(dataclasses.replace(out, logits=certain), labels, at(0))["peers"]
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values()) and certain.grad.isfinite().all()


def test_minlogit_is_no_more_certain_of_the_wrong_classes_than_any_peer(array, random_outputs, spec_of, labels):
    out = random_outputs(3)
    y = torch.eye(5)[labels]
    taught = KDCL(spec_of(out))._soft_target(out.logits.detach(), y).softmax(-1)
    wrong = y == 0
    right = (taught * y).sum(-1)
    assert (right >= (out.logits.softmax(-1) * y).sum(-1)).all()
    odds, theirs = taught / right[:, None], out.logits.softmax(-1) / (out.logits.softmax(-1) * y).sum(-1)[..., None]
    assert (odds[wrong] <= theirs[:, wrong] + 1e-6).all()


@PEERS
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_mixture_has_nearly_the_least_cross_entropy(naive, array, random_outputs, spec_of, labels, peers, scale):
    out = random_outputs(peers)
    z = scale * out.logits.detach()
    y = torch.eye(5)[labels]
    mixture = KDCL(spec_of(out), target="linear")._soft_target(z, y)
    found = naive.cross_entropy(array(mixture), array(labels))
    least = naive.cross_entropy(np.tensordot(best_weights(naive, array(z), array(labels)), array(z), 1), array(labels))
    assert found <= least + 5e-3 * max(least, 1)


def test_a_peer_that_is_right_is_the_whole_mixture(random_outputs, spec_of, labels):
    out = random_outputs(3)
    y = torch.eye(5)[labels]
    z = torch.stack([8 * y, -8 * y, torch.zeros_like(y)])
    mixture = KDCL(spec_of(out), target="linear")._soft_target(z, y)
    torch.testing.assert_close(mixture, z[0], rtol=0, atol=0.1)


@PEERS
def test_general_weighs_by_the_inverse_covariance_of_the_errors_before(
    naive, array, at, random_outputs, spec_of, labels, peers
):
    out = random_outputs(peers)
    method = KDCL(spec_of(out), target="general", memory=0.9)
    z, y = array(out.logits), one_hot(array(labels))
    covariance = np.eye(peers)
    for _ in range(40):
        errors = naive.softmax(z) - y
        regular = covariance + 1e-3 * np.trace(covariance) / peers * np.eye(peers)
        weights = np.maximum(np.linalg.solve(regular, np.ones(peers)), 0)
        taught = np.tensordot(weights / weights.sum(), z, 1)
        kd = sum(naive.kd(one, taught, 3) for one in z)
        assert method(out, labels, at(0))["peers"]["kd"].item() == pytest.approx(kd, rel=1e-3)
        batch = np.array([[(a * b).sum(-1).mean() for b in errors] for a in errors])
        covariance = 0.9 * covariance + 0.1 * batch
    torch.testing.assert_close(array(method.covariance), covariance, rtol=1e-4, atol=1e-6)
    assert weights.std() > 0.01


def test_general_learns_its_weights_in_training_alone_and_keeps_them_with_the_state(
    at, random_outputs, spec_of, labels
):
    out = random_outputs(2)
    method = KDCL(spec_of(out), target="general").eval()
    method(out, labels, at(0))
    assert method.covariance.equal(torch.eye(2))
    method.train()(out, labels, at(0))
    assert not method.covariance.equal(torch.eye(2))
    assert list(method.state_dict()) == ["covariance"] and not list(method.parameters())
    assert KDCL(spec_of(out)).state_dict() == {}


def test_of_peers_that_err_alike_the_better_one_is_the_target(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    y = torch.eye(5)[labels]
    z = torch.stack([1.0 * y, 2 * y])  # perfectly correlated: unbounded weights would be 1 - w and w with w above 1
    method = KDCL(spec_of(out), target="general", memory=0.0)
    for _ in range(2):
        terms = method(dataclasses.replace(out, logits=z), labels, at(0))["peers"]
    assert method._soft_target(z, y).equal(z[1])
    assert terms["kd"].isfinite()


def test_what_had_to_be_reconstructed_is_said(random_outputs, spec_of):
    spec = spec_of(random_outputs(2))
    assert "covariance" in KDCL(spec, target="general").reconstructed
    assert "covariance" not in KDCL(spec).reconstructed


def test_a_memory_that_is_no_share_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="KDCL's memory must be a share from 0 to 1, not 1.5"):
        KDCL(spec_of(random_outputs(2)), memory=1.5)


def test_errors_of_any_size_are_regularised_by_a_thousandth_of_their_own():
    covariance = 1e-4 * torch.tensor([[1.0, 0.5], [0.5, 4.0]], dtype=torch.float64)
    regular = covariance + 1e-3 * 2.5e-4 * torch.eye(2, dtype=torch.float64)
    inverse = regular.inverse().sum(1)
    torch.testing.assert_close(_least_error(covariance), inverse / inverse.sum(), rtol=1e-6, atol=0)


def test_the_mixture_is_the_best_one_for_the_images_of_all_processes(monkeypatch, random_outputs, spec_of, labels):
    out = random_outputs(2)
    z, y = out.logits.detach(), torch.eye(5)[labels]
    alone = KDCL(spec_of(out), target="linear")._soft_target(z, y)
    # Another process has the same logits and other labels, so the whole batch has another mixture.
    other = {3: z, 2: y.roll(1, 1)}
    monkeypatch.setattr("collegium.methods.kdcl.gather_batch", lambda x, dim=0: torch.cat([x, other[x.ndim]], dim))
    expected = torch.tensordot(_best_mixture(torch.cat([z, z], 1), torch.cat([y, y.roll(1, 1)])), z, 1)
    found = KDCL(spec_of(out), target="linear")._soft_target(z, y)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, alone)


def test_only_the_mixture_gathers_the_batch(random_outputs, spec_of):
    spec = spec_of(random_outputs(2))
    gathers = {target: KDCL(spec, target=target).gathers_batch for target in ("minlogit", "naive", "linear", "general")}
    assert gathers == {"minlogit": False, "naive": False, "linear": True, "general": False}
