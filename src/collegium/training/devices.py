"""On how many devices of how many machines a run trains, and whether its processes have been started."""

import os
from typing import Literal, NamedTuple, TypeAlias

from collegium.errors import UsageError

Layout: TypeAlias = Literal["data", "peers"]
"""What the processes of a run divide among themselves: every batch ("data"), or the peers ("peers")."""


class Devices(NamedTuple):
    """The devices that a run trains on, one process each."""

    devices: int = 1  # of each machine
    nodes: int = 1
    started: bool = False  # whether there is a process for each device already, of which this is one

    @property
    def processes(self) -> int:
        return self.devices * self.nodes


def detect_devices(devices: int | None, num_nodes: int | None) -> Devices:
    """The devices that a run was asked to train on; None stands for one, or for what torchrun or SLURM has started.

    Raises:
        UsageError: other numbers of processes or machines have been started, or too many are to be.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be 1 or more, got {value}")
    found = _started()
    if found is None:
        if num_nodes not in (None, 1):
            raise UsageError(
                f"a run on {num_nodes} machines is started on each of them by torchrun or srun, "
                "as docs/many_devices.md shows; this process was started alone"
            )
        most = max(8, os.cpu_count() or 1)
        if devices is not None and devices > most:
            raise UsageError(
                f"{devices} devices need as many processes, and this machine has {os.cpu_count()} cores: give at most "
                f"{most} --devices"
            )
        return Devices(devices or 1)
    if (devices or found.devices, num_nodes or found.nodes) != (found.devices, found.nodes):
        raise UsageError(
            f"{found.devices} processes were started on each of {found.nodes} machines, which is not --devices "
            f"{devices or found.devices} --num-nodes {num_nodes or found.nodes}; leave these options out"
        )
    return found


def _started() -> Devices | None:
    """What torchrun, SLURM's srun or the library itself has started; None where this process was started alone."""
    if "LOCAL_RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return Devices(local, int(os.environ["WORLD_SIZE"]) // local, started=True)
    # srun alone sets SLURM_STEP_NUM_TASKS; a shell within a SLURM allocation has the other variables only.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise UsageError("srun has started several tasks; give their number per machine with --ntasks-per-node")
        local = int(os.environ["SLURM_NTASKS_PER_NODE"])
        return Devices(local, int(os.environ["SLURM_STEP_NUM_TASKS"]) // local, started=True)
    return None


def first_process() -> bool:
    """Whether this is rank 0 of its run, which alone writes output, or a process started alone."""
    if _started() is None:
        return True
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0
