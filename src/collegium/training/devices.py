"""Where a run computes: on how many devices of how many machines, and whether their processes run already."""

import os
from typing import Literal, NamedTuple, TypeAlias

from collegium.errors import UsageError

Layout: TypeAlias = Literal["data", "peers"]
"""What each process of a run has for itself: a share of every batch, or one or several of the peers."""


class Places(NamedTuple):
    """Where a run computes."""

    devices: int = 1  # of each machine
    nodes: int = 1
    started: bool = False  # whether a process for each device runs already, of which this is one

    @property
    def processes(self) -> int:
        return self.devices * self.nodes


def places(devices: int | None, num_nodes: int | None) -> Places:
    """Where a run computes that was asked to take so many devices of so many machines; None for what there is.

    Raises:
        UsageError: that many processes have not been started on that many machines.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be 1 or more, got {value}")
    found = _found()
    if found is None:
        if num_nodes not in (None, 1):
            raise UsageError(
                f"a run on {num_nodes} machines is started on each of them by torchrun or srun, "
                "as docs/many_devices.md shows; this process stands alone"
            )
        return Places(devices or 1)
    if (devices or found.devices, num_nodes or found.nodes) != (found.devices, found.nodes):
        raise UsageError(
            f"{found.devices} processes were started on each of {found.nodes} machines, which is not --devices "
            f"{devices or found.devices} --num-nodes {num_nodes or found.nodes}; leave these options out"
        )
    return found


def _found() -> Places | None:
    """What torchrun, SLURM's srun or the library itself has started."""
    if "LOCAL_RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return Places(here, int(os.environ["WORLD_SIZE"]) // here, started=True)
    # srun sets the first of these for what it starts; a shell of SLURM's has the others alone.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise UsageError("srun has started several tasks; say how many a machine with --ntasks-per-node")
        here = int(os.environ["SLURM_NTASKS_PER_NODE"])
        return Places(here, int(os.environ["SLURM_STEP_NUM_TASKS"]) // here, started=True)
    return None


def first_process() -> bool:
    """Whether this process speaks for its run, or stands alone."""
    if _found() is None:
        return True
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0
