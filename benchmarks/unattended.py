"""Speed on this machine, then the FFL paper's tables at full length, for as many minutes as there are.

python benchmarks/unattended.py FOLDER --minutes 25 [--seeds 0,1,2]

Everything is written beneath FOLDER as it comes. When time is up the runs save their state and stop, and the same
command, on another machine too, goes on where they were. The images of CIFAR-100 are found by COLLEGIUM_DATA.

throughput            benchmarks/throughput.py, eager
throughput_compiled   the same with compiled steps, of a few methods at the smallest batch, for compiling takes minutes
throughput_graphs     and with those replayed as CUDA graphs, where there is a GPU
table1                ffl/table1a and ffl/table1b with ResNet-32, every row with every seed, as many runs at once as
                      memory holds; both tables as Markdown, CSV and pages, of the runs that are complete
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

GRACE = 60.0  # seconds in which what is told to stop may save its state
HERE = Path(__file__).parent
COLLEGIUM = [sys.executable, "-m", "collegium.cli"]


def stages(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """What is done, in order: name -> command."""
    gpu = torch.cuda.is_available()
    script = [sys.executable, str(HERE / "throughput.py"), "--peers", options.speed_peers]
    script += ["--steps", "20" if gpu else "6"]  # what an epoch costs besides its steps is spread over so many
    speed = [*script, "--methods", options.methods, "--batch-size", options.batch_size]
    compiled = [*script, "--methods", options.compiled_methods, "--batch-size", options.batch_size.partition(",")[0]]
    compiled += ["--compile", "--no-obvious"]
    train = [*COLLEGIUM, "reproduce", "ffl/table1b", "--only", options.only, "--seeds", options.seeds]
    train += ["--scale", options.scale, "--study", str(folder / "table1"), "--quiet", *shlex.split(options.how)]
    found = {
        "throughput": [*speed, "--out", str(folder / "throughput")],
        "throughput_compiled": [*compiled, "--out", str(folder / "throughput_compiled")],
    }
    if gpu:
        found["throughput_graphs"] = [*compiled, "--cuda-graphs", "--out", str(folder / "throughput_graphs")]
    return found | {"table1": train}


def run(command: list[str], log: Path, deadline: float) -> int | None:
    """The exit status of a command; None where time was up, and it was told to stop."""
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    with (
        log.open("a") as written,
        subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with suppress(ProcessLookupError):  # what it started and left
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="all told, with saving")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--only", default="resnet32 cifar100", help="the rows of the tables whose names hold these words"
    )
    parser.add_argument("--scale", default="1", help="below 1 a trial of the tables")
    parser.add_argument("--how", default="--precision bf16", help="how reproduce computes: '--compile true' and so on")
    parser.add_argument("--methods", default="ffl,dml,one,dualnet,kdcl,okddip", help="whose speed is measured")
    parser.add_argument("--compiled-methods", default="ffl,dml", help="whose speed is measured compiled")
    parser.add_argument("--speed-peers", default="2xresnet32")
    parser.add_argument("--batch-size", default="128,1024")
    options = parser.parse_args()
    deadline = time.monotonic() + options.minutes * 60 - GRACE
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, command in stages(options.folder, options).items():
        begun = time.monotonic()
        status = run(command, options.folder / f"{name}.log", deadline)
        ended = "time is up; repeat the command to go on" if status is None else f"exit status {status}"
        print(f"{name}: {ended}, {time.monotonic() - begun:.0f} s", flush=True)
    for table in ("ffl/table1a", "ffl/table1b"):
        subprocess.run(
            [
                *COLLEGIUM,
                "reproduce",
                table,
                "--show",
                "--scale",
                options.scale,
                "--study",
                str(options.folder / "table1"),
            ]
        )


if __name__ == "__main__":
    main()
