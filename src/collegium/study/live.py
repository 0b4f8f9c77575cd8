"""What a person sees while a study runs: every run that is going on, on a terminal; a line an event elsewhere."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from collegium.errors import DataError
from collegium.formatting import duration, percent, printable
from collegium.study.cell import Cell
from collegium.study.executors.local import Event
from collegium.study.study import Study
from collegium.training.result import trained_epochs
from collegium.training.run_folder import RunFolder

JUDGED = "test/mean_peer/top1_error"
COLOURS = {"done": "green", "failed": "red", "broken": "yellow", "started": ""}


@dataclass
class _Watched:
    """A run that is going on."""

    cell: Cell
    folder: RunFolder
    began: float = field(default_factory=time.time)
    read: float = 0.0  # when the metrics that were read last had been written
    before: tuple[int, float] = (0, 0.0)  # epochs done and seconds trained before it went on
    epochs: int = 0
    seconds: float = 0.0
    best: float | None = None  # accuracy of one network

    def look(self) -> None:
        """Reads the metrics where there are new ones."""
        try:
            written = self.folder.metrics_file.stat().st_mtime
            if written == self.read:
                return
            rows = self.folder.metrics()
        except (OSError, DataError):
            return
        self.epochs, self.seconds, self.read = len(rows), rows[-1].get("seconds", 0.0) if rows else 0.0, written
        errors = [row[JUDGED] for row in rows if JUDGED in row]
        self.best = 1 - min(errors) if errors else None
        if written < self.began:
            self.before = self.epochs, self.seconds

    @property
    def pace(self) -> float | None:
        """Seconds an epoch since it went on, with all that comes with it."""
        fresh = self.epochs - self.before[0]
        return (self.read - self.began) / fresh if fresh > 0 else None

    def left(self, pace: float) -> float:
        """Seconds to go at a pace."""
        since = time.time() - max(self.read, self.began)
        return max(0.0, (self.cell.recipe.epochs - self.epochs) * pace - since)


class LiveView:
    """Progress, time left and best accuracy so far of every running cell, and of the study.

    It reads the metrics that runs write after their epochs, and asks nothing of the runs.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.console = Console(stderr=True)
        self.on_terminal = self.console.is_terminal
        self.running: dict[str, _Watched] = {}
        self.paces: dict[str, list[float]] = {}  # row -> seconds an epoch of runs that were watched to their end
        self.known: dict[str, list[float]] = {}  # the same of runs that were done before, without their start
        self.state: dict[str, str] = {}
        self.best: tuple[float, str] | None = None
        for outcome in study.outcomes():
            result = outcome.result
            self.state[outcome.cell.key] = outcome.state if outcome.state in ("done", "failed") else "waiting"
            if result is not None:
                self._finished(outcome.cell, result)
                self.known.setdefault(outcome.cell.label, []).append(result["seconds"] / trained_epochs(result))
        self.again = sum(state == "failed" for state in self.state.values())
        self.state = {key: "waiting" if state == "failed" else state for key, state in self.state.items()}
        self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=2, transient=True)

    def __enter__(self) -> "LiveView":
        done, total = self._count("done"), len(self.state)
        if done:
            again = f", {self.again} that failed are tried again" if self.again else ""
            self._say(Text(f"{done} of {total} runs are done already{again}"))
        if self.on_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.on_terminal:
            self.live.stop()

    def happened(self, cell: Cell, event: Event) -> None:
        """Something happened to a run."""
        self.state[cell.key] = event.state
        line = Text(f"{event.state:<7}", style=COLOURS[event.state])
        if event.state == "started":
            folder = self.study.run_folder(cell)
            self.running[cell.key] = _Watched(cell, folder)
            self.running[cell.key].look()
            if self.on_terminal:
                return
            line += f"  {printable(cell.name)}"
        else:
            watched = self.running.pop(cell.key)
            counted = f"[{self._count('done')}/{len(self.state)}]"
            line += f"  {counted}  {printable(cell.name)}"
            if event.state == "done":
                result = self.study.run_folder(cell).result()
                assert result is not None
                self._finished(cell, result)
                if watched.before[0] < cell.recipe.epochs:  # with the start of its process and all
                    pace = (time.time() - watched.began) / (cell.recipe.epochs - watched.before[0])
                    self.paces.setdefault(cell.label, []).append(pace)
                line += f"  {percent(_accuracy(result))} %  {duration(result['seconds'])}"
            else:
                line += f": {printable(event.error)}"
        self._say(line)

    def render(self) -> RenderableType:
        """The running runs, one a line, and the whole study."""
        table = Table.grid(padding=(0, 2))
        for watched in list(self.running.values()):
            watched.look()
            pace = watched.pace or self._pace(watched.cell)
            table.add_row(
                Text(printable(watched.cell.name), overflow="ellipsis", no_wrap=True),
                ProgressBar(total=watched.cell.recipe.epochs, completed=watched.epochs, width=16),
                Text(f"{watched.epochs}/{watched.cell.recipe.epochs} epochs", no_wrap=True),
                Text("" if pace is None else f"{duration(watched.left(pace))} left", no_wrap=True),
                Text("" if watched.best is None else f"best {percent(watched.best)} %", no_wrap=True),
            )
        return Group(table, Text(printable(self._summary()), style="bold", overflow="ellipsis", no_wrap=True))

    def _summary(self) -> str:
        counts = {"done": self._count("done"), "running": len(self.running)}
        counts |= {state: self._count(state) for state in ("failed", "broken", "waiting")}
        parts = [f"{n} {state}" for state, n in counts.items() if n or state == "done"]
        left = self._left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        if self.best is not None:
            parts.append(f"best {percent(self.best[0])} % {self.best[1]}")
        return " · ".join(parts)

    def _left(self) -> float | None:
        """Seconds to go, as many runs at once as now; None where no pace is known yet."""
        total = 0.0
        for cell in self.study.cells:
            if self.state[cell.key] not in ("waiting", "started"):
                continue
            watched = self.running.get(cell.key)
            pace = (watched.pace if watched else None) or self._pace(cell)
            if pace is None:
                return None
            total += watched.left(pace) if watched else pace * cell.recipe.epochs
        return total / max(1, len(self.running))

    def _pace(self, cell: Cell) -> float | None:
        """Seconds an epoch as seen of the cell's row, or else of all rows."""
        going = {"": [watched.pace for watched in list(self.running.values()) if watched.pace is not None]}
        for paces in (self.paces, going, self.known):
            found = paces.get(cell.label) or [pace for of_row in paces.values() for pace in of_row]
            if found:
                return sum(found) / len(found)
        return None

    def _finished(self, cell: Cell, result: dict[str, object]) -> None:
        accuracy = _accuracy(result)
        if self.best is None or accuracy > self.best[0]:
            self.best = accuracy, cell.name

    def _count(self, state: str) -> int:
        return sum(known == state for known in self.state.values())

    def _say(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)


def _accuracy(result: dict[str, object]) -> float:
    """Of one network in the last epoch."""
    mean: object = result["mean_peer"]
    assert isinstance(mean, dict)
    return 1 - float(mean["last"]["top1_error"])
