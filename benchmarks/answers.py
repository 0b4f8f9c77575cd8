"""How long a user waits for the first answer of every command.

python benchmarks/answers.py [--rounds 5] [--runs 1000] [--out results/speed]

Each measurement is a process from its start to its end. Its *own* seconds are those over `import torch` in the same
round, which none can do without but those that need no networks. Medians over the rounds; a round before them brings
the files into memory. The study that is shown and ranked has so many runs: one that was trained, with other seeds.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from measuring import Taken, described, taken_by
from PIL import Image
from speed import write_page

from collegium.files import write_checked
from collegium.study.cell import Cell
from collegium.study.study import Study
from collegium.training.experiment import resolve
from collegium.training.recipe import Recipe
from collegium.training.run import train
from collegium.training.run_folder import RunFolder
from collegium.yaml_text import write_yaml

TORCH = "import torch"


def trained(folder: Path) -> Recipe:
    """A run of two small networks that the commands are asked about."""
    recipe = Recipe.from_dict({"method": "dml", "peers": "2xresnet8", "epochs": 1, "batch_size": 64, "device": "cpu"})
    train(recipe, folder, quiet=True)
    return recipe


def studied(folder: Path, run: Path, recipe: Recipe, runs: int) -> None:
    """A study of so many runs, half of them called independent, which all have the scores of one, moved a little."""
    cells = [
        Cell(f"{method} · {recipe.peers}", Recipe.from_dict(recipe.to_dict() | {"method": method, "seed": seed}))
        for method in ("independent", "dml")
        for seed in range(runs // 2)
    ]
    study = Study(folder, cells, reference={cells[-1].label: cells[0].label})
    study.write()
    known = RunFolder(run)
    result = json.loads(known.result_file.read_text())
    rng = np.random.default_rng(0)
    for cell in study.cells:
        own = study.run_folder(cell)
        own.path.mkdir(parents=True)
        moved = result["mean_peer"]["last"]["top1_error"] + rng.normal(0, 0.01)
        own_result = json.loads(json.dumps(result | {"seed": cell.seed, "method": cell.recipe.method_name}))
        own_result["mean_peer"]["last"]["top1_error"] = float(moved)
        own.recipe_file.write_text(write_yaml(resolve(cell.recipe).to_dict()))
        own.metrics_file.write_bytes(known.metrics_file.read_bytes())
        write_checked(own.result_file, json.dumps(own_result))


def commands(folder: Path, runs: int) -> dict[str, list[str]]:
    """What is measured -> its command."""
    collegium = [sys.executable, "-m", "collegium"]
    run, study = str(folder / "run"), str(folder / "study")
    return {
        TORCH: [sys.executable, "-c", TORCH],
        "--help": [*collegium, "--help"],
        "train --help": [*collegium, "train", "--help"],
        "list methods": [*collegium, "list", "methods"],
        "list networks": [*collegium, "list", "networks"],
        "predict one image": [*collegium, "predict", run, str(folder / "image.png")],
        "evaluate": [*collegium, "evaluate", run],
        "export to ONNX": [*collegium, "export", run, "--format", "onnx", "--out", str(folder / "peer0.onnx")],
        "report": [*collegium, "report", run],
        f"compare, {runs} runs": [*collegium, "compare", study],
        f"rank, {runs} runs": [*collegium, "rank", str(folder)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["COLUMNS"] = "120"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studied(folder / "study", folder / "run", trained(folder / "run"), options.runs)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "image.png")
        taken: dict[str, list[Taken]] = {}
        for turn in range(options.rounds + 1):
            for what, command in commands(folder, options.runs).items():
                (folder / "peer0.onnx").unlink(missing_ok=True)
                found = taken_by(command)
                if turn:
                    taken.setdefault(what, []).append(found)
    rows = []
    for what, seconds in taken.items():
        own = [s.clock - torch.clock for s, torch in zip(seconds, taken[TORCH], strict=True)]
        row = {"command": what, "seconds": median(s.clock for s in seconds), "own": median(own)}
        rows.append(row | {"cpu": median(s.cpu for s in seconds)})
        print(f"{what:<22} {rows[-1]['seconds']:6.2f} s, own {rows[-1]['own']:6.2f}, CPU {rows[-1]['cpu']:6.2f}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "answers.json").write_text(json.dumps({"rows": rows, **described()}, indent=2) + "\n")
        write_page(options.out)


if __name__ == "__main__":
    main()
