"""What a training step costs as peers, batch and classes grow.

python benchmarks/growth.py [--precision bf16] [--device cpu] [--out results/growth]
python benchmarks/growth.py --together [--device cpu] [--out results/growth]

Of two ResNet-20, batches of 128 and 100 classes, one at a time grows. Each point is measured in a fresh process, in
which Collegium's training step (*step*) alternates with the peers alone (*floor*: forward, backward and update with
cross-entropy, same precision, layout and trunk), on a batch that lies ready; medians of several rounds. State is the
bytes of parameters, buffers, gradients and optimizer state that exist after a step. The memory of a step is what it
takes besides: on a GPU the peak over what was allocated before, on a CPU what autograd keeps for the backward pass.

Are like peers faster when computed together (--together)? Forward and backward pass of peers one after another
(*apart*) alternate with those of the same peers stacked by torch.func and computed under vmap (*together*). Batch norms
keep no running statistics in either, and weights and images are of the precision themselves. Each is measured in both
memory layouts of images and weights; the table has the faster one.

Points are written one by one, and a repeated command measures those that are missing.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from contenders import SHARED, batch, peers_alone, random_images, training
from measuring import (
    Row,
    measure_missing,
    median_seconds,
    origin,
    repeated,
    step_memory,
    table,
    training_state,
    write_readme,
)
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from collegium import networks
from collegium.pages.colours import INK, OWN, PEERS
from collegium.training.engine import make_fabric
from collegium.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "peers": ("independent", "dml", "ffl", "okddip", "kdcl"),
    "batch_size": ("dml", "ffl"),
    "classes": ("dml", "ffl"),
}
FEWEST = {"okddip": 3}  # peers, where it is more than two
WAYS = "apart", "together"
NAMES = {"peers": "peers", "batch_size": "batch size", "classes": "classes"}
COLOURS = {"independent": INK, "dml": PEERS[0], "ffl": OWN[0], "okddip": PEERS[1], "kdcl": PEERS[2]}


def points(grown: str, values: Sequence[int], start: Row) -> list[Row]:
    """What is measured as one thing grows from ``start``."""
    jobs = [start | {"method": method, grown: value} for method in METHODS[grown] for value in values]
    return [job for job in jobs if job["peers"] >= FEWEST.get(job["method"], 2)]


def measure(job: Row) -> Row:
    """One point, in this process."""
    size, classes = job["batch_size"], job["classes"]
    recipe = Recipe(
        method={"name": job["method"]},
        peers=f"{job['peers']}x{job['network']}",
        share_until=SHARED.get(job["method"]),
        batch_size=size,
        precision=job["precision"],
        device=job["device"],
    )
    run = training(recipe, random_images(size, classes))
    views = job["peers"] if run.learner.method.own_views else 1
    images, target = batch(size, run.fabric.device, views=views, classes=classes)
    floor = peers_alone(recipe, images, target, classes)
    modules = {"floor": floor.cohort, "step": run.learner}
    optimizers = {"floor": [floor.optimizer], "step": list(run.players.optimizers.values())}
    steps: dict[str, Callable[[], None]] = {"floor": floor, "step": lambda: run.train_step(images, target, 0.6)}
    contenders = {name: repeated(step, job["steps"]) for name, step in steps.items()}
    seconds = median_seconds(contenders, job["rounds"], run.fabric.device)
    return {
        "share_until": recipe.share_until,
        "images_per_second": {name: size * job["steps"] / time for name, time in seconds.items()},
        "state": {name: training_state(modules[name], optimizers[name]) for name in steps},
        "memory": {name: step_memory(step, modules[name], [images, target]) for name, step in steps.items()},
    }


def measure_together(job: Row) -> Row:
    """Peers one after another and together, in this process."""
    device = make_fabric(Recipe(device=job["device"])).device
    # Autocast does not reach convolutions under vmap on a CPU.
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[job["precision"]]
    contenders: dict[str, Callable[[], None]] = {}
    for layout, memory_format in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        peers = [networks.build(job["network"], num_classes=100) for _ in range(job["peers"])]
        for peer in peers:
            peer.to(device, dtype).to(memory_format=memory_format)
            for module in peer.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.track_running_stats = False
        images, target = batch(job["batch_size"], device, channels_last=memory_format is torch.channels_last)
        images = images.to(dtype)
        contenders[f"apart{layout}"] = repeated(apart(peers, images, target), job["steps"])
        contenders[f"together{layout}"] = repeated(together(peers, images, target), job["steps"])
    seconds = median_seconds(contenders, job["rounds"], device)
    return {"seconds": {name: time / job["steps"] for name, time in seconds.items()}}


def apart(peers: Sequence[nn.Module], images: Tensor, target: Tensor) -> Callable[[], None]:
    """Forward and backward pass of one peer after another."""

    def step() -> None:
        for peer in peers:
            peer.zero_grad()
            torch.autograd.backward(F.cross_entropy(peer(images).float(), target))

    return step


def together(peers: Sequence[nn.Module], images: Tensor, target: Tensor) -> Callable[[], None]:
    """Forward and backward pass of copies of the same peers, stacked."""
    parameters, buffers = stack_module_state(list(peers))

    def one_loss(own: dict[str, Tensor], fixed: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(peers[0], (own, fixed), (images,)).float(), target)

    def step() -> None:
        for parameter in parameters.values():
            parameter.grad = None
        torch.autograd.backward(vmap(one_loss)(parameters, buffers).sum())

    return step


def growth_table(grown: str, rows: Sequence[Row]) -> list[str]:
    """Speed, state and memory; the time of an image is relative to the method's first row."""
    headings = ["method", NAMES[grown], "images/s", "step / floor", "time of an image, x first"]
    headings += ["state, MB", "state / floor", "memory of a step, MB", "memory / floor"]
    lines = []
    for row in rows:
        rate, state, memory = row["images_per_second"], row["state"], row["memory"]
        first = next(other for other in rows if other["method"] == row["method"])
        cells = [row["method"], f"{row[grown]:,}", f"{rate['step']:,.0f}", f"{rate['floor'] / rate['step']:.3f}"]
        cells.append(f"{first['images_per_second']['step'] / rate['step']:.2f}")
        cells += [f"{state['step'] / 1e6:,.1f}", f"{state['step'] / state['floor']:.3f}"]
        cells += [f"{memory['step'] / 1e6:,.1f}", f"{memory['step'] / memory['floor']:.3f}"]
        lines.append(cells)
    return table(headings, lines)


