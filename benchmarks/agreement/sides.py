"""What the comparisons share: random batches, both sides of a comparison, and the rows that come of them."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from clones import Clone, Repository
from differences import Row, gradients, relative, rounded, verdict
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs, TeacherOutputs
from collegium.method import Method, Progress, Terms

Shape = tuple[int, ...]
BATCH, CLASSES = 6, 10


class Side(NamedTuple):
    """What one of two computations gives."""

    value: Sequence[Tensor]
    gradient: Sequence[Tensor] | None = None


class Comparison:
    """A method beside the code of one repository."""

    def __init__(self, method: str, folder: Path, repository: Repository) -> None:
        self.method = method
        self.clone = Clone(folder, repository)
        self.load = self.clone.load
        self.rows: list[Row] = []

    def record(self, compared: str, theirs: Side, ours: Side, *, changed: str = "") -> None:
        """Adds a row; ``changed`` says what is not as it is in the repository, or by default in Collegium."""
        value = relative(theirs.value, ours.value) if theirs.value else None
        both = None if theirs.gradient is None or ours.gradient is None else (theirs.gradient, ours.gradient)
        gradient = None if both is None else relative(*both)
        repository = self.clone.repository
        self.rows.append(
            Row(
                self.method,
                repository.address,
                repository.commit[:12],
                compared,
                changed,
                rounded(value),
                rounded(gradient),
                verdict(value, gradient),
            )
        )


def of(loss: Tensor, leaves: Iterable[Tensor]) -> Side:
    """A loss, with its gradient for each leaf."""
    return Side([loss], gradients(loss, list(leaves)))


def left_in(loss: float | Tensor, leaves: Iterable[Tensor]) -> Side:
    """A loss, with the gradients that a backward pass left in the leaves."""
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    return Side([torch.as_tensor(loss)], found)


def random(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape) * scale


def logits(*shape: int) -> nn.Parameter:
    """Of some (B, C), as trained networks have them: far from uniform."""
    return nn.Parameter(random(*shape, scale=3.0))


def labels(batch: int = BATCH, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (batch,))


def spec(
    peers: int = 2,
    *,
    classes: int = CLASSES,
    maps: Sequence[Shape] = (),
    teacher: Sequence[Shape] | None = None,
) -> CohortSpec:
    """Peers of one kind with these maps."""
    return CohortSpec(
        names=("net",) * peers,
        num_classes=classes,
        feature_shapes=(tuple(maps),) * peers,
        teacher_shapes=None if teacher is None else tuple(teacher),
    )


def says(
    peers: Sequence[Tensor], *, maps: Sequence[Sequence[Tensor]] | None = None, teacher: Any = None
) -> PeerOutputs:
    """Outputs of peers with these logits, and of a teacher with these logits or (logits, maps)."""
    if isinstance(teacher, Tensor):
        teacher = (teacher, ())
    return PeerOutputs(
        logits=torch.stack(list(peers)),
        features=tuple(map(tuple, maps or [()] * len(peers))),
        teacher=None if teacher is None else TeacherOutputs(teacher[0], tuple(teacher[1])),
    )


def progress(epoch: float, epochs: float = 300) -> Progress:
    return Progress(*(torch.tensor(float(x)) for x in (epoch, epochs, epoch / epochs)))


def terms(method: Method, out: PeerOutputs, target: Tensor, now: Progress | None = None) -> Terms:
    """All terms of all players by their names."""
    found: dict[str, Terms] = method(out, target, now or progress(0))
    return {name: term for own in found.values() for name, term in own.items()}


def total(found: Terms, *names: str) -> Tensor:
    return torch.stack([found[name] for name in names or found]).sum()


class Table(nn.Module):
    """A network that says what its weights are, whatever it sees: gradients for logits and maps are those of weights.

    Called as the code of the repositories calls networks: with other arguments, or for (maps, logits).
    """

    def __init__(self, logits: nn.Parameter, maps: Sequence[nn.Parameter] = ()) -> None:
        super().__init__()
        self.logits, self.maps = logits, nn.ParameterList(maps)

    def forward(self, *_: Any, is_feat: bool = False, **__: Any) -> Any:
        return (list(self.maps), self.logits) if is_feat else self.logits


class Meter:
    """Takes the place of the counters that training scripts keep; knows the newest number."""

    def __init__(self, *_: Any) -> None:
        self.val = self.avg = 0.0

    def update(self, value: Any, *_: Any, **__: Any) -> None:
        self.val = self.avg = float(value)

    def value(self) -> float:
        return self.avg


class Bar:
    """Takes the place of a progress bar."""

    def __init__(self, over: Any = None, **_: Any) -> None:
        self.over = over

    def __iter__(self) -> Iterator[Any]:
        return iter(self.over)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


class Batches(list[Any]):
    """Takes the place of a data loader."""

    dataset = range(20)
    drop_last = False
    batch_size = 1


def no_accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    return [torch.zeros(1) for _ in topk]


def options(**values: Any) -> SimpleNamespace:
    """In place of a parsed command line."""
    return SimpleNamespace(**values)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def standing(parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
    """An optimizer that moves nothing, so that gradients can be read after its step."""
    return torch.optim.SGD(list(parameters), lr=0.0)


def copied(theirs: Sequence[nn.Module | Tensor], ours: Sequence[nn.Module | Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Gives ours the weights and statistics of theirs, in the order in which both hold them; the pairs of weights."""
    pairs = list(zip(_parameters(theirs), _parameters(ours), strict=True))
    statistics = zip(_statistics(theirs), _statistics(ours), strict=True)
    with torch.no_grad():
        for a, b in [*pairs, *statistics]:
            b.copy_(a.view_as(b))
    return pairs


def _parameters(held: Sequence[nn.Module | Tensor]) -> list[Tensor]:
    return [p for x in held for p in (x.parameters() if isinstance(x, nn.Module) else [x])]


def _statistics(held: Sequence[nn.Module | Tensor]) -> list[Tensor]:
    modules = [x for x in held if isinstance(x, nn.Module)]
    return [b for module in modules for b in module.buffers() if b.is_floating_point()]


def state(held: Sequence[nn.Module | Tensor]) -> Side:
    """Weights and running statistics."""
    return Side([x.detach().clone() for x in (*_parameters(held), *_statistics(held))])
