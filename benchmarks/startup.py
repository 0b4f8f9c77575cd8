"""How long it takes to start: what the imports cost, and a run until its first optimizer step.

python benchmarks/startup.py [--data digits] [--method ffl] [--peers 2xresnet20] [--rounds 7] [--out results/startup]

Each measurement is a process of its own, which ends at once when it has done what is measured. Those of a round follow
one another, and a first round, which is not counted, brings the files into memory. CPU seconds are those of the process
and of what it starts; they tell more than the clock on a machine that does other things meanwhile. All numbers are
medians over the rounds, the differences too.

import torch      alone
import collegium  and torch; what the package offers is loaded on first use
every name        of those that the package offers, loaded
first step        `collegium train` on the CPU, without torch.compile, until its first optimizer step is done
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from measuring import Taken, taken_by

END = "; import os; os._exit(0)"  # what the interpreter tidies up at its end is no part of starting
IMPORTS = {
    "import torch": "import torch",
    "import collegium": "import torch, collegium",
    "every name": "import torch, collegium; [getattr(collegium, name) for name in collegium.__all__]",
}
FIRST_STEP = """
import os, sys

import torch  # loaded before, as in the others

from collegium.cli import main
from collegium.training.loop import Run

whole_step = Run.train_step


def first_step(self, *given):
    whole_step(self, *given)
    os._exit(0)


Run.train_step = first_step
main(sys.argv[1:])
"""


def measure(code: str, *arguments: str) -> Taken:
    """A process that runs some code, from its start to its end."""
    return taken_by([sys.executable, "-c", code, *arguments])


def measure_all(train: list[str], rounds: int) -> dict[str, list[Taken]]:
    """What is measured -> each round's seconds."""
    taken: dict[str, list[Taken]] = {name: [] for name in (*IMPORTS, "first step")}
    for turn in range(rounds + 1):
        found = {name: measure(code + END) for name, code in IMPORTS.items()}
        with tempfile.TemporaryDirectory() as folder:
            found["first step"] = measure(FIRST_STEP, "train", *train, "--run", f"{folder}/run")
        for name, seconds in found.items() if turn else ():
            taken[name].append(seconds)
    return taken


def markdown(taken: dict[str, list[Taken]]) -> list[str]:
    """Seconds, and how many more than `import torch` of the same round."""
    lines = ["| until | seconds | CPU seconds | more than torch: seconds | CPU seconds |", "|" + "---|" * 5]
    for name, rounds in taken.items():
        pairs = list(zip(rounds, taken["import torch"], strict=True))
        cells = [median(s[k] for s in rounds) for k in (0, 1)]
        cells += [median(s[k] - torch[k] for s, torch in pairs) for k in (0, 1)]
        lines.append(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--method", default="ffl")
    parser.add_argument("--peers", default="2xresnet20")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipe = {name: getattr(options, name) for name in ("data", "method", "peers")}
    train = [f"--{name}={value}" for name, value in recipe.items()]
    taken = measure_all([*train, "--device=cpu", "--quiet"], options.rounds)
    table = markdown(taken)
    print("\n".join(table))
    if options.out:
        import torch

        from collegium.training.provenance import provenance

        where = provenance(torch.device("cpu"))
        content: dict[str, Any] = {
            "recipe": recipe,
            "provenance": where,
            "seconds": {name: [s._asdict() for s in rounds] for name, rounds in taken.items()},
        }
        machine = f"{where['device']}, {where['threads']} threads, torch {where['torch']}, `{' '.join(train)}`."
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "startup.json").write_text(json.dumps(content, indent=2) + "\n")
        (options.out / "README.md").write_text("\n".join(["# Starting", "", machine, "", *table]) + "\n")


if __name__ == "__main__":
    main()
