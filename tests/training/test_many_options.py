"""The options of the optimizer, of averages and of early stopping together, in several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, run, weights
from many import GENTLE, on_ranks, stopped_and_repeated

from collegium.training.run_folder import RunFolder

TOGETHER: dict[str, Any] = dict(
    share_until=None,
    optimizer="momentum",
    optimizer_options={"dampening": 0.1},
    ema=0.8,
    layer_decay=0.8,
    decay_norms_and_biases=False,
    peer_learning_rates=[0.001, 0.0005],
    patience=1,
    data={"name": "digits", "per_class": 8, "validation": 0.1},
)


def test_peers_of_their_own_processes_go_on_exactly_and_end_like_those_of_one_process(tmp_path: Path) -> None:
    changes = TOGETHER | {"method": {"name": "codistillation"}}
    messages = on_ranks(2, stopped_and_repeated, tmp_path / "whole", tmp_path / "stopped", "peers", changes)
    assert all("stopped after epoch 1, step 4" in message for message in messages), messages
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    run(tmp_path / "alone", **GENTLE, **changes, sync_batchnorm=True)
    found, expected = weights(tmp_path / "whole"), weights(tmp_path / "alone")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.startswith(("cohort.", "average.")):
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    result, one = (RunFolder(tmp_path / name).result() for name in ("whole", "alone"))
    assert result is not None and one is not None and result["stopped"] == one["stopped"]
    assert result["predictors"].keys() == one["predictors"].keys() >= {"peer1_ema", "ensemble_ema"}
    for name, scores in one["predictors"].items():
        assert result["predictors"][name]["last"]["nll"] == pytest.approx(scores["last"]["nll"], rel=1e-2), name


def test_shared_batches_of_several_players_go_on_exactly(tmp_path: Path) -> None:
    further = {"method": {"name": "afd"}, "micro_batches": 2, "mixup": 0.4, "freeze": "peer0.stem*"}
    changes = TOGETHER | further | {"optimizer": "lamb", "optimizer_options": {"betas": [0.8, 0.99]}}
    messages = on_ranks(2, stopped_and_repeated, tmp_path / "whole", tmp_path / "stopped", "data", changes)
    assert all("stopped after epoch 1, step 4" in message for message in messages), messages
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
