"""The small-data study: every method, several seeds each, on 50 CIFAR-100 images of each class.

python benchmarks/small_data_study.py run      trains; goes on where it was interrupted
python benchmarks/small_data_study.py table    writes results/cifar100_50_per_class from the runs that are complete
"""

import argparse
import csv
import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from grid import spread, train_all

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "cifar100_50_per_class.yaml"
RESULTS = ROOT / "results" / "cifar100_50_per_class"

# name -> what differs from the recipe.
STUDY: dict[str, dict[str, object]] = {
    "independent": {},
    "dualnet": {"method": {"name": "dualnet"}},
    "dml": {"method": {"name": "dml"}},
    "one": {"method": {"name": "one"}, "share_until": "stage2"},
    "ffl": {"method": {"name": "ffl"}, "share_until": "stage2"},
    "ffl-apart": {"method": {"name": "ffl"}},
}
# To tell recipe from method: four times the steps on the same images, and DualNet without taking turns.
PROBES: dict[str, dict[str, object]] = {
    "independent-batch32": {"batch_size": 32},
    "ffl-batch32": {"batch_size": 32, "method": {"name": "ffl"}, "share_until": "stage2"},
    "dualnet-together": {"method": {"name": "dualnet", "alternate": False}},
}
ROWS = STUDY | PROBES


def jobs(runs: Path, rows: list[str], seeds: list[int]) -> list[tuple[Path, dict[str, Any]]]:
    """Every row with every seed."""
    given = [(row, seed) for seed in seeds for row in rows]
    return [(runs / f"{row}-{seed}", {"config": RECIPE, "seed": seed, **ROWS[row]}) for row, seed in given]


