"""What two processes tell each other in a step, and how long it takes: sharing the batch, or with a peer each.

python benchmarks/layouts.py [--out results/layouts]        as root, on Linux: needs the commands ip and tc

Two network namespaces stand for two hosts, joined by a cable of each rate; a process on one core trains in each.

alone      one process on one core trains both peers
data       each process trains both peers on half of every batch, and the gradients are averaged (DDP)
peers      each process trains one peer on whole batches, and hears the other's logits
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

COHORTS = {"2xresnet32": 128, "2xtorchvision/resnet18": 128}  # and the batch size
RATES = ["10gbit", "1gbit", "100mbit"]
CABLES = ["layouts0", "layouts1"]


@contextmanager
def hosts(rate: str) -> Iterator[list[list[str]]]:
    """Two namespaces joined by a cable, as commands that run another one within."""
    with ExitStack() as undo:
        for name in CABLES:
            _command("ip", "netns", "add", name)
            undo.callback(_command, "ip", "netns", "del", name)
        _command("ip", "link", "add", CABLES[0], "type", "veth", "peer", "name", CABLES[1])
        for k, name in enumerate(CABLES, 1):
            _command("ip", "link", "set", name, "netns", name)
            for settings in (f"addr add 10.78.0.{k}/24 dev {name}", f"link set {name} up", "link set lo up"):
                _command("ip", "-n", name, *settings.split())
            limit = f"qdisc add dev {name} root tbf rate {rate} burst 1mb latency 400ms"
            _command("ip", "netns", "exec", name, "tc", *limit.split())
        yield [["ip", "netns", "exec", name] for name in CABLES]


def _command(*words: str) -> None:
    subprocess.run(words, check=True)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """In one of the processes: seconds of a step, bytes sent in it, and the memory taken."""
    from contenders import random_images

    from collegium import ranks
    from collegium.training.devices import detect_devices
    from collegium.training.engine import make_fabric
    from collegium.training.experiment import build
    from collegium.training.loop import Run
    from collegium.training.recipe import Recipe
    from collegium.training.run_folder import RunFolder

    size = job["batch_size"]
    recipe = Recipe(method={"name": "dml"}, peers=job["peers"], batch_size=size, device="cpu", precision="bf16")
    layout = "peers" if job["layout"] == "peers" else "data"
    with ranks.process_group(), tempfile.TemporaryDirectory() as folder:
        fabric = make_fabric(recipe, detect_devices(None, None))
        run = Run(build(recipe, data=random_images(8 * size)), RunFolder(folder), fabric, quiet=True, layout=layout)
        run.learner.train()
        images, target = next(run.training_batches.epoch(0))
        seconds = []
        for step in range(job["steps"] + 2):
            if step == 2:  # the first warm up
                sent = _sent()
            begun = time.perf_counter()
            run.train_step(images, target, 0.1)
            run.votes.agree(False, False)
            seconds.append(time.perf_counter() - begun)
        traffic = (_sent() - sent) / job["steps"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": statistics.median(seconds[2:]), "bytes": traffic, "memory": memory}


def _sent() -> int:
    """Bytes that have left by this host's cable, the headers of the protocols with them."""
    counts = [Path(f"/sys/class/net/{name}/statistics/tx_bytes") for name in CABLES]
    return sum(int(file.read_text()) for file in counts if file.exists())


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """A row of the table; the slower process counts."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if job["layout"] == "alone":
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return job | json.loads(done.stdout)
    environment |= {"MASTER_ADDR": "10.78.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    with hosts(job["rate"]) as inside, ExitStack() as ends:
        crew = []
        for k, within in enumerate(inside):
            own = environment | {"RANK": str(k), "GROUP_RANK": str(k), "NODE_RANK": str(k), "LOCAL_RANK": "0"}
            own |= {"GLOO_SOCKET_IFNAME": CABLES[k]}
            crew.append(subprocess.Popen([*within, *command], env=own, stdout=subprocess.PIPE, text=True))
            ends.callback(crew[-1].kill)
        found = [json.loads(process.communicate()[0]) for process in crew]
    return job | {name: max(row[name] for row in found) for name in found[0]}


HEADINGS = "peers", "layout", "cable", "ms a step", "x alone", "sent by each, kB a step", "memory of each, MB"


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """How the two layouts compare with one process."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|" + "---:|" * (len(HEADINGS) - 3)]
    alone = {row["peers"]: row["seconds"] for row in rows if row["layout"] == "alone"}
    for row in rows:
        cells = [row["peers"], row["layout"], row.get("rate", ""), f"{1000 * row['seconds']:,.0f}"]
        cells += [f"{alone[row['peers']] / row['seconds']:.2f}", f"{row['bytes'] / 1000:,.0f}"]
        cells.append(f"{row['memory'] / 1e6:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(train(json.loads(options.job))))
        return
    rows = []
    for peers, size in COHORTS.items():
        job = {"peers": peers, "batch_size": size, "steps": options.steps}
        rows.append(measure(job | {"layout": "alone"}))
        for rate in RATES:
            rows += [measure(job | {"layout": layout, "rate": rate}) for layout in ("data", "peers")]
        print("\n".join(markdown(rows)), flush=True)
    if options.out:
        import torch

        from collegium.training.provenance import provenance

        where = provenance(torch.device("cpu"))
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "layouts.json").write_text(json.dumps({"provenance": where, "rows": rows}, indent=2) + "\n")
        text = f"DML, bf16, {where['device']}, one core a process, torch {where['torch']}."
        (options.out / "README.md").write_text("\n".join(["# Two processes", "", text, "", *markdown(rows)]) + "\n")


if __name__ == "__main__":
    main()
