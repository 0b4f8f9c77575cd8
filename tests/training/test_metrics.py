import numpy as np
import pytest
import torch

from collegium.training.metrics import METRICS, Scores, evaluate


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
    return {
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


def test_with_three_classes_the_top_5_are_the_top_2() -> None:
    generator = np.random.default_rng(1)
    logits, target = generator.normal(size=(40, 3)), generator.integers(3, size=40)
    scores = Scores(3, torch.device("cpu"))
    scores.update(torch.tensor(logits), torch.tensor(target))
    assert scores.compute()["top5_error"] == pytest.approx(naive(logits, target, k=2)["top5_error"], abs=1e-6)


def test_the_mean_peer_is_the_mean_of_the_peers_scores_and_of_nothing_else() -> None:
    target = torch.tensor([0, 1, 0, 1])
    right, half = torch.eye(2)[target] * 9, torch.eye(2)[torch.tensor([0, 1, 1, 0])] * 9
    found = evaluate(
        lambda images: {"peer0": right, "peer1": half, "ensemble": right, "fused": right},
        [(torch.zeros(4, 1), target)],
        2,
    )
    assert found["peer0"]["top1_error"] == 0
    assert found["peer1"]["top1_error"] == 0.5
    assert found["mean_peer"]["top1_error"] == 0.25
