"""What a run shows while it trains: what is trained, a bar on a terminal and in a notebook, a line for each epoch."""

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from collegium.cohort import is_peer
from collegium.formatting import duration, percent, printable

Part = tuple[int, str]
"""Part of a line, and its rank: where there is no room, the parts of the highest ranks are left out."""


class Display:
    """Shows a run on standard error. Accuracies are in percent, as on the pages.

    The bar is drawn again by :meth:`step` alone, without a thread. Elsewhere than on a terminal or in a notebook there
    is no bar, and the lines are as long as they are.

    Args:
        epochs: of the whole run.
        steps: of an epoch.
        deployed: the peer whose accuracy comes first.
        split: whose accuracies are shown, "validation" or "test".
        quiet: show nothing.
        console: by default standard error.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        deployed: str,
        split: str,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet) if console is None else console
        self.epochs, self.steps, self.deployed, self.split = epochs, steps, deployed, split
        widgets = self.console.is_jupyter and find_spec("ipywidgets") is not None
        self.has_bar = (self.console.is_interactive or widgets) and not self.console.quiet
        self.epoch = 1  # the one that is trained
        self.done = self.begun_at = 0.0  # epochs
        self.begun = time.monotonic()
        self.speed = 0.0  # images a second
        self.status: list[Part] = []
        self.live = Live(console=self.console, get_renderable=self._bar, auto_refresh=False, transient=True)

    def begin(
        self, overview: Sequence[tuple[str, str]], notes: Sequence[str], epoch: int, step: int, *, stopped: bool = False
    ) -> None:
        """Shows what is trained, and where it goes on.

        Args:
            overview: names and what is to be said of them.
            notes: sentences that a reader of the scores must know.
            epoch: epochs that are complete.
            step: steps of the next one that are.
            stopped: whether the run had stopped early.
        """
        table = Table.grid(padding=(0, 2))
        rows = list(overview)
        if epoch == self.epochs:
            rows.append(("goes on", "after the last epoch"))
        elif stopped:
            rows.append(("stopped", f"early, after epoch {epoch} of {self.epochs}; the result is left to be written"))
        elif epoch or step:
            at = f", step {step + 1} of {self.steps}" if step else ""
            rows.append(("goes on", f"at epoch {epoch + 1} of {self.epochs}{at}"))
        for name, text in rows:
            table.add_row(Text(name, style="bold"), Text(printable(text)))
        if self.has_bar:
            self.console.print(table)
        else:
            width = max((len(name) for name, _ in rows), default=0)
            for name, text in rows:
                self.note(f"{name:<{width}}  {text}")
        for note in notes:
            self.note(note)
        self.epoch, self.done = epoch + 1, epoch + step / self.steps
        self.begun_at = self.done
        self.begun = time.monotonic()

    def __enter__(self) -> "Display":
        if self.has_bar:
            self.live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.has_bar:
            self.live.stop()

    def step(self, epoch: int, step: int, speed: float, total_loss: float, accuracy: Mapping[str, float]) -> None:
        """Shows how far the training of an epoch has come.

        Args:
            epoch: epochs that are complete.
            step: steps of the next one that are.
            speed: images a second.
            total_loss: mean over the epoch's steps so far of the sum of all terms of all players.
            accuracy: predictor -> share of correct answers on the epoch's training images so far.
        """
        self.epoch, self.done, self.speed = epoch + 1, epoch + step / self.steps, speed
        self.status = [(0, f"step {step}/{self.steps}"), *self._scores("training", accuracy)]
        self.status.append((2, f"total loss {total_loss:.3f}"))
        if self.has_bar:
            self.live.refresh()

    def epoch_ended(self, row: Mapping[str, float], total_loss: float, seconds: float) -> None:
        """Shows the line of an epoch, which stays.

        Args:
            row: of metrics.csv.
            total_loss: mean over the epoch's steps of the sum of all terms of all players.
            seconds: since the beginning of the run.
        """
        prefix, suffix = f"{self.split}/", "/top1_error"
        errors = {
            key.removeprefix(prefix).removesuffix(suffix): value
            for key, value in row.items()
            if key.startswith(prefix) and key.endswith(suffix)
        }
        accuracy = {name: 1 - error for name, error in errors.items() if name != "mean_peer"}
        parts = [(0, f"epoch {int(row['epoch']):>{len(str(self.epochs))}}/{self.epochs}")]
        parts += self._scores(self.split, accuracy)
        parts += [(2, f"total loss {total_loss:.3f}"), (3, duration(seconds))]
        self.note(fitted(parts, self.console.width if self.has_bar else None))

    def _scores(self, split: str, accuracy: Mapping[str, float]) -> list[Part]:
        """The deployed network first, then what joins the peers, then the other peers."""
        peers = [name for name in accuracy if is_peer(name) and name != self.deployed]
        names = [name for name in accuracy if name == self.deployed]
        if peers or len(accuracy) > 2:  # else the ensemble is the one peer
            names += [name for name in accuracy if name not in (*names, *peers)] + peers
        texts = [f"{name} {percent(accuracy[name])} %" for name in names]
        return [(1 if k == 0 else 3 + k, text if k else f"{split} accuracy {text}") for k, text in enumerate(texts)]

    def _bar(self) -> Group:
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        left = self.seconds_left()
        right = [f"{100 * self.done / self.epochs:.0f} %"]
        right += [] if left is None else [f"{duration(left)} left"]
        right += [f"{self.speed:,.0f} images/s"] if self.speed else []
        table.add_row(
            Text(f"epoch {self.epoch}/{self.epochs}"),
            ProgressBar(total=self.epochs, completed=self.done),
            Text("  ".join(right)),
        )
        return Group(table, Text(fitted(self.status, self.console.width), no_wrap=True, overflow="ellipsis"))

    def seconds_left(self) -> float | None:
        """By the pace since the beginning, evaluations and all; None where nothing has been done yet."""
        done = self.done - self.begun_at
        return (time.monotonic() - self.begun) / done * (self.epochs - self.done) if done > 0 else None

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(Text(printable(text)), soft_wrap=True)


def fitted(parts: Sequence[Part], width: int | None) -> str:
    """The parts in one line of at most so many characters, where the first one has as many."""
    kept = list(parts)
    while width is not None and len(kept) > 1 and len("  ".join(text for _, text in kept)) > width:
        kept.remove(max(kept, key=lambda part: part[0]))
    return "  ".join(text for _, text in kept)
