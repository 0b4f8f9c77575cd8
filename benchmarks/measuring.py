"""What the benchmarks of speed share: taking turns, counting bytes, keeping rows, and tables."""

import json
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from collegium.files import write_whole
from collegium.training.engine import make_fabric
from collegium.training.memory import keep_freed_memory
from collegium.training.provenance import provenance
from collegium.training.recipe import Recipe

Row = dict[str, Any]

COMPARABLE = ("device", "threads", "torch")  # what the provenance of two rows must agree in


def repeated(step: Callable[[], None], count: int) -> Callable[[], None]:
    """Several steps as one."""

    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def median_seconds(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Of each contender; they take turns, and the first round warms up. One may say itself how long it took.

    Memory that one frees stays with the process for all of them, as it does in training.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with keep_freed_memory():
        for turn in range(rounds + 1):
            for name, contender in contenders.items():
                begun = time.perf_counter()
                told = contender()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:
                    seconds[name].append(told if isinstance(told, float) else time.perf_counter() - begun)
    return {name: median(times) for name, times in seconds.items()}


class Taken(NamedTuple):
    """Seconds that processes took, and those of the CPUs."""

    clock: float
    cpu: float

    def __add__(self, other: "Taken") -> "Taken":  # type: ignore[override]  # not a longer tuple
        return Taken(self.clock + other.clock, self.cpu + other.cpu)


def taken_by(command: Sequence[str]) -> Taken:
    """A process from its start to its end, with what it starts itself. What it prints is dropped unless it fails."""
    begun, used = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    taken = Taken(time.perf_counter() - begun, _cpu_of_children() - used)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    return taken


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def described() -> Row:
    """The machine and the versions, as a file of results has them."""
    return {"provenance": provenance(torch.device("cpu"))}


def training_state(module: nn.Module, optimizers: Iterable[Optimizer]) -> int:
    """Bytes of all parameters, buffers, gradients and optimizer state, each storage counted once."""
    parameters = list(module.parameters())
    held = [*parameters, *module.buffers(), *(p.grad for p in parameters if p.grad is not None)]
    for optimizer in optimizers:
        held += [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return sum(dict(map(_storage, held)).values())


def step_flops(step: Callable[[], object]) -> int:
    """What torch counts in a step that is not compiled: matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def step_memory(step: Callable[[], None], module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Bytes that a step takes besides what stays after it; it must have run before.

    On a GPU the most that is allocated during the step, over what was before it. On a CPU what autograd keeps for the
    backward pass, each storage counted once, without the module's parameters and buffers and the inputs.
    """
    if inputs[0].device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.update([_storage(tensor)])
        return tensor.detach()  # the tensor itself would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    known = dict(map(_storage, [*module.parameters(), *module.buffers(), *inputs]))
    return sum(size for place, size in kept.items() if place not in known)


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Its place and its bytes."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def measure_missing(
    file: Path | None,
    jobs: Sequence[Row],
    measure: Callable[[Row], Row],
    show: Callable[[Row], str],
    *,
    device: str,
    overwrite: bool,
) -> list[Row]:
    """A row for every job: the job, what ``measure`` finds in a fresh process, and the provenance.

    Rows are written after every job. Those that the file holds already, of the same job on a like machine, are taken
    from it, or replaced where they are to be overwritten. A job that fails is told and has no row.
    """
    where = provenance(make_fabric(Recipe(device=device)).device)  # type: ignore[arg-type]
    rows: list[Row] = []
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            rows = json.loads(file.read_text())

    def found(job: Row) -> list[Row]:
        like = [row for row in rows if all(row["provenance"][name] == where[name] for name in COMPARABLE)]
        return [row for row in like if job.items() <= row.items()]

    missing: list[Row] = []
    for job in jobs:
        if job not in missing and (overwrite or not found(job)):
            missing.append(job)
    for job in missing:
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                measured = pool.submit(measure, job).result()
        except Exception as error:  # memory or a compiler is missing, or the process was killed
            print(f"{job} failed. {type(error).__name__}: {error}", flush=True)
            continue
        row, before = job | measured | {"provenance": where}, found(job)
        if before:
            rows[rows.index(before[0])] = row
        else:
            rows.append(row)
        print(show(row), flush=True)
        if file is not None:
            write_whole(file, json.dumps(rows, indent=2) + "\n")
    return [found(job)[0] for job in jobs if found(job)]


def origin(rows: Sequence[Row]) -> str:
    """A line that says where rows come from."""
    where = rows[0]["provenance"]
    threads = f"{where['threads']} thread{'s' * (where['threads'] > 1)}"
    precisions = " and ".join(dict.fromkeys(row["precision"] for row in rows))
    commits = " and ".join(dict.fromkeys(row["provenance"]["commit"] for row in rows))
    return f"{where['device']}, {threads}, torch {where['torch']}, {precisions}, commit {commits}."


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """In Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def write_readme(folder: Path, lines: Sequence[str]) -> None:
    """The lines, and the discussion that lies beside them."""
    discussion = folder / "discussion.md"
    more = ["", discussion.read_text().strip()] if discussion.exists() else []
    (folder / "README.md").write_text("\n".join([*lines, *more]) + "\n")