def together_table(rows: Sequence[Row]) -> list[str]:
    """Each way in the layout in which it is faster."""
    lines = []
    for row in rows:
        best = {way: min(s for name, s in row["seconds"].items() if name.startswith(way)) for way in WAYS}
        times = [f"{1000 * best[way]:,.1f}" for way in WAYS]
        ratio = f"{best['apart'] / best['together']:.2f}"
        lines.append([str(row["peers"]), str(row["batch_size"]), row["precision"], *times, ratio])
    return table(["peers", "batch", "precision", "apart, ms", "together, ms", "times as fast"], lines)


def chart(growth: dict[str, list[Row]], file: Path) -> None:
    """Small multiples: what changes with the peers, with the batch, and with the classes."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "collegium", "font.size": 10}
    from matplotlib import pyplot

    first = {row["method"]: row["images_per_second"]["step"] for row in reversed(growth["peers"])}

    def rate(row: Row, what: str = "step") -> float:
        return float(row["images_per_second"][what])

    figure, ((time, memory), (speed, ratio)) = pyplot.subplots(2, 2, figsize=(8, 6), layout="constrained")
    draw(time, "peers", growth, lambda row: first[row["method"]] / rate(row), "time of an image, × first point")
    draw(memory, "peers", growth, lambda row: row["memory"]["step"] / 1e6, "memory of a step (MB)")
    draw(speed, "batch_size", growth, lambda row: rate(row, "floor"), linestyle="dotted")
    draw(speed, "batch_size", growth, rate, "images/s (dotted: peers alone)")
    draw(ratio, "classes", growth, lambda row: rate(row, "floor") / rate(row), "time, × peers alone")
    ratio.axhline(1, color=INK, alpha=0.4, linewidth=1)
    for axes in (time, memory, speed):
        axes.set_ylim(bottom=0)
    figure.legend(*time.get_legend_handles_labels(), loc="outside upper center", ncols=len(COLOURS), frameon=False)
    figure.savefig(file, metadata={"Date": None})


def draw(
    axes: "Axes",
    grown: str,
    growth: dict[str, list[Row]],
    value: Callable[[Row], float],
    unit: str = "",
    linestyle: str = "solid",
) -> None:
    """A line a method."""
    for method in METHODS[grown]:
        rows = [row for row in growth[grown] if row["method"] == method]
        x, y = [row[grown] for row in rows], [value(row) for row in rows]
        axes.plot(x, y, color=COLOURS[method], linestyle=linestyle, marker="o", markersize=4, label=method)
    if grown != "peers":
        axes.set_xscale("log")
    values = sorted({row[grown] for row in growth[grown]})
    axes.set_xticks(values, [f"{x:,}" for x in values])
    axes.minorticks_off()
    axes.set_xlabel(NAMES[grown])
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def show(row: Row) -> str:
    """A point, while others are measured."""
    rate = row["images_per_second"]
    what = f"{row['method']}, {row['peers']} peers, batches of {row['batch_size']}, {row['classes']} classes"
    return f"{what}: {rate['step']:,.0f} images/s, step / floor {rate['floor'] / rate['step']:.3f}"


def numbers(text: str) -> list[int]:
    """What an option lists."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--together", action="store_true", help="compare peers apart and together instead")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--peers", type=numbers, help="2,3,4,8; with --together 2,4,8")
    parser.add_argument("--batch-size", type=numbers, help="32,64,128,256,512,1024; with --together 128,1024")
    parser.add_argument("--classes", type=numbers, default=[10, 100, 1000])
    parser.add_argument("--start", type=numbers, default=[2, 128, 100], help="peers, batch and classes where one grows")
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", help="bf16; with --together bf16,fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="measure points again that are there")
    options = parser.parse_args()
    how = {name: getattr(options, name) for name in ("network", "steps", "rounds", "device")}
    kept: dict[str, Any] = {"device": options.device, "overwrite": options.overwrite}
    _, _, grows, stacked, _ = __doc__.split("\n\n")
    out: Path | None = options.out
    if options.together:
        jobs = [
            how | {"peers": peers, "batch_size": size, "precision": precision}
            for peers in options.peers or [2, 4, 8]
            for size in options.batch_size or [128, 1024]
            for precision in (options.precision or "bf16,fp32").split(",")
        ]
        rows = measure_missing(
            out and out / "together.json", jobs, measure_together, lambda row: together_table([row])[-1], **kept
        )
        if out:
            lines = ["# Peers computed together", "", stacked, "", origin(rows), "", *together_table(rows)]
            (out / "together.md").write_text("\n".join(lines) + "\n")
        return
    start = how | dict(zip(METHODS, options.start, strict=True)) | {"precision": options.precision or "bf16"}
    values = {
        "peers": options.peers or [2, 3, 4, 8],
        "batch_size": options.batch_size or [32, 64, 128, 256, 512, 1024],
        "classes": options.classes,
    }
    wanted = {grown: points(grown, values[grown], start) for grown in METHODS}
    rows = measure_missing(
        out and out / "growth.json", [job for jobs in wanted.values() for job in jobs], measure, show, **kept
    )
    if out:
        remaining = iter(rows)
        growth = {grown: [next(remaining) for _ in jobs] for grown, jobs in wanted.items()}
        chart(growth, out / "growth.svg")
        lines = [
            "# What a training step costs as things grow",
            "",
            grows,
            "",
            origin(rows),
            "",
            "![Growth](growth.svg)",
        ]
        for grown, found in growth.items():
            lines += ["", f"## Against the {NAMES[grown]}", "", *growth_table(grown, found)]
        write_readme(out, lines)


if __name__ == "__main__":
    main()
