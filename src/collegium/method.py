"""What a method is: named loss terms by player, and predictors besides the peers."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, NotRequired, TypedDict

from torch import Tensor, nn

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError

Terms = dict[str, Tensor]
"""Named scalars, weights applied; their sum is what a player descends."""


class Progress(NamedTuple):
    """How far training has come, as 0-d tensors so that a compiled step is never compiled again."""

    epoch: Tensor  # epochs completed before this one: the papers' 0-based e
    epochs: Tensor  # epochs in all
    fraction: Tensor  # share of all optimizer steps taken before this one, in [0, 1)


class ParameterGroup(TypedDict):
    """Parameters with common settings of the optimizer, as torch calls them; the run has those that are left out."""

    params: list[nn.Parameter]
    weight_decay: NotRequired[float]
    lr: NotRequired[float]  # instead of the run's; the schedule multiplies it too
    lr_scale: NotRequired[float]  # of the run's; torch does not know it, see torch_groups
    milestones: NotRequired[tuple[float, ...]]  # shares of training where its rate drops to a tenth; no schedule then


class Shadow(NamedTuple):
    """A frozen copy of the peers that follows them: after every ``every``-th step, copy = d copy + (1 - d) peers.

    d is ``decay``, but at most 1 - 1 / update, so that the initial weights are forgotten. With a decay of 0 the copy is
    a stale one, which does not change between its updates. The running statistics of its norms are its own where decay
    is above 0, and copied with the weights where it is 0.

    With ``hybrid`` there is one copy, which follows the mean of the peers' weights; the peers must be equal networks.
    """

    decay: float = 0.999
    every: int = 1
    hybrid: bool = False


class Method(nn.Module, abc.ABC):
    """A published way for peers to teach each other.

    A method sees peers only through :class:`PeerOutputs`. Constructor keywords are its configuration, with the
    paper's values as defaults. A *player* is a set of parameters with an optimizer of its own; most methods
    have one, ``"peers"``.
    """

    min_peers: ClassVar[int] = 2
    example: ClassVar[str] = "--peers 2xresnet20"
    """A cohort that it is meant for, as options of the command line; its page shows it."""
    needs_teacher: ClassVar[bool] = False
    may_have_teacher: ClassVar[bool] = False
    """Whether a trained teacher is optional."""
    logits_only: bool = False
    """Whether it has no weights of its own and reads only the peers' logits, so that peers can be trained in different
    processes."""
    gathers_batch: bool = False
    """Whether several processes exchange their shares of a batch, which must then be equally large."""
    optimizers: Mapping[str, Literal["sgd", "adam", "adamw"]] = {}
    """The optimizers of players that do not use the run's."""
    may_rest: frozenset[str] = frozenset()
    """Players that take no step, weight decay and momentum included, in a batch in which their terms are all 0."""
    own_views: bool = False
    """Whether every peer sees its own random view of each training image."""
    views: int = 1
    """How many random views of each training image every peer sees, where not each its own: view after view in one
    batch, so that the logits are (M, views B, C) for targets of B."""
    images_per_class: int = 1
    """The smallest number of images that a training batch holds of each class in it."""
    shadow: Shadow | None = None
    """How a copy of the peers follows them, where the method learns from one: :attr:`PeerOutputs.shadow`."""
    starts_alike: bool = False
    """Whether every peer starts as a copy of the first; the peers must be of one kind."""
    deployed_peer: int = 0
    """The index of the peer that is deployed unless the user names another."""
    one_network: Mapping[str, int] = {}
    """Predictors that are a single network, and the index of a peer of the same size, for their cost."""
    reconstructed: str = ""
    """What had to be reconstructed as no text or code of the authors states it; printed with every result."""

    def __init__(self, spec: CohortSpec) -> None:
        """Raises UsageError where the cohort has too few peers, lacks a needed teacher, or has one without use."""
        super().__init__()
        self.register_forward_pre_hook(_refuse_missing_copies)
        name = type(self).__name__
        if spec.num_peers < self.min_peers:
            raise UsageError(
                f"{name} needs at least {self.min_peers} peers, got {spec.num_peers} ({', '.join(spec.names)}); "
                f"write for example --peers {self.min_peers}x{spec.names[0]}"
            )
        if self.needs_teacher and spec.teacher_shapes is None:
            raise UsageError(f"{name} needs a trained teacher: name a finished run or a peer's folder with --teacher")
        if spec.teacher_shapes is not None and not self.learns_from_teacher():
            raise UsageError(f"{name} does not learn from a trained teacher; leave --teacher out")

    @classmethod
    def learns_from_teacher(cls) -> bool:
        """Whether a trained teacher may be given."""
        return cls.needs_teacher or cls.may_have_teacher

    @abc.abstractmethod
    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        """Loss terms by player, weights applied. target: (B,) class indices or (B, C) probabilities."""

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        """Which parameters each player owns. By default one player owns everything."""
        return {"peers": [{"params": trainable(cohort)}, {"params": trainable(self)}]}

    def after_step(self, cohort: Cohort, step: int, epoch_steps: int) -> None:
        """Called after every optimizer step without gradients; ``step`` counts from 1 over the whole run, and an epoch
        has ``epoch_steps``."""

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        """Predictors besides the peers and their mean: name -> logits (B, C)."""
        return {}

    def maps(self, out: PeerOutputs) -> dict[str, Tensor]:
        """Feature maps of the method's own, for pictures: name of the predictor that reads it -> (B, D, H, W)."""
        return {}


def _refuse_missing_copies(method: nn.Module, inputs: tuple[PeerOutputs, Tensor, Progress]) -> None:
    assert isinstance(method, Method)
    if method.shadow is not None and inputs[0].shadow is None:
        raise UsageError(
            f"{type(method).__name__} learns from copies that follow its peers, and a Cohort alone has none: "
            "train with collegium.Distiller, which keeps them"
        )


def torch_groups(
    groups: Sequence[ParameterGroup], *, lr: float, weight_decay: float | None = None
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, in which the learning rate and weight decay that are left out are these.

    Without ``weight_decay`` such a group has none, so that the optimizer's own holds.
    """
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    return [
        {
            "params": group["params"],
            "lr": group.get("lr", lr) * group.get("lr_scale", 1.0),
            **({"weight_decay": group["weight_decay"]} if "weight_decay" in group else decay),
            **({"milestones": group["milestones"]} if "milestones" in group else {}),
        }
        for group in groups
        if group["params"]
    ]


def positive(what: str, value: float) -> float:
    """The value, or a UsageError where it is not above 0 and finite."""
    if not 0 < value < math.inf:
        raise UsageError(f"{what} must be more than 0 and finite, not {value}")
    return value


def not_negative(what: str, value: float) -> float:
    """The value, or a UsageError where it is not 0 or more, and finite."""
    if not 0 <= value < math.inf:
        raise UsageError(f"{what} must be 0 or more and finite, not {value}")
    return value


def share(what: str, value: float) -> float:
    """The value, or a UsageError where it is not within 0 and 1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{what} must be a share from 0 to 1, not {value}")
    return value


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The module's parameters that are not frozen."""
    return [p for p in module.parameters() if p.requires_grad]
