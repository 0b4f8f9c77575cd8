import shutil
from pathlib import Path

import pytest
import torch

from collegium.errors import TrainingError, UsageError
from collegium.results.analysis import Evidence, gather
from collegium.results.diversity import reliability
from collegium.training.metrics import METRICS


def test_predictions_from_the_checkpoint_score_as_the_run_did(evidence: Evidence):
    """The run scored sums, batch by batch, on its device; here the answers to all images are counted again."""
    assert list(evidence.logits) == ["peer0", "peer1", "ensemble", "fused"] == list(evidence.result["predictors"])
    for name, scores in evidence.result["predictors"].items():
        assert evidence.errors[name] == pytest.approx(scores["last"]["top1_error"], abs=1e-6)
        assert reliability(evidence.logits[name], evidence.targets).ece == pytest.approx(
            scores["last"]["ece"], abs=1e-5
        )


def test_bf16_predictions_score_as_the_run_did(lone_run: Path):
    lone = gather(lone_run)
    assert lone.errors["peer0"] == pytest.approx(lone.result["predictors"]["peer0"]["last"]["top1_error"], abs=1e-6)
    assert lone.pairs == [] and lone.own == () and lone.joint == "ensemble"


def test_the_ensemble_is_the_mean_of_the_peers(evidence: Evidence):
    mean = torch.stack([evidence.logits[name] for name in evidence.peers]).mean(0)
    torch.testing.assert_close(evidence.logits["ensemble"], mean)


def test_history_has_every_epoch_and_metric(evidence: Evidence):
    assert [row["epoch"] for row in evidence.history] == [1, 2]
    for name in evidence.predictors:
        assert all(f"test/{name}/{metric}" in evidence.history[-1] for metric in METRICS)


def test_pairs_agree_with_the_answers(evidence: Evidence):
    (pair,) = evidence.pairs
    first, second = evidence.answers["peer0"], evidence.answers["peer1"]
    same = sum(int(a == b) for a, b in zip(first, second, strict=True)) / len(first)
    assert (pair.first, pair.second) == ("peer0", "peer1")
    assert pair.agreement == pytest.approx(same) and pair.disagreement == pytest.approx(1 - same)
    either = (first == evidence.targets) | (second == evidence.targets)
    assert evidence.any_peer_right == pytest.approx(float(either.double().mean()))
    assert pair.double_fault == pytest.approx(1 - evidence.any_peer_right)


def test_examples_hold_what_the_predictors_said(evidence: Evidence):
    assert 3 <= len(evidence.examples) <= 9
    for example in evidence.examples:
        assert example.target == evidence.targets[example.index]
        torch.testing.assert_close(example.image, evidence.data.test.images[example.index])
        for name, answer in example.answers.items():
            p = evidence.logits[name][example.index].softmax(-1)
            assert answer.label == p.argmax() and answer.confidence == pytest.approx(float(p.max()))
        assert list(example.maps) == ["peer0", "peer1", "fused"]
        for attention in example.maps.values():
            assert attention.shape == (4, 4) and 0 <= attention.min() and attention.max() <= 1


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "run"))


def test_an_incomplete_run_is_refused_and_says_how_far_it_is(run: Path, tmp_path: Path):
    half = copied(run, tmp_path)
    (half / "result.json").unlink()
    (half / "metrics.csv").write_text("\n".join((half / "metrics.csv").read_text().splitlines()[:2]) + "\n")
    with pytest.raises(UsageError, match="is not complete: 1 of 2 epochs are done; repeat the training command"):
        gather(half)
    (half / "metrics.csv").unlink()
    with pytest.raises(UsageError, match="0 of 2 epochs"):
        gather(half)


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="is not a run"):
        gather(tmp_path)


def test_a_run_without_checkpoints_is_refused(run: Path, tmp_path: Path):
    bare = copied(run, tmp_path)
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(UsageError, match="it has no checkpoint"):
        gather(bare)


def test_a_checkpoint_of_other_networks_is_refused(run: Path, tmp_path: Path):
    other = copied(run, tmp_path)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace("2xresnet8", "2xresnet14"))
    with pytest.raises(TrainingError, match="do not fit the recipe"):
        gather(other)
