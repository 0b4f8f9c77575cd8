"""Everything that is needed to repeat one training run."""

import dataclasses
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
import yaml

from collegium.errors import UsageError, nearest
from collegium.options import check_kind
from collegium.yaml_text import parse_yaml


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run, everything said. The defaults are those of the FFL paper's code, but for the short run.

    Args:
        method: the method's name under "name", and its options.
        peers: network names, comma-separated: "2xresnet20", "resnet32,wrn_16_2".
        share_until: the last stage that the peers share, for example "stage2"; by default they stand apart. With more
            stages, "stage1,stage2", they are a tree: all share up to the first, where they part in two halves, each
            of which shares up to the next, and so on; above the last stage each peer is alone.
        teacher: for methods with a frozen teacher: a finished run, or the folder of one of its peers.
        start_from: weights to start from, wherever name and shape fit: a finished run, whose peers are taken in turn,
            or the folder of one of its peers.
        data: the data set's name under "name", and its options.
        epochs: passes over the training images.
        batch_size: images per step, of all devices together; a last batch that is not full is left out.
        optimizer: for all parameters of a player.
        learning_rate: its highest value, for the whole batch: it does not depend on the number of devices.
        momentum: of SGD.
        nesterov: Nesterov momentum for SGD.
        weight_decay: on all parameters, where the method says nothing else.
        schedule: of the learning rate, over all steps: "step" multiplies by ``decay`` at each milestone.
        milestones: where the step schedule drops, as shares of training.
        decay: factor of each drop.
        warmup: share of training over which the learning rate rises linearly from 0.
        label_smoothing: weight of the uniform distribution in the targets.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none; with mixup on too, each batch gets one of the two.
        sync_batchnorm: where several devices train, batch norms go by the whole batch and not by each device's part.
        gradient_clip: largest norm of a player's gradient; by default it is not clipped.
        precision: of the networks' arithmetic; losses are computed in fp32 always.
        channels_last: memory layout of images and convolutions.
        compile: compile cohort and method with torch.compile.
        cuda_graphs: replay the compiled kernels as CUDA graphs, which spares small networks most of the time in which
            a GPU waits to be told; needs ``compile``.
        activation_checkpointing: keep what the peers' stages give, and compute what lies within them again in the
            backward pass: less memory, about a third more time.
        seed: of weights and data both, where the next two say nothing else.
        weight_seed: of the initial weights.
        data_seed: of the order and augmentation of images.
        evaluate_every: epochs from one evaluation to the next; the last epoch is evaluated always.
        checkpoint_every: epochs from one checkpoint to the next.
        keep_checkpoints: how many of the newest checkpoints are kept.
        device: where to train; "auto" takes a GPU where there is one.

    Raises:
        UsageError: a value is out of its range.
    """

    method: Mapping[str, Any] = field(default_factory=lambda: {"name": "ffl"})
    peers: str = "2xresnet20"
    share_until: str | None = None
    teacher: str | None = None
    start_from: str | None = None
    data: Mapping[str, Any] = field(default_factory=lambda: {"name": "digits"})
    epochs: int = 30
    batch_size: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine", "one_cycle", "constant"] = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    sync_batchnorm: bool = False
    gradient_clip: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    activation_checkpointing: bool = False
    seed: int = 0
    weight_seed: int | None = None
    data_seed: int | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 1
    keep_checkpoints: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe).items():
            check_kind(name, getattr(self, name), hint)
        for name in ("epochs", "batch_size", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("learning_rate", "decay"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        for name in ("weight_decay", "mixup", "cutmix"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("seed", "weight_seed", "data_seed"):
            seed = getattr(self, name)
            _check(name, seed, seed is None or 0 <= seed < 2**63, "0 or more, and below 2**63")
        for name in ("momentum", "warmup", "label_smoothing"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 up to, but not, 1")
        _check("gradient_clip", self.gradient_clip, self.gradient_clip is None or self.gradient_clip > 0, "more than 0")
        _check("milestones", self.milestones, all(0 < m < 1 for m in self.milestones), "shares between 0 and 1")
        for name in ("method", "data"):
            if "name" not in getattr(self, name):
                raise UsageError(f"the recipe's {name} has no name: {dict(getattr(self, name))}")
        if self.cuda_graphs and not self.compile:
            raise UsageError("cuda_graphs replay compiled kernels: take --compile true with --cuda-graphs true")
        object.__setattr__(self, "milestones", tuple(self.milestones))

    @property
    def method_name(self) -> str:
        return str(self.method["name"])

    @property
    def method_options(self) -> dict[str, Any]:
        return {key: value for key, value in self.method.items() if key != "name"}

    @property
    def data_name(self) -> str:
        return str(self.data["name"])

    @property
    def data_options(self) -> dict[str, Any]:
        return {key: value for key, value in self.data.items() if key != "name"}

    @property
    def resolved_weight_seed(self) -> int:
        return self.seed if self.weight_seed is None else self.weight_seed

    @property
    def resolved_data_seed(self) -> int:
        return self.seed if self.data_seed is None else self.data_seed

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML types, in the order of the fields."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: _lists(value) for key, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], source: str = "the recipe") -> "Recipe":
        """The opposite of :meth:`to_dict`; ``method: ffl`` is short for ``method: {name: ffl}``.

        Raises:
            UsageError: an unknown or ill-valued entry; ``source`` says where it came from.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        values = dict(plain)
        values.pop("provenance", None)
        for key in values:
            if key not in known:
                raise UsageError(f"{source} has an unknown entry {key!r}{nearest(str(key), known)}")
        for key in ("method", "data"):
            if isinstance(values.get(key), str):
                values[key] = {"name": values[key]}
        return cls(**{key: _plain(value) for key, value in values.items()})

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """The recipe in a YAML file, such as a run's recipe.yaml, or one that comes with the library, by its name.

        Raises:
            UsageError: there is none, or it is not a recipe.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            shipped = {file.stem: file for file in recipes_folder().glob("*.yaml")}
            if path.stem not in shipped or path.suffix not in ("", ".yaml"):
                raise UsageError(f"there is no recipe {path}{nearest(path.stem, list(shipped))}")
            path = shipped[path.stem]
        return cls.from_dict(read_yaml(path), str(path))

    def differences(self, other: "Recipe") -> list[str]:
        """Where two recipes differ: ``["epochs: 30 here, 40 there", "method.temperature: 3.0 here, absent there"]``."""
        mine, theirs = _leaves(self.to_dict()), _leaves(other.to_dict())
        for leaves in (mine, theirs):
            leaves.pop("data.workers", None)  # how many processes read the images changes none of them
        both = [(key, mine.get(key, "absent"), theirs.get(key, "absent")) for key in mine | theirs]
        return [f"{key}: {here} here, {there} there" for key, here, there in both if here != there]


def _leaves(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"method": {"name": "dml"}}`` -> ``{"method.name": "dml"}``"""
    leaves: dict[str, Any] = {}
    for key, value in plain.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


