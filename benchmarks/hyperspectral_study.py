"""Two studies on Salinas-A with few labelled pixels: three methods within the scene, and transfer from other scenes.

python benchmarks/hyperspectral_study.py run       trains; goes on where it was interrupted
python benchmarks/hyperspectral_study.py table     writes results/salinas_a and results/salinas_a_transfer

The scenes are looked for under COLLEGIUM_DATA. Both use the recipes salinas_a, salinas_a_transfer and
houston2013_spectra.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from grid import spread, train_all

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
METHODS = ("independent", "dml", "ffl")
BUDGETS = (5, 10, 20)
SOURCES = {"houston2013": "Houston13_train.mat", "indian_pines": "IndianPines_train.mat"}
STARTS = ("scratch", *SOURCES)
METRICS = {"overall accuracy": "top1_error", "average accuracy": "average_accuracy", "kappa × 100": "kappa"}


@dataclass(frozen=True)
class Row:
    """One line of a table: runs that differ in the seed alone."""

    study: str
    budget: int
    method: str
    start: str = "scratch"

    @property
    def name(self) -> str:
        return f"{self.start}-{self.method}-{self.budget}"


def rows(study: str) -> list[Row]:
    starts = STARTS if study == "salinas_a_transfer" else ("scratch",)
    return [Row(study, budget, method, start) for budget in BUDGETS for start in starts for method in METHODS]


def folder(runs: Path, row: Row, seed: int) -> Path:
    return runs / row.study / f"{row.name}-{seed}"


def source_folder(runs: Path, source: str, seed: int) -> Path:
    return runs / "sources" / f"{source}-{seed}"


def sources(runs: Path, seeds: list[int]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The runs that transfer starts from."""
    for seed in seeds:
        for source, file in SOURCES.items():
            data = {"name": f"spectra:{file}", "split_seed": seed}
            yield source_folder(runs, source, seed), {"config": "houston2013_spectra", "data": data, "seed": seed}


