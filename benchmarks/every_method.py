"""Every method under one recipe, three seeds each, on 50 CIFAR-100 images of each class.

python benchmarks/every_method.py run      trains; goes on where it was interrupted
python benchmarks/every_method.py cost     measures what a step of every row costs, on a machine that does nothing else
python benchmarks/every_method.py table    writes results/every_method from the runs that are complete;
                                           docs/method_pages.py then brings what they say into the methods' pages
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from method_cost import measure_all

from collegium.pages.study_table import StudyTable
from collegium.results.comparison import ONE_NETWORK, Findings, Row, findings
from collegium.results.scores import written
from collegium.results.statistics import spread
from collegium.study.cell import Cell
from collegium.study.executors.local import LocalExecutor
from collegium.study.live import LiveView
from collegium.study.study import Study
from collegium.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "every_method"
BASE = Recipe.read(ROOT / "recipes" / "every_method.yaml")
TWO, THREE, TEACHER = "2xresnet14", "3xresnet14", "resnet32"

# Methods of three are given three peers; those whose authors share the low stages of like peers share them here.
# OKDPH returns to the mean of the weights once an epoch, which has 78 steps.
ROWS: dict[str, dict[str, Any]] = {
    "independent": {},
    "dml": {"method": {"name": "dml"}},
    "ffl": {"method": {"name": "ffl"}, "share_until": "stage2"},
    "ffl, fp32": {"method": {"name": "ffl"}, "share_until": "stage2", "precision": "fp32"},
    "ffl, compiled": {"method": {"name": "ffl"}, "share_until": "stage2", "compile": True},
    "one": {"method": {"name": "one"}, "share_until": "stage2"},
    "kdcl": {"method": {"name": "kdcl"}},
    "independent, three": {"peers": THREE},
    "okddip": {"method": {"name": "okddip"}, "peers": THREE, "share_until": "stage2"},
    "cl_ilr": {"method": {"name": "cl_ilr"}, "share_until": "stage2"},
    "mcl": {"method": {"name": "mcl"}},
    "okdph": {"method": {"name": "okdph", "interval": 78}},
    "afd": {"method": {"name": "afd"}},
    "dualnet": {"method": {"name": "dualnet"}},
    "mfef": {"method": {"name": "mfef"}},
    "ffcl": {"method": {"name": "ffcl", "feature_weight": 500}},  # the default when these runs were trained
    "switokd": {"method": {"name": "switokd"}},
    "tf_kd_reg": {"method": {"name": "tf_kd_reg"}},
    "label smoothing": {"label_smoothing": 0.1},
    "codistillation": {"method": {"name": "codistillation"}},
    "afd, L1": {"method": {"name": "afd", "adversarial": "l1"}},
    "pcl": {"method": {"name": "pcl"}, "peers": THREE, "share_until": "stage2"},
    "ffsd": {"method": {"name": "ffsd"}, "peers": THREE},
    "afd, cycle of three": {"method": {"name": "afd"}, "peers": THREE},
    "kd": {"method": {"name": "kd"}},
    "at": {"method": {"name": "at"}},
    "fitnets": {"method": {"name": "fitnets"}},
    "ab": {"method": {"name": "ab"}},
}
OFFLINE = ("kd", "at", "fitnets", "ab")
PRECISIONS = ("ffl, fp32", "ffl, compiled")  # which must teach what FFL teaches in bf16


def cells(rows: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The runs, row by row, so that an interrupted study has rows with all their seeds; teachers before their rows."""
    bases = [dataclasses.replace(BASE, seed=seed) for seed in seeds]
    teacher = f"teacher · {TEACHER}"
    taught = [row for row in rows if row in OFFLINE]
    found = [
        Cell(_label(row), dataclasses.replace(base, **ROWS[row])) for row in rows if row not in taught for base in bases
    ]
    for base in bases if taught else ():
        found.append(Cell(teacher, dataclasses.replace(base, peers=TEACHER)))
        found += [Cell(_label(row), dataclasses.replace(base, **ROWS[row]), teacher) for row in taught]
    return found


def _label(row: str) -> str:
    return f"{row} · {ROWS[row].get('peers', TWO)}"


def reference(rows: Sequence[str]) -> dict[str, str]:
    """Row -> the row that it is compared with: independent networks, as many as its peers; FFL in bf16."""
    alone = {TWO: "independent", THREE: "independent, three"}
    against = {row: alone[ROWS[row].get("peers", TWO)] for row in rows} | dict.fromkeys(PRECISIONS, "ffl")
    return {_label(row): _label(other) for row, other in against.items() if row != other and {row, other} <= set(rows)}


def write_results(study: Study) -> None:
    """The table, with cost and memory where they are measured, the chart, every run, and the discussion."""
    found = findings(study)
    table = StudyTable(found)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "runs.csv").write_text(table.runs_csv())
    (RESULTS / "summary.csv").write_text(table.summary_csv())
    file, discussion = RESULTS / "cost.json", RESULTS / "discussion.md"
    measured = json.loads(file.read_text()) if file.exists() else []
    costs = {f"{row['row']} · {row['peers']}": row for row in measured}
    done, every = sum(len(row.results) for row in found.rows), len(found.outcomes)
    left = f"{done} of {every} runs are done so far; `python benchmarks/every_method.py run` goes on with the others."
    text = [
        "# Every method under one recipe",
        "",
        could_have_shown(found),
        "",
        "ResNet-14 peers (181 k parameters, 53 MFLOPs each) from scratch on 5,000 CIFAR-100 images, 50 of each class, "
        "for 30 epochs, scored on the whole test set of 10,000.",
        "",
        *([left, ""] if done < every else []),
        *markdown(found, costs),
        "",
        " ".join(caption(found)),
        "",
        *[f"- {problem}" for problem in table.problems],
        "",
        "![Accuracy by method](accuracy.svg)",
        "",
        *([discussion.read_text().strip(), ""] if discussion.exists() else []),
    ]
    (RESULTS / "README.md").write_text("\n".join(text))
    chart(found)


