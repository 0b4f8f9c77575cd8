"""A tree of peers through all that reads a cohort: copies, costs, checkpoints, the report, the peers on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, killed, run, tiny

from collegium.pages.run_page import write_report
from collegium.student import load_peer
from collegium.training.cost import costs
from collegium.training.experiment import build
from collegium.training.run import restore

TREE: dict[str, Any] = dict(peers="4xresnet8", share_until="stage1,stage2", method="cl_ilr", epochs=2)


def test_a_tree_trains_goes_on_where_it_was_killed_and_saves_whole_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(tmp_path / "whole", **TREE)
    assert result["share_until"] == "stage1,stage2"
    killed(tmp_path / "run", (1, 2), monkeypatch, **TREE)
    run(tmp_path / "run", **TREE)
    assert_same_run(tmp_path / "whole", tmp_path / "run")

    trained = restore(tmp_path / "run")
    images, _ = next(trained.scored["test"].epoch(0))
    logits = trained.predict(images)
    for k in range(4):
        peer = load_peer(tmp_path / "run" / "peers" / f"peer{k}")
        with torch.inference_mode():
            torch.testing.assert_close(peer(images), logits[f"peer{k}"])
    page = write_report(tmp_path / "run").read_text()
    assert "peers share all up to stage1, halves up to stage2" in page


def test_a_part_costs_once_however_many_share_it() -> None:
    def found(**changes: Any) -> dict[str, dict[str, int]]:
        experiment = build(tiny(**TREE | changes))
        return costs(experiment.learner, experiment.data.image_shape)

    tree, low, high = found(), found(share_until="stage1"), found(share_until="stage2")
    assert tree["peer0"] == low["peer0"] == high["peer0"]
    for key in ("parameters", "flops"):
        # Four, two and one second stages in turn.
        both = low["ensemble"][key] - tree["ensemble"][key]
        assert both == 2 * (tree["ensemble"][key] - high["ensemble"][key]) > 0


def test_copies_of_a_tree_follow_it_and_every_peer_sees_its_own_view(tmp_path: Path) -> None:
    run(tmp_path / "run", **TREE | {"method": "pcl", "epochs": 1})
    learner = restore(tmp_path / "run").learner
    assert learner.method.own_views and learner.shadow is not None
    following = dict(learner.shadow.named_parameters())
    assert {name.partition(".")[0] for name in following} == {"trunk", "limbs", "branches"}
    for name, parameter in learner.cohort.named_parameters():
        assert parameter.shape == following[name].shape and not torch.equal(parameter, following[name])
