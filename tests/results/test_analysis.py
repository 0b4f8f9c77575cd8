import shutil
from pathlib import Path

import pytest
import torch

from collegium.errors import TrainingError, UsageError
from collegium.results.analysis import RunAnalysis, gather
from collegium.results.diversity import reliability
from collegium.training.metrics import METRICS


def test_predictions_from_the_checkpoint_score_as_the_run_did(analysis: RunAnalysis):
    """The run scored sums, batch by batch, on its device; here the answers to all images are counted again."""
    assert list(analysis.logits) == ["peer0", "peer1", "ensemble", "fused"] == list(analysis.result["predictors"])
    for name, scores in analysis.result["predictors"].items():
        assert analysis.accuracy[name] == pytest.approx(1 - scores["last"]["top1_error"], abs=1e-6)
        assert reliability(analysis.logits[name], analysis.targets).ece == pytest.approx(
            scores["last"]["ece"], abs=1e-5
        )


def test_bf16_predictions_score_as_the_run_did(lone_run: Path):
    lone = gather(lone_run)
    assert lone.accuracy["peer0"] == pytest.approx(
        1 - lone.result["predictors"]["peer0"]["last"]["top1_error"], abs=1e-6
    )
    assert lone.pairs == [] and lone.own == () and lone.joint == "ensemble"


def test_the_ensemble_is_the_mean_of_the_peers(analysis: RunAnalysis):
    mean = torch.stack([analysis.logits[name] for name in analysis.peers]).mean(0)
    torch.testing.assert_close(analysis.logits["ensemble"], mean)


def test_history_has_every_epoch_and_metric(analysis: RunAnalysis):
    assert [row["epoch"] for row in analysis.history] == [1, 2]
    for name in analysis.predictors:
        assert all(f"test/{name}/{metric}" in analysis.history[-1] for metric in METRICS)


def test_pairs_agree_with_the_answers(analysis: RunAnalysis):
    (pair,) = analysis.pairs
    first, second = analysis.answers["peer0"], analysis.answers["peer1"]
    same = sum(int(a == b) for a, b in zip(first, second, strict=True)) / len(first)
    assert (pair.first, pair.second) == ("peer0", "peer1")
    assert pair.agreement == pytest.approx(same) and pair.disagreement == pytest.approx(1 - same)
    either = (first == analysis.targets) | (second == analysis.targets)
    assert analysis.any_peer_right == pytest.approx(float(either.double().mean()))
    assert pair.double_fault == pytest.approx(1 - analysis.any_peer_right)


def test_examples_hold_what_the_predictors_said(analysis: RunAnalysis):
    assert 3 <= len(analysis.examples) <= 9
    for example in analysis.examples:
        assert example.target == analysis.targets[example.index]
        torch.testing.assert_close(example.image, analysis.data.test.images[example.index])
        for name, answer in example.answers.items():
            p = analysis.logits[name][example.index].softmax(-1)
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
