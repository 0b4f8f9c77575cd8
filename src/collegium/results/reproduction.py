"""A paper's table trained again and set beside the published values."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from collegium.errors import UsageError
from collegium.files import check_can_make, write_whole
from collegium.pages.paper_page import page
from collegium.pages.paper_table import Reproduction
from collegium.results.papers import PaperTable, get
from collegium.study.executors.local import Executor, LocalExecutor
from collegium.study.study import Study


def reproduce(
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    scale: float = 1.0,
    study: str | Path | None = None,
    only: str = "",
    train: bool = True,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    compile: bool = False,
    cuda_graphs: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    quiet: bool = False,
) -> tuple[Reproduction, Path | None]:
    """Trains a paper's table, or goes on where the same call was interrupted, and sets it beside the published values.

    Args:
        name: of the table, as ``collegium list tables`` shows it.
        seeds: every row is trained with each.
        scale: below 1 a trial: this share of the epochs and of each class's training images.
        study: the study's folder; by default studies/PAPER/TABLE, which tables of the same runs share.
        only: train only the rows whose names hold all these words.
        train: False sets what the folder holds beside the published values and trains nothing.
        precision: of the networks' arithmetic; the papers' is fp32. The table says another.
        compile: compile the training step.
        cuda_graphs: replay what is compiled as CUDA graphs.
        workers: so many runs at once; by default as many as cores and memory allow.
        executor: where to train; by default this machine's processes.
        quiet: show nothing meanwhile.

    Returns:
        The table, and the study's folder, where its files are; None where nothing of the table can be trained.

    Raises:
        UsageError: there is no such table, the scale does not fit, or no row has such a name; nothing is written.
        DataError: the data cannot be read; nothing is written.
        Interrupted: training was stopped and has saved its state.
    """
    if study is not None:
        check_can_make(study)
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be 1 or more, got {workers}")
    if workers is not None and executor is not None:
        raise UsageError("workers is a number of processes on this machine; leave it out with another executor")
    table = get(name)
    computed: dict[str, Any] = {"precision": precision, "compile": compile, "cuda_graphs": cuda_graphs}
    cells = [
        dataclasses.replace(cell, recipe=dataclasses.replace(cell.recipe, **computed))
        for cell in table.cells(seeds, scale)
    ]
    if not cells:
        return Reproduction(table, scale, []), None
    wanted = [cell for cell in cells if all(word in cell.label for word in only.split())]
    if not wanted:
        raise UsageError(f"no row of {name} is called {only!r}: {'; '.join(dict.fromkeys(c.label for c in cells))}")
    taught = {cell.teacher for cell in wanted}
    wanted = [cell for cell in cells if cell in wanted or cell.label in taught]
    folder = Path(study) if study is not None else default_study(table, scale)
    if not train and not (folder / "study.yaml").is_file():
        return Reproduction(table, scale, []), None
    grid = Study(folder, wanted) if train else Study.open(folder)
    outcomes = grid.run(executor or LocalExecutor(workers), quiet=quiet) if train else grid.outcomes()
    found = Reproduction(table, scale, outcomes)
    write(found, grid.folder)
    return found, grid.folder


def default_study(table: PaperTable, scale: float) -> Path:
    """Where the runs of a table go; those of a trial to a folder that says so."""
    return Path("studies") / (table.study if scale == 1 else f"{table.study}-trial-{scale:g}")


def write(found: Reproduction, folder: Path) -> list[Path]:
    """Writes it as Markdown, CSV and a page, and returns where they are."""
    files = {".md": found.markdown(), ".csv": found.as_csv(), ".html": page(found)}
    for ending, text in files.items():
        write_whole(folder / f"{found.stem}{ending}", text)
    return [folder / f"{found.stem}{ending}" for ending in files]
