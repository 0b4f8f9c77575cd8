import shutil
from pathlib import Path

import pytest
import torch

import collegium
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


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DML with two peers, and the deployed one alone beside it."""
    folder = tmp_path_factory.mktemp("beside") / "run"
    collegium.train(
        method="dml",
        peers="2xresnet8",
        data={"name": "digits", "per_class": 10},
        epochs=5,  # after which some images are right by one network alone
        batch_size=10,
        run=folder,
        baseline=True,
        quiet=True,
    )
    return folder


def test_what_changed_beside_the_network_alone_is_counted_and_shown(beside: Path):
    found = gather(beside)
    assert found.baseline is not None and found.changes is not None
    # The network alone once more, loaded as its user would.
    alone = collegium.load_peer(beside.with_name("run-baseline"))
    (images, targets), *_ = found.data.scoring_batches(
        found.data.test, batch_size=len(found.targets), device=torch.device("cpu")
    ).epoch(0)
    with torch.inference_mode():
        before = alone(images).argmax(-1) == targets
    after = found.answers["peer0"] == targets
    expected = [[int((a & b).sum()) for b in (~after, after)] for a in (~before, before)]
    assert found.changes.counts.tolist() == expected
    assert 1 - (expected[1][0] + expected[1][1]) / 450 == pytest.approx(found.baseline.top1_error)
    (_, gained), (lost, _) = expected
    assert gained and lost, "the test needs images of both kinds"
    for examples, count, right in ((found.changes.gained, gained, "peer0"), (found.changes.lost, lost, "alone")):
        assert len(examples) == min(8, count) and len({e.index for e in examples}) == len(examples)
        for example in examples:
            assert {name for name, answer in example.answers.items() if answer.label == example.target} == {right}
            assert example.target == int(targets[example.index]) and not example.maps
            assert torch.equal(example.image, found.data.test.images[example.index])


def test_a_network_alone_that_is_damaged_is_a_warning(beside: Path, tmp_path: Path):
    shutil.copytree(beside, tmp_path / "run")
    alone = Path(shutil.copytree(beside.with_name("run-baseline"), tmp_path / "run-baseline"))
    shutil.rmtree(alone / "checkpoints")
    with pytest.warns(
        UserWarning, match="which test images changed beside the network alone is not shown: .*checkpoint"
    ):
        found = gather(tmp_path / "run")
    assert found.baseline is not None and found.changes is None


def test_a_run_without_a_baseline_has_no_changes(analysis: RunAnalysis):
    assert analysis.baseline is None and analysis.changes is None
