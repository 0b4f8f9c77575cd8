"""The configuration of a training run, which with the code determines it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np

from collegium.errors import UsageError, brief, nearest
from collegium.options import check_kind
from collegium.schemas import Record, fault
from collegium.yaml_text import read_yaml


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Full configuration of a training run. The defaults are those of the FFL paper's code, with fewer epochs.

    Args:
        method: the method's name under "name", and its options.
        peers: network names, comma-separated: "2xresnet20", "resnet32,wrn_16_2".
        share_until: the last stage that the peers share, for example "stage2"; by default they share no layers. Several
            stages, "stage1,stage2", make a tree: all peers share the stages up to the first, where they split into two
            halves, each of which shares the stages up to the next, and so on; above the last stage each peer is alone.
        teacher: for methods with a frozen teacher: a finished run, or the folder of one of its peers.
        start_from: initial weights, wherever name and shape match: a finished run, whose peers are used in turn, or the
            folder of one of its peers.
        freeze: parameters of the peers that are not trained, as comma-separated patterns of names: "stem*,stage1*", or
            of one peer: "peer0.stem*". Batch norms among them keep their running statistics.
        data: the data set's name under "name", and its options.
        epochs: passes over the training images.
        batch_size: images per step, over all devices; an incomplete last batch is left out.
        micro_batches: gradient accumulation: in how many equal parts, one after another, a step computes its batch, to
            save memory. Batch norm and the method see each part as a batch.
        optimizer: for all parameters of a player: sgd, adam, adamw, or another one of timm, see
            `collegium list optimizers`.
        optimizer_options: further options of the optimizer by the names that timm or torch gives them, for example
            {betas: [0.9, 0.95], eps: 1.0e-6}.
        learning_rate: its highest value. It applies to the whole batch, for any number of devices.
        momentum: of SGD, and of the other optimizers that have one number for it.
        nesterov: Nesterov momentum for ``sgd``; other optimizers have it in their names or their options.
        weight_decay: of all parameters for which the method sets no other.
        decay_norms_and_biases: whether weight decay applies to weights of norms and to biases too.
        layer_decay: factor of the learning rate from each layer to the one below it, 1 for none: of layers that a timm
            model names, or of the stages of another network.
        peer_learning_rates: one for each peer, in their order, in place of ``learning_rate``, for example [0.1,0.05];
            what peers share, and a method's own layers, keep ``learning_rate``.
        peer_weight_decays: the same in place of ``weight_decay``.
        schedule: of the learning rate, over all steps: "step" multiplies by ``decay`` at each milestone.
        milestones: where the step schedule drops the learning rate, as shares of training.
        decay: factor of each drop of the step schedule.
        min_learning_rate: where the cosine schedule ends; layers of another rate end at the same share of theirs.
        warmup: share of training over which the learning rate rises linearly from 0.
        label_smoothing: weight of the uniform distribution in the targets.
        class_weights: of the cross-entropy with labels, one for each class in their order; "balanced" takes N / (K n)
            for a class of n of the N training images of K classes. By default each counts 1.
        sampling: what an epoch takes: every training image once ("uniform"), or as many draws with replacement, of a
            class at random and then of one of its images ("balanced").
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none. With mixup too, each batch gets one of the two.
        sync_batchnorm: with several devices, batch norm uses the statistics of the whole batch.
        gradient_clip: largest norm of a player's gradient; by default gradients are not clipped.
        ema: decay of an exponential moving average of the peers' weights and running statistics, for example 0.999. The
            averaged peers are predictors besides the others, ``peer0_ema`` and so on, and are saved like peers.
        precision: of the networks; losses are always computed in fp32.
        channels_last: use the channels-last memory layout for images and convolutions.
        compile: compile cohort and method with torch.compile.
        cuda_graphs: replay the compiled kernels as CUDA graphs, which saves the launch overhead of small kernels; needs
            ``compile``.
        activation_checkpointing: keep the outputs of the peers' stages only and recompute the activations within them
            in the backward pass: less memory, more time.
        seed: of weights and data, where ``weight_seed`` or ``data_seed`` is not given.
        weight_seed: of the initial weights.
        data_seed: of the order and augmentation of images.
        evaluate_every: evaluate after every so many epochs, and after the last one.
        patience: stop training after so many evaluations without a lower top-1 error on validation images (mean of the
            peers); by default never. The schedule stays that of all ``epochs``.
        checkpoint_every: save a checkpoint after every so many epochs, and after the last one.
        keep_checkpoints: number of newest checkpoints to keep.
        device: device to train on; "auto" uses a CUDA GPU if there is one, else the CPU. "mps" is the GPU of an Apple
            computer.

    Raises:
        UsageError: a value is outside its range.
    """

    method: Mapping[str, Any] = field(default_factory=lambda: {"name": "ffl"})
    peers: str = "2xresnet20"
    share_until: str | None = None
    teacher: str | None = None
    start_from: str | None = None
    freeze: str | None = None
    data: Mapping[str, Any] = field(default_factory=lambda: {"name": "digits"})
    epochs: int = 30
    batch_size: int = 128
    micro_batches: int = 1
    optimizer: str = "sgd"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = True
    layer_decay: float = 1.0
    peer_learning_rates: tuple[float, ...] = ()
    peer_weight_decays: tuple[float, ...] = ()
    schedule: Literal["step", "cosine", "one_cycle", "constant"] = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    min_learning_rate: float = 0.0
    warmup: float = 0.0
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    sampling: Literal["uniform", "balanced"] = "uniform"
    mixup: float = 0.0
    cutmix: float = 0.0
    sync_batchnorm: bool = False
    gradient_clip: float | None = None
    ema: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    activation_checkpointing: bool = False
    seed: int = 0
    weight_seed: int | None = None
    data_seed: int | None = None
    evaluate_every: int = 1
    patience: int | None = None
    checkpoint_every: int = 1
    keep_checkpoints: int = 2
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __post_init__(self) -> None:
        for name, (default, hint) in _kinds().items():
            if (value := getattr(self, name)) is not default:
                check_kind(name, value, hint)
        for name in ("epochs", "batch_size", "micro_batches", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
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
        _check("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "more than 0 and at most 1")
        rates, decays = self.peer_learning_rates, self.peer_weight_decays
        _check("peer_learning_rates", rates, all(rate > 0 for rate in rates), "more than 0")
        _check("peer_weight_decays", decays, all(decay >= 0 for decay in decays), "0 or more")
        _check("patience", self.patience, self.patience is None or self.patience >= 1, "1 or more")
        _check("ema", self.ema, self.ema is None or 0 < self.ema < 1, "between 0 and 1")
        legal = len(self.milestones) <= 100 and all(0 < m < 1 for m in self.milestones)
        _check("milestones", self.milestones, legal, "shares between 0 and 1, at most 100 of them")
        for name in ("method", "data"):
            if "name" not in getattr(self, name):
                raise UsageError(f"the recipe's {name} has no name: {dict(getattr(self, name))}")
        if self.min_learning_rate:
            low = self.min_learning_rate
            _check("min_learning_rate", low, 0 <= low < self.learning_rate, "0 or more, and below learning_rate")
            if self.schedule != "cosine":
                raise UsageError(f"min_learning_rate is of the cosine schedule: leave it out with {self.schedule}")
        if self.cuda_graphs and not self.compile:
            raise UsageError("CUDA graphs replay compiled kernels: give --compile true with --cuda-graphs true")
        if isinstance(self.class_weights, list | tuple):
            legal = all(weight >= 0 for weight in self.class_weights) and any(self.class_weights)
            _check("class_weights", self.class_weights, legal, "0 or more, and not all 0")
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        for name in ("milestones", "peer_learning_rates", "peer_weight_decays"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

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
        """The recipe in plain YAML types, in the order of the fields."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: _lists(value) for key, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], source: str = "the recipe") -> "Recipe":
        """The inverse of :meth:`to_dict`; ``method: ffl`` is short for ``method: {name: ffl}``.

        Raises:
            UsageError: an entry is unknown or has a wrong value; the message names ``source``.
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
        """Reads a recipe from a YAML file, such as a run's recipe.yaml, or by the name of one that the library ships.

        Raises:
            UsageError: there is no such recipe, or the file is not one.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            shipped = {file.stem: file for file in recipes_folder().glob("*.yaml")}
            if path.stem not in shipped or path.suffix not in ("", ".yaml"):
                raise UsageError(f"there is no recipe {path}{nearest(path.stem, list(shipped))}")
            path = shipped[path.stem]
        content = read_yaml(path)
        wrong = fault(content, _PARTS)
        if wrong is not None:
            raise UsageError(f"{path} is not a recipe: {wrong}")
        try:
            return cls.from_dict(content, str(path))
        except UsageError as error:
            raise error if str(path) in str(error) else UsageError(f"{path}: {error}") from error

    def differences(self, other: "Recipe") -> list[str]:
        """Where two recipes differ: ``["epochs: 30 here, 40 there", "method.temperature: 3.0 here, absent there"]``."""
        mine, theirs = leaves(self.to_dict()), leaves(other.to_dict())
        for flat in (mine, theirs):
            flat.pop("data.workers", None)  # how many processes read the images changes none of them
        both = [(key, mine.get(key, "absent"), theirs.get(key, "absent")) for key in mine | theirs]
        # An option that is not used is absent from runs of before there was one.
        alike = ((None, "absent"), ("absent", None))
        return [
            f"{key}: {here} here, {there} there"
            for key, here, there in both
            if here != there and (here, there) not in alike
        ]


@cache
def _kinds() -> dict[str, tuple[Any, Any]]:
    """Of every entry: its default and its annotation."""
    hints = get_type_hints(Recipe)
    return {f.name: (f.default, hints[f.name]) for f in dataclasses.fields(Recipe)}


def told(differences: Sequence[str]) -> str:
    """Differences as part of a sentence, of many the first."""
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return "; ".join(differences[:3]) + more


def leaves(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"method": {"name": "dml"}}`` -> ``{"method.name": "dml"}``"""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


_PARTS = Record({}, {"method": (str, {str: object}), "data": (str, {str: object})})


def _lists(value: Any) -> Any:
    """Tuples as lists, at every depth, as YAML reads them."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _plain(value: Any) -> Any:
    """Paths as text and NumPy's numbers as Python's, which YAML can represent."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def recipes_folder() -> Path:
    """The folder of the recipes that the library ships: in the package, or beside the sources."""
    packaged = Path(__file__).parents[1] / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "recipes"


def _check(name: str, value: Any, legal: bool, expected: str) -> None:
    if not legal:
        raise UsageError(f"{name} must be {expected}, got {brief(value)}")
