"""Where a run was trained: versions, commit and hardware."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device, devices: int = 1, nodes: int = 1) -> dict[str, Any]:
    """Versions, commit and hardware on which a run's numbers depend."""
    packages = ("collegium", "torch", "numpy", "lightning-fabric")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "device": device_name(device),
        "devices": devices,
        "nodes": nodes,
        "threads": torch.get_num_threads(),
        # TensorFloat-32 rounds the factors of fp32 convolutions.
        **({"tf32_convolutions": torch.backends.cudnn.allow_tf32} if device.type == "cuda" else {}),
        "platform": platform.platform(),
    }


def device_name(device: torch.device) -> str:
    """The model of a GPU or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() + " (MPS)" * (device.type == "mps")


def _commit() -> str:
    """The commit of the code, with "+changes" where files differ from it; "" outside a checkout."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An installed copy may lie inside the checkout of another project.
        if not git("ls-files", "__init__.py"):
            return ""
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return model
