"""What cannot be trained is refused with the reason, before anything is written."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import run, tiny

from collegium.data import from_scene
from collegium.errors import UsageError
from collegium.method import trainable
from collegium.methods.ffl import FFL
from collegium.training.checks import check_peer_layout, check_run
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.loop import Run
from collegium.training.run_folder import RunFolder


def test_a_method_whose_parameters_nobody_trains_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FFL, "players", lambda self, cohort: {"peers": [{"params": trainable(cohort)}]})
    with pytest.raises(AssertionError, match="no player of FFL owns .*fusion"):
        Run(build(tiny()), RunFolder(tmp_path), make_fabric(tiny()), quiet=True)


def test_fp16_is_refused_for_several_players(tmp_path: Path) -> None:
    experiment = build(tiny(method="afd", share_until=None))
    half = dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, precision="fp16"))
    with pytest.raises(UsageError, match="several players.*bf16"):
        Run(half, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)


def test_one_image_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batches of 2 images or more"):
        run(tmp_path / "run", batch_size=1)
    assert list(tmp_path.iterdir()) == []


def test_cutmix_is_refused_where_a_label_is_the_centre_pixel_s(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).normal(size=(20, 20, 4))
    scene = from_scene(cube, np.arange(400).reshape(20, 20) % 3, patch=3, split="random", per_class=10)
    experiment = build(tiny(data={"name": "python:scene"}, cutmix=1.0), data=scene)
    with pytest.raises(UsageError, match="centre pixel, which CutMix may paste over; use mixup"):
        Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)


def test_nothing_is_written_where_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a compiled step chooses itself which activations it keeps"):
        run(tmp_path / "run", activation_checkpointing=True, compile=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({"activation_checkpointing": True, "compile": True}, 1, "leave out --compile or --activation-checkpointing"),
        ({"sync_batchnorm": True, "compile": True}, 2, "leave out --compile or --sync-batchnorm"),
        (
            {"activation_checkpointing": True, "sync_batchnorm": True},
            2,
            "leave out --activation-checkpointing or --sync-batchnorm",
        ),
        ({"batch_size": 4}, 4, "2 images or more on each device; .* --sync-batchnorm true"),
        ({"batch_size": 1, "sync_batchnorm": True}, 1, "2 images or more$"),
        ({}, 3, "3 processes cannot share batches of 20 images equally"),
        (
            {"data": {"name": "digits", "per_class": 8, "validation": 0.005}, "batch_size": 40},
            20,
            "images cannot be scored by 20 processes",
        ),
    ],
)
def test_what_processes_cannot_train_is_refused(changes: dict[str, Any], processes: int, message: str) -> None:
    experiment = build(tiny(**changes))
    with pytest.raises(UsageError, match=message):
        check_run(experiment, processes, "data")


@pytest.mark.parametrize("changes", [{"compile": True}, {"activation_checkpointing": True}])
def test_a_single_process_has_no_norms_to_synchronise(changes: dict[str, Any]) -> None:
    check_run(build(tiny(sync_batchnorm=True, **changes)), 1, "data")


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        (
            {},
            2,
            "ffl reads more of its peers than their logits, .*of the methods cl_ilr, codistillation, competitive, ",
        ),
        (
            {"method": {"name": "dml"}, "optimizer": "lamb"},
            2,
            "the optimizer lamb clips by the norm of all peers' gradients, which --layout peers trains in different",
        ),
        (
            {"method": {"name": "dml"}},
            2,
            "peers that share stages cannot be .*; leave out --share-until",
        ),
        ({"method": {"name": "dml"}, "share_until": None}, 1, "needs several processes; give --devices too"),
        ({"method": {"name": "dml"}, "share_until": None}, 3, "2 peers cannot be divided evenly among 3 processes"),
        ({"method": {"name": "independent"}, "share_until": None, "peers": "resnet8"}, 2, "1 peer cannot be divided"),
        ({"method": {"name": "dml"}, "share_until": None, "compile": True}, 2, "supports neither --compile nor fp16"),
    ],
)
def test_peers_that_cannot_be_divided_are_refused(changes: dict[str, Any], processes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_peer_layout(build(tiny(**changes)), processes)