def targets(runs: Path, seeds: list[int]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The runs that the tables are made of."""
    from collegium.training.recipe import Recipe

    for study in ("salinas_a", "salinas_a_transfer"):
        data = Recipe.read(study).data
        for seed in seeds:
            for row in rows(study):
                keywords: dict[str, Any] = {"config": study, "method": row.method, "seed": seed}
                keywords["data"] = {**data, "per_class": row.budget, "split_seed": seed}
                if row.start != "scratch":
                    keywords["start_from"] = str(source_folder(runs, row.start, seed))
                yield folder(runs, row, seed), keywords


def collect(runs: Path, study: str) -> dict[Row, dict[int, dict[str, Any]]]:
    """row -> seed -> result with its provenance, of the seeds that every row has complete runs of."""
    import yaml

    found: dict[Row, dict[int, dict[str, Any]]] = {}
    for row in rows(study):
        for path in sorted((runs / study).glob(f"{row.name}-*/result.json")):
            result = json.loads(path.read_text())
            result["provenance"] = yaml.safe_load((path.parent / "recipe.yaml").read_text())["provenance"]
            found.setdefault(row, {})[result["seed"]] = result
    seeds = set.intersection(*(set(runs_) for runs_ in found.values()))
    return {row: {seed: runs_[seed] for seed in sorted(seeds)} for row, runs_ in found.items()}


def scores(result: dict[str, Any], predictor: str, metric: str) -> float:
    """In percent; an error as the accuracy that it leaves."""
    from collegium.results.scores import all_predictors

    value = all_predictors(result)[predictor]["last"][metric]
    return 100 * (1 - value if metric == "top1_error" else value)


def table(found: dict[Row, dict[int, dict[str, Any]]], budget: int) -> list[str]:
    """One budget: a line for each start and method."""
    starts = len({row.start for row in found}) > 1
    head = (["start"] if starts else []) + ["method", *(f"one network, {m}" for m in METRICS)]
    head += ["gain in overall accuracy", "better in", "ensemble, overall", "fused, overall"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row, runs in found.items():
        if row.budget != budget:
            continue
        base = found[Row(row.study, budget, "independent", row.start)]
        own = {seed: scores(r, "mean_peer", "top1_error") for seed, r in runs.items()}
        gains = [value - scores(base[seed], "mean_peer", "top1_error") for seed, value in own.items() if seed in base]
        cells = ([row.start.replace("_", " ")] if starts else []) + [f"`{row.method}`"]
        cells += [spread([scores(r, "mean_peer", m) for r in runs.values()]) for m in METRICS.values()]
        alone = row.method == "independent"
        cells += ["", ""] if alone else [spread(gains, sign=True), f"{sum(g > 0 for g in gains)} of {len(gains)}"]
        for name in ("ensemble", "fused"):
            cells.append(spread([scores(r, name, "top1_error") for r in runs.values() if name in r["predictors"]]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def by_class(found: dict[Row, dict[int, dict[str, Any]]], budget: int) -> list[str]:
    """Accuracy of one network in each class, mean ± deviation over the seeds."""
    chosen = {row: runs for row, runs in found.items() if row.budget == budget and row.start == "scratch"}
    some = next(iter(next(iter(chosen.values())).values()))
    lines = ["| class | " + " | ".join(f"`{row.method}`" for row in chosen) + " |", "|---|" + "---|" * len(chosen)]
    for label, name in enumerate(some["class_names"]):
        cells = []
        for runs in chosen.values():
            peers = [[r["class_accuracy"][f"peer{k}"][label] for k in range(len(r["peers"]))] for r in runs.values()]
            cells.append(spread([100 * fmean(values) for values in peers]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def write_runs(found: dict[Row, dict[int, dict[str, Any]]], target: Path) -> None:
    from collegium.results.scores import all_predictors

    with target.open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        measured = ["top1_error", "average_accuracy", "kappa", "nll", "ece"]
        writer.writerow(["start", "method", "per_class", "seed", "predictor", *measured, "seconds", "commit", "device"])
        for row, runs in found.items():
            for seed, result in runs.items():
                where = [f"{result['training_seconds']:.1f}", *(result["provenance"][k] for k in ("commit", "device"))]
                for name, values in all_predictors(result).items():
                    numbers = [round(values["last"][m], 6) for m in measured]
                    writer.writerow([row.start, row.method, row.budget, seed, name, *numbers, *where])


def write_maps(runs: Path, study: str, seed: int, budget: int, starts: tuple[str, ...]) -> None:
    """The first peer's map by every method, and FFL's fused predictor's, from one seed."""
    from collegium.pages.run_scene_maps import map_file
    from collegium.results.analysis import gather

    maps, data = {}, None
    for start in starts:
        for method in METHODS:
            analysis = gather(folder(runs, Row(study, budget, method, start), seed))
            data = data or analysis.data
            after = "" if len(starts) == 1 else f" after {start}" if start != "scratch" else " from scratch"
            maps[f"{method}{after}"] = analysis.maps["peer0"]
            if method == "ffl" and len(starts) == 1:
                maps["ffl, fused"] = analysis.maps["fused"]
    title = f"Salinas-A, {budget} training pixels of each class, first peer, seed {seed}"
    (RESULTS / study / "maps.png").write_bytes(map_file(data, maps, title))  # type: ignore[arg-type]


INTRODUCTION = {
    "salinas_a": (
        "# Salinas-A with few labelled pixels",
        "Two small 3-D/2-D networks (`hybridsn_8_bn`, 7 x 7 patches of 15 principal components) learn from 5, 10 or 20 "
        "labelled pixels of each of six classes. Training pixels lie in other 16 x 16 blocks of the scene than test "
        "pixels, and no test pixel lies in a training patch.",
    ),
    "salinas_a_transfer": (
        "# From other scenes' spectra to Salinas-A",
        "Two 1-D networks (`spectral_resnet8`) classify each pixel by its spectrum of 204 bands alone, from 5, 10 or "
        "20 labelled pixels of each of six classes, in a spatially disjoint split. They start from scratch, or from "
        "networks of the same kind that were trained (each alone) on labelled spectra of another scene: Houston 2013 "
        "(144 bands of another sensor, 15 classes, 2,832 spectra) or Indian Pines (200 bands, 16 classes, 695 "
        "spectra). All layers but the classifier are carried over. Below, methods are compared within each start.",
    ),
}


def write_results(runs: Path, study: str) -> None:
    found = collect(runs, study)
    target = RESULTS / study
    target.mkdir(parents=True, exist_ok=True)
    write_runs(found, target / "runs.csv")
    some = next(iter(next(iter(found.values())).values()))
    seeds = sorted({seed for runs_ in found.values() for seed in runs_})
    starts = STARTS if study == "salinas_a_transfer" else ("scratch",)
    write_maps(runs, study, seeds[0], BUDGETS[0], starts)
    title, what = INTRODUCTION[study]
    recipes = [study] if study == "salinas_a" else [study, "houston2013_spectra"]
    named = " and ".join(f"[`{name}.yaml`](../../recipes/{name}.yaml)" for name in recipes)
    text = [
        title,
        "",
        what,
        "",
        f"Percent after the last epoch, mean ± sample standard deviation over {len(seeds)} seeds. A seed decides the "
        "split, the start and the order of images, and is the same for every method. *One network* is the mean of "
        "the two peers; *gain* is over `independent`, paired by seed, and *better in* counts the seeds where it is "
        "positive. Nothing was selected on test pixels.",
        "",
        f"Recipes: {named}. Machine: {some['provenance']['device'].partition(',')[0]}, one core a run. Code: commit "
        f"`{some['provenance']['commit']}`, torch {some['provenance']['torch']}. Every run: [`runs.csv`](runs.csv). "
        f"Repeat it: `python benchmarks/hyperspectral_study.py run --seeds {len(seeds)}` and then `table`.",
        "",
    ]
    for budget in BUDGETS:
        text += [f"## {budget} training pixels of each class", "", *table(found, budget), ""]
    if study == "salinas_a":
        text += [f"By class, {BUDGETS[0]} training pixels of each, one network:", "", *by_class(found, BUDGETS[0]), ""]
    text += ["![Classification maps](maps.png)", ""]
    discussion = target / "discussion.md"
    if discussion.exists():
        text += [discussion.read_text().strip(), ""]
    (target / "README.md").write_text("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--runs", type=Path, default=Path("runs/hyperspectral"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.command == "run":
        seeds = list(range(options.seeds))
        train_all(sources(options.runs, seeds), options.workers)
        train_all(targets(options.runs, seeds), options.workers)
    else:
        for study in INTRODUCTION:
            write_results(options.runs, study)


if __name__ == "__main__":
    main()
