"""The page of results/speed, from what short_runs.py, answers.py, photographs.py and scenes.py have left there.

python benchmarks/speed.py [FOLDER]
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measuring import table, write_readme

Cells = Iterator[list[str]]


def _short_runs(content: dict[str, Any]) -> Cells:
    one, separate = (content["seconds a run"][name] for name in ("one study", "separate commands"))
    what = f"{content['runs']} runs of two epochs on 200 digits, one after the other: seconds a run"
    for unit, key in (("", "clock"), (", of the CPU", "cpu")):
        numbers = [f"{one[key]:.2f}", f"{separate[key]:.2f}", f"{separate[key] / one[key]:.1f} ×"]
        yield [what + unit, "a `collegium train` command for each, the same bits", *numbers]


def _photographs(content: dict[str, Any]) -> Cells:
    for row in content["rows"]:
        found, own = row["found"], row["found"]["collegium"]["images_per_second"]
        other = max((name for name in found if name != "collegium"), key=lambda n: found[n]["images_per_second"])
        theirs = found[other]["images_per_second"]
        workers = f"{row['workers']} process" + "es" * (row["workers"] > 1)
        what = f"JPEG files of {row['megapixels']:g} megapixels for {row['task']}, {workers}: images a second"
        yield [
            what,
            f"{other}, the faster of timm and torchvision",
            f"{own:.0f}",
            f"{theirs:.0f}",
            f"{own / theirs:.2f} ×",
        ]


def _scenes(content: dict[str, Any]) -> Cells:
    for row in content["rows"]:
        tiles, patches = row["seconds"]["tiles"], row["seconds"]["patches"]
        what = (
            f"All 21,025 pixels of a scene scored by {row['network']}, patches of {row['patch']} x {row['patch']} and "
            f"{row['channels']} channels: seconds"
        )
        yield [what, "patch by patch", f"{tiles:.1f}", f"{patches:.1f}", f"{patches / tiles:.1f} ×"]


def _answers(content: dict[str, Any]) -> list[str]:
    heads = ["command", "seconds", "of them over `import torch`", "CPU seconds"]
    rows = ([row["command"], *(f"{row[key]:.2f}" for key in ("seconds", "own", "cpu"))] for row in content["rows"])
    return table(heads, rows)


COMPARED: dict[str, Callable[[dict[str, Any]], Cells]] = {
    "short_runs": _short_runs,
    "photographs": _photographs,
    "scenes": _scenes,
}


def write_page(folder: Path) -> None:
    """README.md of what has been measured."""
    known = {name: folder / f"{name}.json" for name in (*COMPARED, "answers")}
    content = {name: json.loads(file.read_text()) for name, file in known.items() if file.exists()}
    rows = [row for name, cells in COMPARED.items() if name in content for row in cells(content[name])]
    heads = ["what", "against", "Collegium", "the other", "ratio"]
    lines = ["# Where a user waits", "", "Each line is of one run of `benchmarks/`, in which both took turns.", ""]
    lines += [*table(heads, rows), ""]
    if "answers" in content:
        told = "Until the first answer of a command, its process from start to end; medians (`benchmarks/answers.py`):"
        lines += [told, "", *_answers(content["answers"]), ""]
    for name, found in content.items():
        where = found["provenance"]
        lines.append(f"{name}: {where['device']}, torch {where['torch']}, commit {where['commit']}.  ")
    write_readme(folder, lines)


if __name__ == "__main__":
    write_page(Path(sys.argv[1] if len(sys.argv) > 1 else "results/speed"))
