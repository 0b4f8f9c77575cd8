"""A trained run is restored for prediction."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import run

from collegium.errors import UsageError
from collegium.training.run import restore
from collegium.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(folder)
    return folder


def test_a_trained_run_can_be_restored_and_scores_the_same(trained: Path) -> None:
    result = RunFolder(trained).result()
    assert result is not None
    again = restore(trained)
    scores = again.evaluate(again.scored["test"])
    assert scores.pop("mean_peer") == result["mean_peer"]["last"]
    assert scores == {name: values["last"] for name, values in result["predictors"].items()}


def test_what_is_no_run_cannot_be_restored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run"):
        restore(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("asked", [{"precision": "fp16"}, {"precision": "bf16", "compile": True, "cuda_graphs": True}])
def test_a_run_of_a_gpu_is_restored_where_there_is_none(trained: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    folder = shutil.copytree(trained, tmp_path / "from_a_gpu")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"device": "cuda"} | asked
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    again = restore(folder)
    assert again.fabric.device.type == "cpu" and again.epoch == again.recipe.epochs
    assert set(again.evaluate(again.scored["test"])) >= {"peer0", "peer1", "ensemble"}
