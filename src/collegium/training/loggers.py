"""Where the rows of metrics.csv go besides: TensorBoard, and the tracking services that were asked for."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from collegium.errors import UsageError, nearest
from collegium.extras import how_to_install
from collegium.files import inside, write_whole
from collegium.training.events import Events
from collegium.training.recipe import leaves

PROJECT = "collegium"
"""The name of the project (W&B) or experiment (MLflow), unless their own environment variables say another."""

MLFLOW_METRICS, MLFLOW_PARAMS = 1000, 100
"""How many MLflow takes in one call."""


class Logger(Protocol):
    """One service. Any method may raise any error."""

    def open(self, run: Path, config: Mapping[str, Any], known: str | None) -> str:
        """Begins, or goes on.

        Args:
            run: the run's folder.
            config: the recipe, as one level of plain values.
            known: what an earlier process of the run got here.

        Returns:
            What the service knows the run by.
        """

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Logs the values of an epoch."""

    def close(self, *, failed: bool) -> None:
        """Ends; ``failed`` where the run was interrupted or ended in an error."""


class WandB:
    """Weights & Biases. WANDB_MODE=offline writes to RUN/wandb alone; its other variables work as well."""

    def open(self, run: Path, config: Mapping[str, Any], known: str | None) -> str:
        import wandb

        name = known or hashlib.sha1(os.urandom(16)).hexdigest()[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.resolve().name,
            id=name,
            resume="allow",
            dir=str(run),
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        return name

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(row), step=epoch)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI or where it writes by itself, under MLFLOW_EXPERIMENT_NAME."""

    def open(self, run: Path, config: Mapping[str, Any], known: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._run = known
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._run = str(self._client.create_run(place, run_name=run.resolve().name).info.run_id)
        params = [Param(key, str(value)) for key, value in config.items()]
        for some in _batches(params, MLFLOW_PARAMS):
            self._client.log_batch(self._run, params=some)
        return self._run

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, epoch) for key, value in row.items()]
        for some in _batches(metrics, MLFLOW_METRICS):
            self._client.log_batch(self._run, metrics=some)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "KILLED" if failed else "FINISHED")


def _batches(entries: list[Any], size: int) -> list[list[Any]]:
    return [entries[begin : begin + size] for begin in range(0, len(entries), size)]


LOGGERS: dict[str, type[Logger]] = {"wandb": WandB, "mlflow": MLflow}
"""By the name of the package and of the extra that installs it."""


def parse_loggers(text: str | None) -> tuple[str, ...]:
    """``"wandb,mlflow"`` -> ``("wandb", "mlflow")``.

    Raises:
        UsageError: there is no such service, or its package is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    if text is not None and not names:
        raise UsageError(f"loggers names nothing: give some of {', '.join(LOGGERS)}, or leave it out")
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"there is no logger {name!r}{nearest(name, list(LOGGERS))}")
        if find_spec(name) is None:
            raise UsageError(f"the logger {name} needs its package: {how_to_install(name)}")
    return names


class Loggers:
    """TensorBoard and other services. One that fails is given up with one warning, and training goes on without it.

    Args:
        names: of the services.
        run: the run's folder, where ``loggers.json`` keeps what they know the run by.
        config: the recipe in plain types.
        first_epoch: the next one.
        write: whether to log at all.
    """

    def __init__(
        self, names: Sequence[str], run: Path, config: Mapping[str, Any], first_epoch: int, *, write: bool
    ) -> None:
        self.run, self.config = run, leaves(config)
        self.events = Events(run, first_epoch, write=write)
        self.names = list(names) if write else []
        self.active: dict[str, Logger] = {}

    def __enter__(self) -> "Loggers":
        self.events.__enter__()
        for name in self.names:
            try:
                logger = LOGGERS[name]()
                known = self._known()
                found = logger.open(self.run, self.config, known.get(name))
                self.active[name] = logger
                if known.get(name) != found:
                    write_whole(inside(self.run, "loggers.json"), json.dumps(known | {name: found}))
            except Exception as error:  # however it fails, it is not needed to go on
                self._give_up(name, error)
        return self

    def _known(self) -> dict[str, str]:
        file = inside(self.run, "loggers.json")
        known = json.loads(file.read_text()) if file.is_file() else {}
        return {name: value for name, value in known.items() if isinstance(value, str)}

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Logs the values of an epoch."""
        self.events.add(row, epoch)
        for name, logger in list(self.active.items()):
            try:
                logger.add(row, epoch)
            except Exception as error:
                self._give_up(name, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as ending:
            ending.callback(self.events.__exit__, kind, error, trace)
            for name, logger in list(self.active.items()):
                try:
                    logger.close(failed=kind is not None)
                except Exception as wrong:
                    self._give_up(name, wrong)

    def _give_up(self, name: str, error: Exception) -> None:
        self.active.pop(name, None)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        warnings.warn(f"the logger {name} failed: {reason} (training goes on without it)", stacklevel=3)
