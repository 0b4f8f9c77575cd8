"""What a run shows while it trains: a progress bar on a terminal, elsewhere a line for each evaluation."""

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Display:
    """Shows epochs, remaining time, loss, and the latest accuracy of every predictor."""

    def __init__(self, title: str, epochs: int, steps: int, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.title, self.epochs, self.steps = title, epochs, steps
        self.live = self.console.is_terminal and not quiet
        self.scores = ""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            disable=not self.live,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> "Display":
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.epochs, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """Prints a sentence above the bar."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def step(self, epoch: int, step: int, loss: float, accuracy: Mapping[str, float]) -> None:
        """Shows the loss and accuracy on training batches so far, above the scores of the last evaluation."""
        if self.task is not None:
            training = "training " + _percent(accuracy)
            status = f"loss {loss:.3f}  {training}\n{self.scores}"
            self.bar.update(self.task, completed=epoch + step / self.steps, status=status)

    def evaluated(self, epoch: int, loss: float, seconds: float, errors: Mapping[str, float]) -> None:
        """Shows the accuracy of every predictor after an evaluation."""
        self.scores = "test " + _percent({name: 1 - error for name, error in errors.items()})
        if not self.live:
            digits = len(str(self.epochs))
            self.console.print(
                f"epoch {epoch:>{digits}}/{self.epochs}  {seconds:6.1f} s  loss {loss:.3f}  {self.scores}",
                soft_wrap=True,
                highlight=False,
            )


def _percent(accuracy: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f} %" for name, value in accuracy.items())