def could_have_shown(found: Findings) -> str:
    """What a reader must know first: how large a gain must be here for three seeds to show it."""
    smallest = sorted(c.smallest for c in found.headline if c.smallest is not None)
    if not smallest:
        return ""
    middle = smallest[len(smallest) // 2]
    return (
        f"**This study cannot say which method helps**: with so few seeds and {found.contrasts} corrected tests it "
        f"could have shown gains of {smallest[0]:.1f} to {smallest[-1]:.1f} points (median {middle:.1f}), four times "
        "of five. It shows that every method trains, and what it costs; [other studies](../which_method.md) ask which "
        "one helps."
    )


def markdown(found: Findings, costs: dict[str, dict[str, Any]]) -> list[str]:
    """A line a row: accuracy of every predictor, the gain, and what training costs."""
    heads = ["", "peers", "n", "one network, %", "gain, points", "p", "ensemble, %", "method's own, %"]
    costing = ["time, × two independent", "FLOPs, × two independent", "memory, MB"]
    heads += costing if costs else []
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in found.rows:
        if not row.results:
            continue
        compared = next(iter(found.compared(row, ONE_NETWORK)), None)
        gain = p = ""
        if compared is not None:
            gain = written(compared.gain.spread, sign=True)
            p = "" if compared.p is None else f"{compared.p:.2f}"
        own = "<br>".join(f"{name} {_accuracy(row, name)}" for name in row.own)
        ensemble = _accuracy(row, "ensemble") if len(row.result["peers"]) > 1 else ""
        cost = costs.get(row.label)
        ratios = ["", "", ""] if costs else []
        if cost is not None:
            ratios = [f"{cost[what]['method'] / cost[what]['independent']:.2f}" for what in ("seconds", "flops")]
            ratios.append(f"{cost['memory_mb']:.0f}")
        cells = [row.method, row.cohort, str(len(row.results)), _accuracy(row, ONE_NETWORK), gain, p, ensemble, own]
        lines.append(f"| {' | '.join([*cells, *ratios])} |")
    return lines


def caption(found: Findings) -> list[str]:
    """How the numbers came about, in sentences."""
    finished = [row for row in found.rows if row.results]
    tests = found.contrasts
    text = [
        "Top-1 accuracy on the test images after the last epoch, mean ± sample standard deviation over n seeds; "
        "nothing was selected on test images. One network: mean over the peers. Ensemble: mean of the peers' logits. "
        "Method's own: its further predictors, by their names. Gain: of one network over as many that are independent, "
        "seed by seed; that of `ffl, fp32` and `ffl, compiled` is over `ffl`. p: two-sided paired t-test of the gain, "
        f"corrected for {tests} tests by Holm's procedure."
    ]
    trunks: dict[str, list[str]] = {}
    for row in finished:
        until = row.cells[0].recipe.share_until
        if until is not None:
            trunks.setdefault(until, []).append(f"`{row.method}`")
    for until, sharing in trunks.items():
        text.append(f"Peers share all up to {until} in {', '.join(sharing)}; elsewhere they share no layers.")
    return [*text, *StudyTable(found).reconstructed]


def _accuracy(row: Row, predictor: str) -> str:
    return written(spread(list(row.scores(predictor).values())))


def chart(found: Findings) -> None:
    """One dot a seed: one network, the ensemble, and the method's own predictors."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "collegium", "font.size": 10}
    from matplotlib import pyplot

    rows = [row for row in found.rows if row.results][::-1]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.42 * len(rows) + 1.2), layout="constrained")
    kinds = [("one network", "#0072B2", 0.22), ("ensemble", "#555555", 0.0), ("method's own", "#D55E00", -0.22)]
    for kind, colour, offset in kinds:
        points = []
        for y, row in enumerate(rows):
            several = len(row.result["peers"]) > 1
            names = {"one network": [ONE_NETWORK], "ensemble": ["ensemble"] if several else [], "method's own": row.own}
            points += [(score, y + offset) for name in names[kind] for score in row.scores(name).values()]
        x, y_shifted = zip(*points, strict=True)
        axes.scatter(x, y_shifted, color=colour, s=16, label=kind)
    axes.set_yticks(range(len(rows)), [f"{row.method}  ({row.cohort.partition('x')[0]})" for row in rows])
    baseline = next(row for row in rows if row.method == "independent")
    axes.axvline(spread(list(baseline.scores(ONE_NETWORK).values())).mean, color="#0072B2", alpha=0.4, linewidth=1)
    axes.set_xlabel("top-1 accuracy on the test images (%), one dot a seed")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(RESULTS / "accuracy.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "cost", "table"])
    parser.add_argument("--study", type=Path, default=RESULTS / "study")
    parser.add_argument("--rows", default=";".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    rows, seeds = options.rows.split(";"), [int(seed) for seed in options.seeds.split(",")]
    if options.command == "table":
        write_results(Study.open(options.study))
    elif options.command == "cost":
        jobs = [
            (row, dataclasses.replace(BASE, device="cpu", **ROWS[row]).to_dict(), 7, TEACHER)
            for row in rows
            if row not in PRECISIONS
        ]
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "cost.json").write_text(json.dumps(measure_all(jobs), indent=2) + "\n")
    else:
        study = Study(options.study, cells(rows, seeds), reference=reference(rows))
        study.run(LocalExecutor(options.workers), view=LiveView)


if __name__ == "__main__":
    main()
