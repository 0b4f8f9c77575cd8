"""Functions of the user's that are called while a run trains."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from collegium.cohort import Cohort
from collegium.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """How far a run is, to be read.

    Attributes:
        run: its folder.
        epoch: epochs that are complete.
        epochs: of the whole run.
        step: steps of the next epoch that are complete.
        steps: of an epoch.
        cohort: the networks as they are; what is changed in them changes the training. With the layout "peers" the
            weights of the other processes' peers are old.
    """

    run: Path
    epoch: int
    epochs: int
    step: int
    steps: int
    cohort: Cohort
    measured: Callable[[], Mapping[str, float]] = field(repr=False)

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Columns of metrics.csv: of the epoch that has ended, of the evaluation, or means over the epoch so far.

        After a step, reading them waits for the device.
        """
        return MappingProxyType(dict(self.measured()))


Callback: TypeAlias = Callable[[TrainingView], object]


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that :func:`collegium.train` calls. A function that returns False stops the run as Ctrl-C does.

    They are called without gradients, and what they draw at random leaves the run's numbers as they are.

    Args:
        on_train_start: before the first step of this call, also of a run that goes on.
        on_step_end: after every step.
        on_evaluate_end: after every evaluation, with its columns as metrics.
        on_epoch_end: after every epoch, with its row of metrics.csv as metrics, before a checkpoint is saved.
        on_train_end: after the last epoch, once result.json is written; what it returns is of no account.

    Raises:
        UsageError: one is no function.
    """

    on_train_start: Callback | None = None
    on_step_end: Callback | None = None
    on_evaluate_end: Callback | None = None
    on_epoch_end: Callback | None = None
    on_train_end: Callback | None = None

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            if not (getattr(self, entry.name) is None or callable(getattr(self, entry.name))):
                raise UsageError(f"{entry.name} must be a function of one argument, not {getattr(self, entry.name)!r}")