def _lists(value: Any) -> Any:
    """Lists for tuples, all the way down, as YAML would give them back."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _plain(value: Any) -> Any:
    """Paths as text and NumPy's numbers as Python's, which YAML can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def recipes_folder() -> Path:
    """The recipes that come with the library: packaged, or beside the sources."""
    packaged = Path(__file__).parents[1] / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "recipes"


def _check(name: str, value: Any, legal: bool, expected: str) -> None:
    if not legal:
        raise UsageError(f"{name} must be {expected}, got {value}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; UsageError says what is wrong with it."""
    try:
        content = parse_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a recipe: it must hold 'name: value' lines")
    return content


def provenance(device: torch.device, devices: int = 1, nodes: int = 1) -> dict[str, Any]:
    """Versions, commit and hardware that a number depends on."""
    packages = ("collegium", "torch", "numpy", "lightning-fabric")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "devices": devices,
        "nodes": nodes,
        "threads": torch.get_num_threads(),
        # TensorFloat-32 rounds what convolutions of fp32 multiply.
        **({"tf32_convolutions": torch.backends.cudnn.allow_tf32} if device.type == "cuda" else {}),
        "platform": platform.platform(),
    }


def _commit() -> str:
    """The commit of the code, with "+changes" where the checkout differs from it; "" outside a checkout."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An installed copy may lie inside somebody else's checkout.
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
