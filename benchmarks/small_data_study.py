"""Trains every method of the small-data study, several seeds each, and goes on where it was interrupted.

python benchmarks/small_data_study.py run --runs runs/small_data --workers 2
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "cifar100_50_per_class.yaml"

# name -> what differs from the recipe; the first rows are the study, the others are there to explain it.
ROWS: dict[str, dict[str, object]] = {
    "independent": {},
    "dualnet": {"method": {"name": "dualnet"}},
    "dml": {"method": {"name": "dml"}},
    "one": {"method": {"name": "one"}, "share_until": "stage2"},
    "ffl": {"method": {"name": "ffl"}, "share_until": "stage2"},
    "ffl-apart": {"method": {"name": "ffl"}},
    "independent-trunk": {"share_until": "stage2"},
    "dualnet-together": {"method": {"name": "dualnet", "alternate": False}},
    "dml-t3": {"method": {"name": "dml", "temperature": 3.0}},
}


def run_one(row: str, seed: int, run: Path) -> None:
    """One run in this process."""
    import dataclasses

    from collegium.training.loop import train
    from collegium.training.recipe import Recipe

    train(dataclasses.replace(Recipe.read(RECIPE), seed=seed, **ROWS[row]), run, quiet=True)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "one"])
    parser.add_argument("--runs", type=Path, default=Path("runs/small_data"))
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    rows, seeds = options.rows.split(","), [int(seed) for seed in options.seeds.split(",")]
    if options.command == "one":
        run_one(rows[0], seeds[0], options.runs / f"{rows[0]}-{seeds[0]}")
        return

    def start(job: tuple[int, str]) -> int:
        seed, row = job
        here = [sys.executable, __file__, "one", "--runs", str(options.runs), "--rows", row, "--seeds", str(seed)]
        status = subprocess.run(here, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        print(row, seed, "done" if status == 0 else f"failed with status {status}", flush=True)
        return status

    with ThreadPoolExecutor(options.workers) as pool:
        statuses = list(pool.map(start, [(seed, row) for seed in seeds for row in rows]))
    sys.exit(max(statuses))


if __name__ == "__main__":
    main()
