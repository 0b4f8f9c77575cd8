"""Many short runs: one `collegium compare` against a `collegium train` command for each, in turns.

python benchmarks/short_runs.py [--runs 100] [--turns 4] [--out results/speed]

All runs train two ResNet-8 by DML for two epochs on 200 digits, one thread each, one after the other. The runs are
divided into turns: in each the study computes its part, and then the separate commands do theirs, so that both meet
what else the machine does. The weights of every pair of runs must be the same bits.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from measuring import Taken, described, taken_by
from speed import write_page

from collegium.study.study import Study

OPTIONS = ["--peers", "2xresnet8", "--data.per-class", "20", "--epochs", "2", "--batch-size", "32", "--device", "cpu"]
COLLEGIUM = [sys.executable, "-m", "collegium"]


def measured(folder: Path, runs: int, turns: int) -> dict[str, Taken]:
    """Seconds of all runs, by one study and by separate commands."""
    total = {"one study": Taken(0.0, 0.0), "separate commands": Taken(0.0, 0.0)}
    for turn in range(turns):
        seeds = list(range(runs * turn // turns, runs * (turn + 1) // turns))
        study = [*COLLEGIUM, "compare", "--methods", "dml", *OPTIONS, "--workers", "1", "--quiet"]
        study += ["--study", str(folder / f"study{turn}"), "--seeds", ",".join(map(str, seeds))]
        total["one study"] += taken_by(study)
        for seed in seeds:
            alone = [*COLLEGIUM, "train", "--method", "dml", *OPTIONS, "--quiet", "--seed", str(seed)]
            total["separate commands"] += taken_by([*alone, "--run", str(folder / f"run{seed}")])
        whole = Study.open(folder / f"study{turn}")
        for cell in whole.cells:
            places = whole.run_folder(cell).path, folder / f"run{cell.seed}"
            bits = {(place / "peers" / "peer0" / "model.safetensors").read_bytes() for place in places}
            if len(bits) > 1:
                raise SystemExit(f"seed {cell.seed} has other weights in the study than by itself")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    # A study with one worker gives it all cores, and another number of threads has other bits.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), options.runs, options.turns)
    per_run = {name: Taken(*(x / options.runs for x in taken)) for name, taken in found.items()}
    for name, taken in per_run.items():
        print(f"{name:<18} {taken.clock:6.2f} s a run, {taken.cpu:6.2f} CPU s")
    ratio = found["separate commands"].clock / found["one study"].clock
    print(f"the study is {ratio:.1f} times as fast; the same bits in all {options.runs} pairs")
    if options.out:
        content = {"runs": options.runs, "seconds a run": {n: t._asdict() for n, t in per_run.items()}, **described()}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "short_runs.json").write_text(json.dumps(content, indent=2) + "\n")
        write_page(options.out)


if __name__ == "__main__":
    main()
