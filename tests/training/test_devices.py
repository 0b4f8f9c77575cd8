"""Where a run trains, from options and from what has been started."""

import os
import re

import pytest
import torch
from helpers import tiny

from collegium.errors import UsageError
from collegium.training import devices as found
from collegium.training.devices import Devices, detect_devices, first_process
from collegium.training.engine import make_fabric

OPTIONS = "--method independent --peers 2xresnet8 --data digits --data.per_class 8 --batch-size 20 --device cpu"
COLLEGIUM = f"import sys; from collegium.cli import main; main(['train', *'{OPTIONS}'.split(), *sys.argv[1:]])"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("started", "message"),
    [
        (False, "this machine has 1 of 4 GPUs; use fewer --devices"),
        (True, "4 processes were started .* make all GPUs visible to each"),
    ],
)
def test_more_processes_than_gpus_are_refused(started: bool, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=message):
        make_fabric(tiny(device="auto"), Devices(4, 1, started))


def test_more_processes_than_a_machine_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert detect_devices(8, None) == Devices(8)
    with pytest.raises(UsageError, match="9 devices need as many processes, .* 2 cores: give at most 8"):
        detect_devices(9, None)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "expected"),
    [
        ({}, None, None, Devices()),
        ({}, 3, None, Devices(3)),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}, None, None, Devices(2, 2, True)),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}, 2, 2, Devices(2, 2, True)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}, 4, 2, Devices(4, 2, True)),
        ({"SLURM_NTASKS": "8"}, None, None, Devices()),  # a shell of SLURM's, without srun
    ],
)
def test_where_a_run_computes_is_found(
    environment: dict[str, str],
    devices: int | None,
    nodes: int | None,
    expected: Devices,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(found.os, "environ", environment)
    assert detect_devices(devices, nodes) == expected


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "message"),
    [
        ({}, 0, None, "devices must be 1 or more, got 0"),
        ({}, 2, 2, "a run on 2 machines is started on each of them by torchrun or srun"),
        (
            {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"},
            4,
            None,
            "2 processes were started on each of 2 machines, which is not --devices 4 --num-nodes 2",
        ),
        ({"SLURM_STEP_NUM_TASKS": "8"}, None, None, "give their number per machine with --ntasks-per-node"),
    ],
)
def test_what_was_not_started_is_refused(
    environment: dict[str, str], devices: int | None, nodes: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found.os, "environ", environment)
    with pytest.raises(UsageError, match=re.escape(message)):
        detect_devices(devices, nodes)


def test_one_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, speaks in (
        ({"RANK": "3"}, True),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "2"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "0"}, True),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "1"}, False),
    ):
        monkeypatch.setattr(found.os, "environ", environment)
        assert first_process() == speaks
