"""What the calls of :mod:`collegium.api` take and return, for type checkers and editors."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, NotRequired, TypedDict


class StudyEntries(TypedDict, total=False):
    """The entries of a :class:`~collegium.training.recipe.Recipe`, where they are described, that all runs of a study
    have in common and that are no parameters of the call."""

    method: str | Mapping[str, Any]
    share_until: str | None
    start_from: str | PathLike[str] | None
    freeze: str | None
    epochs: int
    batch_size: int
    micro_batches: int
    optimizer: str
    optimizer_options: Mapping[str, Any]
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_norms_and_biases: bool
    layer_decay: float
    peer_learning_rates: Sequence[float]
    peer_weight_decays: Sequence[float]
    schedule: Literal["step", "cosine", "one_cycle", "constant"]
    milestones: Sequence[float]
    decay: float
    min_learning_rate: float
    warmup: float
    label_smoothing: float
    class_weights: Literal["balanced"] | Sequence[float] | None
    sampling: Literal["uniform", "balanced"]
    mixup: float
    cutmix: float
    sync_batchnorm: bool
    gradient_clip: float | None
    ema: float | None
    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    cuda_graphs: bool
    activation_checkpointing: bool
    weight_seed: int | None
    data_seed: int | None
    evaluate_every: int
    patience: int | None
    checkpoint_every: int
    keep_checkpoints: int
    device: Literal["auto", "cpu", "cuda", "mps"]


class RunEntries(StudyEntries, total=False):
    """Those of a single run."""

    seed: int


class PredictorResult(TypedDict):
    """Scores of one predictor, metric -> value: on the test images, and in the last epoch on the validation images."""

    last: dict[str, float]
    best: dict[str, float]  # with the "epoch"
    validation: NotRequired[dict[str, float]]


class Stopped(TypedDict):
    """Where and why a run ended before its last epoch."""

    epoch: int
    reason: str


class RunResult(TypedDict):
    """The content of a complete run's result.json."""

    method: str
    reconstructed: str  # what of the method no paper says, "" for nothing
    notes: list[str]
    peers: list[str]
    deployed_peer: str
    share_until: str | None
    data: str
    training_images: int
    wrong_labels: float | None  # share of the training labels, where it is known
    test_images: int
    seed: int
    epochs: int
    stopped: Stopped | None
    complete: bool
    predictors: dict[str, PredictorResult]
    mean_peer: PredictorResult
    best_chosen_on: Literal["validation", "test"]
    class_names: list[str]
    test_images_per_class: list[int]
    class_accuracy: dict[str, list[float]]  # predictor -> share of each class's test images
    cost: dict[str, dict[str, float]]  # predictor -> parameters and flops
    processes: int
    seconds: float
    training_seconds: float
    images_per_second: float
