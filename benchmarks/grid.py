"""Runs of a study, several at a time, each in a process with one thread; what is complete is not trained again."""

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any


def train_all(jobs: Iterable[tuple[Path, dict[str, Any]]], workers: int) -> None:
    """Trains every (run folder, keywords of ``collegium.train``), in order of the jobs."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for run, seconds in pool.map(_train, jobs):
            print(f"{run}  {seconds:.1f} s", flush=True)


def _train(job: tuple[Path, dict[str, Any]]) -> tuple[Path, float]:
    import collegium

    run, keywords = job
    return run, collegium.train(run=run, quiet=True, **keywords)["training_seconds"]


def spread(values: list[float], *, sign: bool = False, digits: int = 2) -> str:
    """``"31.42 ± 0.20"``, without the deviation where there is one value."""
    if not values:
        return ""
    mean = f"{fmean(values):{'+' if sign else ''}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"
