import numpy as np
import pytest
import torch

from collegium.training.metrics import METRICS, Scores, cohen_kappa, score, summary


def naive(logits: np.ndarray, target: np.ndarray, k: int = 5) -> dict[str, float]:
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    n = len(target)
    order = (-logits).argsort(1)
    confidence, right = p.max(1), p.argmax(1) == target
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.sum() / n * abs(right[inside].mean() - confidence[inside].mean())
    answer, classes = p.argmax(1), range(p.shape[1])
    expected = sum((target == c).mean() * (answer == c).mean() for c in classes)
    return {
        "average_accuracy": np.mean([right[target == c].mean() for c in classes if (target == c).any()]),
        "kappa": (right.mean() - expected) / (1 - expected),
        "top1_error": 1 - right.mean(),
        "top5_error": 1 - (order[:, :k] == target[:, None]).any(1).mean(),
        "nll": -np.log(p[np.arange(n), target]).mean(),
        "ece": ece,
    }


def test_scores_agree_with_numpy_over_uneven_batches() -> None:
    generator = np.random.default_rng(0)
    logits, target = 2 * generator.normal(size=(103, 10)), generator.integers(10, size=103)
    scores = Scores(10, torch.device("cpu"))
    for part in (slice(0, 64), slice(64, 103)):
        scores.update(torch.tensor(logits[part]), torch.tensor(target[part]))
    found, expected = scores.compute(), naive(logits, target)
    assert tuple(found) == METRICS
    for metric in METRICS:
        assert found[metric] == pytest.approx(expected[metric], abs=2e-6), metric


def test_certain_answers_are_in_the_same_bin_as_nearly_certain_ones() -> None:
    # Confidences 1 (wrong) and 0.95 (right): 15 bins hold both, so that one makes up for the other.
    logits = torch.tensor([[200.0, 0.0], [np.log(0.95 / 0.05), 0.0]])
    scores = Scores(2, torch.device("cpu"))
    scores.update(logits, torch.tensor([1, 0]))
    assert scores.compute()["ece"] == pytest.approx(abs(0.5 - 0.975), abs=1e-6)


def test_with_three_classes_the_top_5_are_the_top_2() -> None:
    generator = np.random.default_rng(1)
    logits, target = generator.normal(size=(40, 3)), generator.integers(3, size=40)
    scores = Scores(3, torch.device("cpu"))
    scores.update(torch.tensor(logits), torch.tensor(target))
    assert scores.compute()["top5_error"] == pytest.approx(naive(logits, target, k=2)["top5_error"], abs=1e-6)


def test_the_mean_peer_is_the_mean_of_the_peers_scores_and_of_nothing_else() -> None:
    target = torch.tensor([0, 1, 0, 1])
    right, half = torch.eye(2)[target] * 9, torch.eye(2)[torch.tensor([0, 1, 1, 0])] * 9
    scores = score(
        lambda images: {"peer0": right, "peer1": half, "ensemble": right, "fused": right},
        [(torch.zeros(4, 1), target)],
        2,
    )
    found = summary(scores)
    assert found["peer0"]["top1_error"] == 0
    assert found["peer1"]["top1_error"] == 0.5
    assert found["mean_peer"]["top1_error"] == 0.25


def test_a_class_s_accuracy_is_its_share_of_right_answers_and_none_without_images() -> None:
    scores = Scores(4, torch.device("cpu"))
    scores.update(9 * torch.eye(4)[torch.tensor([0, 1, 1, 3])], torch.tensor([0, 0, 1, 1]))
    scores.update(9 * torch.eye(4)[torch.tensor([2])], torch.tensor([0]))
    assert scores.class_accuracy() == [pytest.approx(1 / 3), 0.5, None, None]
    assert scores.compute()["average_accuracy"] == pytest.approx(5 / 12)


def test_kappa_by_hand() -> None:
    # 100 pixels, answers right for 70; the frequencies alone would give 0.6 * 0.5 + 0.4 * 0.5 = 0.5
    assert cohen_kappa(torch.tensor([[40, 20], [10, 30]])) == pytest.approx(0.4)
    assert cohen_kappa(torch.tensor([[5, 0], [0, 0]])) == 1