def collect(runs: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """row -> seed -> result with its provenance, of complete runs."""
    import yaml

    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in ROWS:
        for folder in sorted(runs.glob(f"{row}-[0-9]*")):
            if folder.name.removeprefix(f"{row}-").isdigit() and (folder / "result.json").exists():
                result = json.loads((folder / "result.json").read_text())
                result["provenance"] = yaml.safe_load((folder / "recipe.yaml").read_text())["provenance"]
                result["train_error"] = final_training_error(folder / "metrics.csv")
                found.setdefault(row, {})[result["seed"]] = result
    return found


def final_training_error(metrics: Path) -> float:
    """Mean error of the peers on augmented training batches in the last epoch."""
    with metrics.open() as file:
        last = list(csv.DictReader(file))[-1]
    return 1 - fmean(float(v) for k, v in last.items() if k.startswith("train/accuracy/peer"))


def write_results(runs: Path) -> None:
    from collegium.results.scores import all_predictors

    found = collect(runs)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "runs.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("row seed predictor top1_error top5_error nll ece training_seconds commit device".split())
        for row, seeds in found.items():
            for seed, result in seeds.items():
                for name, values in all_predictors(result).items():
                    last = values["last"]
                    where = [f"{result['training_seconds']:.0f}"] + [
                        result["provenance"][k] for k in ("commit", "device")
                    ]
                    writer.writerow([row, seed, name, *(round(last[m], 6) for m in last), *where])
    some = next(iter(found["independent"].values()))["provenance"]
    text = [
        "# CIFAR-100 with 50 training images of each class",
        "",
        "**This study cannot say which method helps**: three seeds and five corrected tests could have shown gains of "
        "3.6 to 6.4 points, four times of five; [other studies](../which_method.md) ask which one helps.",
        "",
        "Two ResNet-20 (278 k parameters, 81.6 MFLOPs each) trained from scratch for 40 epochs on 5,000 images and "
        "scored on the whole test set of 10,000. Top-1 accuracy in percent after the last epoch, mean ± sample "
        "standard deviation over the seeds; nothing was selected on test images. `ffl` and `one` share all stages "
        "but the last, the others share no layers.",
        "",
        f"Recipe: [`{RECIPE.name}`](../../recipes/{RECIPE.name}), bf16 autocast. "
        f"Machine: {some['device'].partition(',')[0]}, one core a run. "
        f"Code: commit `{some['commit']}`, torch {some['torch']}. Every run: [`runs.csv`](runs.csv). "
        "Repeat it: `python benchmarks/small_data_study.py run` and then `table`.",
        "",
        *markdown(found, [row for row in STUDY if row in found]),
        "",
        "![Accuracy by method](accuracy.svg)",
        "",
        "## Probes",
        "",
        "The same with batches of 32, which is four times the steps on the same images, and DualNet with both "
        "extractors learning in every epoch.",
        "",
        *markdown(found, [row for row in PROBES if row in found]),
        "",
        (RESULTS / "discussion.md").read_text().strip(),
        "",
    ]
    (RESULTS / "README.md").write_text("\n".join(text))
    chart(found)


def markdown(found: dict[str, dict[int, dict[str, Any]]], rows: list[str]) -> list[str]:
    """Accuracy of every predictor; the mean peer's gain over the independent one, paired by seed; its calibration."""
    from collegium.results.scores import all_predictors

    names = list(dict.fromkeys(n for row in rows for result in found[row].values() for n in all_predictors(result)))
    headings = ["", "seeds", *(name.replace("_", " ") for name in names)]
    headings += ["gain of mean peer", "NLL of mean peer", "ECE of mean peer", "train error"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for row in rows:
        results = found[row]
        cells = [row, str(len(results))]
        for name in names:
            scored = [all_predictors(r) for r in results.values()]
            cells.append(spread([100 * (1 - s[name]["last"]["top1_error"]) for s in scored if name in s]))
        mean = {seed: result["mean_peer"]["last"] for seed, result in results.items()}
        base = found.get("independent-batch32" if row.endswith("-batch32") else "independent", {})
        alone = {seed: result["mean_peer"]["last"]["top1_error"] for seed, result in base.items()}
        gains = [100 * (alone[seed] - m["top1_error"]) for seed, m in mean.items() if seed in alone]
        cells.append("" if row.startswith("independent") else spread(gains, sign=True))
        cells.append(spread([m["nll"] for m in mean.values()], digits=3))
        cells.append(spread([100 * m["ece"] for m in mean.values()]))
        cells.append(f"{100 * fmean(r['train_error'] for r in results.values()):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def chart(found: dict[str, dict[int, dict[str, Any]]]) -> None:
    """One dot a seed: the mean peer, the ensemble, and the method's own predictor."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "collegium", "font.size": 10}
    from matplotlib import pyplot

    rows = [row for row in STUDY if row in found][::-1]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.55 * len(rows) + 1.2), layout="constrained")
    own = ("fused", "one_e")
    kinds = {"one network": ("#0072B2", ["mean_peer"]), "ensemble": ("#555555", ["ensemble"]), "own": ("#D55E00", own)}
    for offset, (label, (colour, names)) in zip((0.2, 0, -0.2), kinds.items(), strict=True):
        points = [
            (100 * (1 - result["predictors"].get(name, result["mean_peer"])["last"]["top1_error"]), y + offset)
            for y, row in enumerate(rows)
            for result in found[row].values()
            for name in names
            if name == "mean_peer" or name in result["predictors"]
        ]
        text = "method's own (fused, gated)" if label == "own" else label
        axes.scatter(*zip(*points, strict=True), color=colour, s=22, label=text)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("top-1 accuracy on the test images (%), one dot a seed")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, 1.18), ncols=3, frameon=False)
    figure.savefig(RESULTS / "accuracy.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--runs", type=Path, default=Path("runs/small_data"))
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    rows, seeds = options.rows.split(","), [int(seed) for seed in options.seeds.split(",")]
    if options.command == "table":
        write_results(options.runs)
    else:
        train_all(jobs(options.runs, rows, seeds), options.workers)


if __name__ == "__main__":
    main()
