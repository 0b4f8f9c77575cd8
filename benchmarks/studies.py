"""The studies under results/ that ask when networks that teach each other are better than networks alone.

python benchmarks/studies.py list                 the studies, and how far each is
python benchmarks/studies.py tune NAME            learning rate and weight decay of networks alone, by validation images
python benchmarks/studies.py plan NAME            writes the plan and trains nothing
python benchmarks/studies.py run NAME [--workers N]   trains, or goes on where it was interrupted
python benchmarks/studies.py check NAME --row dml --seed 0   one run again, beside the recorded one
python benchmarks/studies.py pages                writes the tables, figures and pages from the committed runs
"""

import argparse
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import collegium
from collegium.errors import UsageError
from collegium.pages.study_table import StudyTable
from collegium.results.answer import answer
from collegium.results.comparison import Comparison, Findings, Row, findings
from collegium.study.study import Study
from collegium.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


@dataclass(frozen=True)
class Planned:
    """One study: what `collegium compare` is asked, and what it is about.

    Args:
        title: of its page.
        recipe: the shipped recipe that all its runs start from.
        hypothesis: what it is to find out.
        methods: the rows.
        contrasts: the pairs of rows that decide.
        seeds: how many, from 0.
        deployed: the predictor that is compared.
        teacher: of the methods that learn from one.
        data: options of the data that differ from the recipe's.
        entries: of the recipe that differ.
        of_parts: whether it is about the parts of one method, and says nothing of which method helps.
        rates, decays: the grid of learning rates and weight decays from which networks alone choose.
        tuning_seeds: of the splits on which they choose; none is one of the study's.
        timed: whether the machine had nothing else to do, so that the times of training can be compared.
    """

    title: str
    recipe: str
    hypothesis: str
    methods: tuple[str, ...]
    contrasts: tuple[str, ...]
    seeds: int = 8
    deployed: str = "mean_peer"
    teacher: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, Any] = field(default_factory=dict)
    of_parts: bool = False
    rates: tuple[float, ...] = (0.05, 0.1)
    decays: tuple[float, ...] = (0.002, 0.005, 0.01, 0.02, 0.05)
    tuning_seeds: tuple[int, ...] = (100,)
    timed: bool = True

    @property
    def peers(self) -> str:
        """The peers of all rows."""
        return self.entries.get("peers", Recipe.read(self.recipe).peers)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of :func:`collegium.compare`, without the folder."""
        separator = "; " if any("," in method for method in self.methods) else ","
        options: dict[str, Any] = {
            "config": self.recipe,
            "methods": separator.join(self.methods),
            "peers": self.peers,
            "seeds": list(range(self.seeds)),
            "vary": "split",
            "hypothesis": self.hypothesis,
            "contrasts": f"{separator.strip()} ".join(self.contrasts),
            "deployed": self.deployed,
            **self.entries,
        }
        if self.data:
            options["data"] = {**Recipe.read(self.recipe).data, **self.data}
        return options | ({} if self.teacher is None else {"teacher": self.teacher})

    def command(self, folder: str) -> str:
        """The same on the command line."""
        words = ["collegium", "compare"]
        said = {name: value for name, value in self.options.items() if name != "data"}
        said |= {f"data.{name}": value for name, value in self.data.items()}
        for name, value in said.items():
            name = name.replace("_", "-")
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [f"--{name}", text]
        return shlex.join([*words, "--study", folder])


ALONE, TRUNK = "independent", "independent:share_until=stage2"
DML3, DML1 = "dml:temperature=3", "dml"
FFL_TRUNK = "ffl:share_until=stage2"
FFCL500 = "ffcl:feature_weight=500"  # the default when its study was planned

STUDIES: dict[str, Planned] = {
    "digits_wrong_labels": Planned(
        title="Few digits, a fifth of them with wrong labels",
        recipe="digits_wrong_labels",
        hypothesis="With 20 images of each class, one label in five wrong, one network is more accurate on right test "
        "labels when two networks teach each other (DML, T = 3) than when it trains alone, and so with label "
        "smoothing.",
        methods=(ALONE, "independent:label_smoothing=0.2", DML3, f"{DML3}:label_smoothing=0.2", "ffl", "kdcl"),
        contrasts=(f"{DML3} vs {ALONE}", f"{DML3}:label_smoothing=0.2 vs independent:label_smoothing=0.2"),
        seeds=24,
        rates=(0.05, 0.1, 0.2),
        decays=(0.01, 0.02, 0.035, 0.05, 0.07, 0.1),
        tuning_seeds=(100, 101, 102, 103, 104),
    ),
    "people_labels": Planned(
        title="Labels as people gave them",
        recipe="people_labels",
        hypothesis="On images that people labelled, a quarter of them wrongly, one network is more accurate on right "
        "test labels when two networks teach each other than when it trains alone, and more than label smoothing makes "
        "it.",
        methods=(
            ALONE,
            "independent:label_smoothing=0.2",
            DML3,
            DML1,
            "ffl",
            "kdcl",
            "dml:temperature=3:label_smoothing=0.1",
        ),
        contrasts=(
            f"{DML3} vs {ALONE}",
            f"ffl vs {ALONE}",
            f"kdcl vs {ALONE}",
            f"{DML3} vs independent:label_smoothing=0.2",
        ),
        timed=False,
    ),
    "few_labels": Planned(
        title="Few labels, many steps",
        recipe="few_labels",
        hypothesis="With few images and so many steps that networks overfit, one network is more accurate when two "
        "networks teach each other than when it trains alone, apart or on the same trunk.",
        methods=(ALONE, TRUNK, "independent:label_smoothing=0.1", DML3, "ffl", FFL_TRUNK, "kdcl"),
        contrasts=(f"{DML3} vs {ALONE}", f"ffl vs {ALONE}", f"kdcl vs {ALONE}", f"{FFL_TRUNK} vs {TRUNK}"),
    ),
    "wrong_labels": Planned(
        title="Wrong labels",
        recipe="wrong_labels",
        hypothesis="With 40 % of the training labels wrong, one network is more accurate on right test labels when two "
        "networks teach each other than when it trains alone, and more than label smoothing makes it.",
        methods=(ALONE, "independent:label_smoothing=0.3", DML3, DML1, "ffl", "kdcl"),
        contrasts=(
            f"{DML3} vs {ALONE}",
            f"ffl vs {ALONE}",
            f"kdcl vs {ALONE}",
            f"{DML3} vs independent:label_smoothing=0.3",
        ),
    ),
    "more_peers": Planned(
        title="More peers",
        recipe="more_peers",
        hypothesis="One of four networks that share their first stage is more accurate when they teach each other "
        "(DML, T = 2) than when they do not, on the same trunk or apart.",
        methods=(ALONE, "independent:share_until=stage1", "dml:temperature=2:share_until=stage1"),
        contrasts=(
            "dml:temperature=2:share_until=stage1 vs independent:share_until=stage1",
            f"dml:temperature=2:share_until=stage1 vs {ALONE}",
        ),
    ),
    "larger_peer": Planned(
        title="A small network with a larger one",
        recipe="larger_peer",
        hypothesis="ResNet-8 is more accurate when it trains with WRN-16-2, and both teach each other, than when it "
        "trains alone.",
        methods=(ALONE, "independent:label_smoothing=0.1", DML3, "kdcl", "ffl", "switokd", "afd"),
        contrasts=(f"{DML3} vs {ALONE}", f"kdcl vs {ALONE}", f"ffl vs {ALONE}", f"afd vs {ALONE}"),
        deployed="peer0",
    ),
}

STUDIES |= {
    "ffcl_parts": Planned(
        title="The parts of FFCL",
        recipe="digits_wrong_labels",
        hypothesis="Each part of FFCL, as it is reconstructed here, makes one network more accurate, and a weight of "
        "500 of its attention does so more than a fifth or five times of it.",
        methods=(
            ALONE,
            "ffl",
            FFCL500,
            *(f"{FFCL500}:{part}=false" for part in ("response", "feature", "fused", "regularisation")),
            "ffcl:feature_weight=100",
            "ffcl:feature_weight=2500",
        ),
        contrasts=(
            f"{FFCL500} vs {ALONE}",
            *(f"{FFCL500} vs {FFCL500}:{part}=false" for part in ("response", "feature", "fused", "regularisation")),
            f"{FFCL500} vs ffcl:feature_weight=100",
            f"{FFCL500} vs ffcl:feature_weight=2500",
        ),
        seeds=24,
        of_parts=True,
        timed=False,
    ),
    "mfef_parts": Planned(
        title="The parts of MFEF",
        recipe="digits_wrong_labels",
        hypothesis="Each part of MFEF, as it is reconstructed here, makes one network more accurate, and all together "
        "make it more accurate than FFL does.",
        methods=(
            ALONE,
            "ffl",
            "mfef",
            "mfef:multi_scale=none",
            "mfef:multi_scale=res2net",
            *(f"mfef:{part}=false" for part in ("channel_attention", "spatial_attention", "ekd", "fkd")),
            "mfef:peer_kd=true",
        ),
        contrasts=(
            f"mfef vs {ALONE}",
            "mfef vs ffl",
            "mfef vs mfef:multi_scale=none",
            "mfef vs mfef:multi_scale=res2net",
            *(f"mfef vs mfef:{part}=false" for part in ("channel_attention", "spatial_attention", "ekd", "fkd")),
            "mfef:peer_kd=true vs mfef",
        ),
        seeds=24,
        of_parts=True,
        timed=False,
    ),
    "afd_options": Planned(
        title="The options of AFD",
        recipe="digits_wrong_labels",
        hypothesis="AFD makes one network more accurate than when networks imitate each other's predictions alone, and "
        "than with the discriminator, or with the weight decay and the milestones, of a re-implementation.",
        methods=(
            ALONE,
            "afd",
            "afd:adversarial=none",
            "afd:adversarial=l1",
            "afd:discriminator=reimplemented",
            "afd:adversarial_weight_decay=0.1:adversarial_milestones=[0.25,0.5]",
        ),
        contrasts=(
            f"afd vs {ALONE}",
            "afd vs afd:adversarial=none",
            "afd vs afd:discriminator=reimplemented",
            "afd vs afd:adversarial_weight_decay=0.1:adversarial_milestones=[0.25,0.5]",
        ),
        seeds=24,
        of_parts=True,
        timed=False,
    ),
    "unlike_maps": Planned(
        title="Maps of unlike peers",
        recipe="digits_wrong_labels",
        hypothesis="Where FFL fuses maps of 4 x 4 and 2 x 2 cells, ResNet-8 is more accurate when convolutions match "
        "them than when the larger ones are pooled or the smaller ones enlarged.",
        methods=(ALONE, "ffl", "ffl:matching=pooled", "ffl:matching=enlarged"),
        contrasts=("ffl vs ffl:matching=pooled", "ffl vs ffl:matching=enlarged", f"ffl vs {ALONE}"),
        seeds=24,
        deployed="peer0",
        entries={"peers": "resnet8,shufflenet_v2_x0_5", "weight_decay": 0.02},
        of_parts=True,
        timed=False,
        decays=(0.002, 0.005, 0.01, 0.02, 0.035),
        tuning_seeds=(100, 101),
    ),
    "l_mcl": Planned(
        title="L-MCL beside MCL and DML",
        recipe="digits_wrong_labels",
        hypothesis="L-MCL makes one network more accurate than MCL and than DML do.",
        methods=(ALONE, DML3, "mcl", "l_mcl"),
        contrasts=("l_mcl vs mcl", f"l_mcl vs {DML3}", f"l_mcl vs {ALONE}"),
        seeds=12,
        timed=False,
    ),
}

STUDIES |= {
    f"indian_pines_{pixels}": Planned(
        title=f"Indian Pines with {pixels} labelled pixels of each class",
        recipe="indian_pines",
        hypothesis=f"With {pixels} labelled pixels of each class, and test pixels elsewhere in the scene, one network "
        "is more accurate when two networks teach each other than when it trains alone.",
        methods=(ALONE, "independent:label_smoothing=0.1", DML3, "ffl", "kdcl", "afd"),
        contrasts=(f"ffl vs {ALONE}", f"{DML3} vs {ALONE}", f"kdcl vs {ALONE}", f"afd vs {ALONE}"),
        seeds=16,
        data={"per_class": pixels},
        timed=pixels != 20,
    )
    for pixels in (5, 10, 20)
}


def tune(name: str, workers: int | None) -> None:
    """Trains one network of the study alone with every learning rate and weight decay, then with label smoothing.

    Unlike networks train beside each other, with the settings of the pair.
    """
    planned = STUDIES[name]
    recipe = Recipe.read(planned.recipe)
    grid = [
        f"independent:learning_rate={rate}:weight_decay={decay}" for rate in planned.rates for decay in planned.decays
    ]
    smoothed = [f"independent:label_smoothing={weight}" for weight in (0.1, 0.2, 0.3)]
    for methods in (grid, ["independent", *smoothed]):
        collegium.compare(
            config=planned.recipe,
            methods=",".join(methods),
            peers=re.sub(r"^\d+x(?=[^,]*$)", "", planned.peers),
            seeds=planned.tuning_seeds,
            vary="split",
            evaluate_every=recipe.epochs // 2,
            checkpoint_every=recipe.epochs // 2,
            study=RESULTS / name / "tuning",
            workers=workers,
        )


def run(name: str, workers: int | None, *, plan_only: bool = False) -> None:
    """Writes the plan if there is none, and trains what is left."""
    folder = RESULTS / name / "study"
    print(collegium.compare(**STUDIES[name].options, study=folder, workers=workers, plan_only=plan_only))


def check(name: str, row: str, seed: int) -> None:
    """Trains one run again and prints its accuracy beside the recorded one."""
    study = Study.open(RESULTS / name / "study")
    cells = [cell for cell in study.cells if cell.seed == seed and cell.label.partition(" · ")[0] == row]
    if not cells:
        rows = sorted({cell.label.partition(" · ")[0] for cell in study.cells})
        raise UsageError(f"{name} has no run of {row!r} with seed {seed}; its rows are: {', '.join(rows)}")
    recorded = study.outcome(cells[0]).result
    recipe = study.recipe(cells[0])
    again = collegium.train(run=ROOT / "runs" / "check" / cells[0].key, **recipe.to_dict())
    deployed = STUDIES[name].deployed
    print(f"{cells[0].name}: accuracy of one network on the test images after the last epoch")
    print(f"  now       {_accuracy(again, deployed):.2f} %")
    print(f"  recorded  {'not yet' if recorded is None else f'{_accuracy(recorded, deployed):.2f} %'}")
    print("On the machine that is recorded they are equal; elsewhere rounding differs, and so does the last decimal.")


def _accuracy(result: Mapping[str, Any], predictor: str, epoch: str = "last") -> float:
    scores = result["mean_peer"] if predictor == "mean_peer" else result["predictors"][predictor]
    return 100 * (1 - scores[epoch]["top1_error"])


def pages(names: Sequence[str], out: Path = RESULTS) -> None:
    """Writes README.md, figures and CSV files of every study that has begun, and what they say together."""
    begun = {
        name: replace(findings(Study.open(RESULTS / name / "study")), timed=STUDIES[name].timed)
        for name in names
        if _begun(name)
    }
    for name, found in begun.items():
        folder, table = out / name, StudyTable(found)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runs.csv").write_text(table.runs_csv())
        (folder / "summary.csv").write_text(table.summary_csv())
        (folder / "README.md").write_text(readme(name, found))
        if found.headline:
            gains_figure(found, folder / "gains.svg")
        if curves := _curves(found):
            curves_figure(curves, folder / "curves.svg")
    if set(begun) == set(filter(_begun, STUDIES)):
        of_methods = {name: found for name, found in begun.items() if not STUDIES[name].of_parts}
        (out / "which_method.md").write_text(which_method(of_methods))
        (out / "README.md").write_text(readme_with_table((ROOT / "README.md").read_text(), of_methods))


def _begun(name: str) -> bool:
    return (RESULTS / name / "study" / "study.yaml").is_file()


def contrasts_table(studies: Mapping[str, Findings], link: str, *, short: bool = False) -> list[str]:
    """One line for each planned contrast that is complete: the regime, the gain, how sure, and the training time.

    Where it is to be short, the contrasts of a study that are undecided share a line, with the range of their gains.
    """
    heads = ["training data", "peers", "epochs", "", "gain of one network, points", "verdict", "training time"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---|---:|---|---:|"]
    for name, found in studies.items():
        assert found.study.plan is not None
        done = [c for c in found.headline if c.decision and c.gain.spread.n == len(found.study.plan.seeds)]
        together = [c for c in done if c.verdict == "undecided"] if short else []
        groups = [[c] for c in done if c not in together] + ([together] if together else [])
        for group in groups:
            row, recipe = group[0].row, group[0].row.cells[0].recipe
            gains = sorted(c.gain.spread.mean for c in group)
            costs = sorted(filter(None, (found.relative_cost(c.row) for c in group)))
            ratios = " to ".join(dict.fromkeys(f"{cost:.2f}" for cost in costs[:1] + costs[-1:]))
            cells = [
                f"[{_regime(row)}]({link}{name}/README.md)",
                recipe.peers,
                str(recipe.epochs),
                f"{_quoted(c.row.method for c in group)} over {_quoted(c.over for c in group)}",
                _gain(group[0]) if len(group) == 1 else f"{gains[0]:+.2f} to {gains[-1]:+.2f}",
                f"{group[0].verdict}, n = {group[0].gain.spread.n}",
                f"{ratios} x" if ratios else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(f"`{name}`" for name in names))


def which_method(studies: Mapping[str, Findings]) -> str:
    """The page of all planned contrasts."""
    return "\n".join(
        [
            "# Which method helps, where, and how sure that is",
            "",
            "Each line is a contrast that a study planned before its first run. The gain is that of the one network "
            "which is deployed, with the confidence interval that goes with the verdict. Training time is that of the "
            "row over that of as many networks that train alone. Each study says how its settings were chosen.",
            "",
            *contrasts_table(studies, ""),
            "",
        ]
    )


BEGIN, END = "<!-- studies: written by `make results` -->", "<!-- end of studies -->"


def readme_with_table(text: str, studies: Mapping[str, Findings]) -> str:
    """The project's README with its table of contrasts."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", "", *contrasts_table(studies, "results/", short=True), "", f"{END}{after}"])


def _gain(c: Comparison) -> str:
    interval = "" if c.interval is None else f" ({c.interval[0]:+.2f} to {c.interval[1]:+.2f})"
    return f"{c.gain.spread.mean:+.2f}{interval}"


def _regime(row: Row) -> str:
    """The training data in words."""
    result = row.result
    wrong = result.get("wrong_labels")
    clean = "" if wrong is None else f", {100 * wrong:.0f} % wrong labels"
    classes = len(result["class_names"])
    return f"{result['data']}, {classes} classes, {result['training_images']:,} images{clean}"


def readme(name: str, found: Findings) -> str:
    """The page of a study."""
    planned, done = STUDIES[name], sum(len(row.results) for row in found.rows)
    plan = found.study.plan
    assert plan is not None
    recipe = found.study.cells[0].recipe
    discussion = RESULTS / name / "discussion.md"
    settings = (
        f"{recipe.epochs} epochs, batches of {recipe.batch_size}, learning rate {recipe.learning_rate}, weight decay "
        f"{recipe.weight_decay}, {recipe.schedule}"
    )
    parts = [
        f"# {planned.title}",
        f"**Asked** (plan of {plan.written}, before the first run; {len(plan.seeds)} seeds, each with its own split): "
        f"{plan.hypothesis}",
        *([f"{done} of {len(found.outcomes)} runs are done so far."] if done < len(found.outcomes) else []),
        *([f"**{answer(found)}**"] if found.headline and not planned.of_parts else []),
        _verdicts(found),
        "Gain of one network in points of test accuracy after the last epoch, with the confidence interval that goes "
        f"with the verdict ({len(plan.contrasts)} contrasts, Holm's correction). *Could show*: the smallest gain that "
        "a study of this size and spread shows four times of five. In the figure a dot is a seed, a bar the interval; "
        "what was not planned is grey.",
        *(["![Gains](gains.svg)"] if found.headline else []),
        _rows(found),
        *(["![Curves](curves.svg)"] if _curves(found) else []),
        *([discussion.read_text().strip()] if discussion.is_file() else []),
        "## How",
        f"Recipe: [`{planned.recipe}`](../../recipes/{planned.recipe}.yaml): {settings}. {_provenance(found)}",
        f"```sh\n{planned.command(f'results/{name}/study')}\n```",
        f"goes on where it was interrupted. `python benchmarks/studies.py check {name} --row independent --seed 0` "
        "trains one run again and prints its accuracy beside the recorded one, and `make results` makes this page from "
        "the runs in `study/`.",
        *_tuning(name),
    ]
    return "\n\n".join(parts) + "\n"


def _verdicts(found: Findings) -> str:
    lines = ["| contrast | n | gain | interval | could show | verdict |", "|---|---:|---:|---:|---:|---|"]
    for c in found.headline:
        if c.decision is not None:
            low_high = "" if c.interval is None else f"{c.interval[0]:+.2f} to {c.interval[1]:+.2f}"
            smallest = "" if c.smallest is None else f"{c.smallest:.2f}"
            lines.append(
                f"| `{c.row.method}` over `{c.over}` | {c.gain.spread.n} | {c.gain.spread.mean:+.2f} | {low_high} | "
                f"{smallest} | {c.verdict} |"
            )
    return "\n".join(lines)


def _rows(found: Findings) -> str:
    finished = [row for row in found.rows if row.results]
    chosen = any(row.result["best_chosen_on"] == "validation" for row in finished)
    best = ["best epoch"] if chosen else []
    time = ["time"] if found.timed else []
    heads = ["", "n", "one network", *best, "ensemble", "NLL", "calibration error", "training error", *time]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in finished:
        at_best = [_accuracy(result, found.deployed, "best") for result in row.results.values()]
        errors = [error for error in (_training_error(found, row, seed) for seed in row.results) if error is not None]
        ratio = found.relative_cost(row)
        cells = [
            f"`{row.method}`",
            str(len(row.results)),
            _mean(row.scores(found.deployed).values()),
            *([_mean(at_best)] if chosen else []),
            _mean(row.scores("ensemble").values()),
            _mean(row.scores(found.deployed, "nll").values(), 3),
            _mean(row.scores(found.deployed, "ece").values(), 1),
            _mean(errors, 1),
            *(["" if ratio is None else f"{ratio:.2f}"] if found.timed else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    said = "Best epoch: chosen on validation images. " if chosen else ""
    lines += [
        "",
        f"Top-1 accuracy in percent, mean ± sample standard deviation over the seeds. {said}Training error: on the "
        "augmented images of the last epoch, with the labels that they were given."
        + (" Time: of training, over that of `independent`, where one machine computed both." if found.timed else ""),
    ]
    return "\n".join(lines)


def _mean(values: Any, digits: int = 2) -> str:
    values = list(values)
    if not values:
        return ""
    spread = (
        ""
        if len(values) < 2
        else f" ± {(sum((v - fmean(values)) ** 2 for v in values) / (len(values) - 1)) ** 0.5:.{digits}f}"
    )
    return f"{fmean(values):.{digits}f}{spread}"


def _metrics(found: Findings, row: Row, seed: int) -> list[dict[str, float]]:
    cell = next(cell for cell in row.cells if cell.seed == seed)
    folder = found.study.run_folder(cell)
    return folder.metrics() if folder.metrics_file.is_file() else []


def _training_error(found: Findings, row: Row, seed: int) -> float | None:
    """Of the deployed network on the augmented training images of the last epoch, with the labels that it was given."""
    metrics = _metrics(found, row, seed)
    if not metrics:
        return None
    peers = [f"train/accuracy/peer{k}" for k in range(len(row.result["peers"]))]
    names = peers if found.deployed == "mean_peer" else [f"train/accuracy/{found.deployed}"]
    return 100 * (1 - fmean(metrics[-1][name] for name in names))


def _provenance(found: Findings) -> str:
    commits: dict[str, None] = {}
    machines: dict[str, None] = {}
    from collegium.training.recipe import read_yaml

    for outcome in found.outcomes:
        if outcome.state == "done":
            told = read_yaml(found.study.run_folder(outcome.cell).recipe_file)["provenance"]
            commits[told["commit"]] = None
            machines[
                f"{told['device']}, {told['threads']} thread{'s' * (told['threads'] != 1)} a run, torch {told['torch']}"
            ] = None
    return f"Computed on: {'; '.join(machines) or 'nothing yet'}. Commits: {', '.join(commits) or 'none yet'}."


def _tuning(name: str) -> list[str]:
    folder = RESULTS / name / "tuning"
    if not (folder / "study.yaml").is_file():
        return []
    rows = findings(Study.open(folder)).rows
    lines = ["| setting | n | validation accuracy |", "|---|---:|---:|"]
    for row in rows:
        if row.results:
            values = [_accuracy(result, "peer0", "validation") for result in row.results.values()]
            lines.append(f"| `{row.method}` | {len(values)} | {_mean(values)} |")
    return [
        "Settings were chosen by networks alone, on validation images, with seeds that the study does not have "
        f"(`python benchmarks/studies.py tune {name}`):",
        "\n".join(lines),
    ]


def _figure(rows: int, width: float = 7.5) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "collegium", "font.size": 10}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, 0.5 * rows + 1.4), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def gains_figure(found: Findings, file: Path) -> None:
    """Every comparison of the deployed predictor: a dot a seed, the mean, its interval."""
    shown: list[Comparison] = found.headline[::-1]
    figure, axes = _figure(len(shown))
    axes.axvline(0, color="#888888", linewidth=1)
    for y, c in enumerate(shown):
        colour = "#0072B2" if c.decision is not None else "#999999"
        axes.scatter(list(c.gain.by_seed.values()), [y] * len(c.gain.by_seed), s=14, color=colour, alpha=0.45)
        axes.scatter([c.gain.spread.mean], [y], s=45, color=colour, marker="D")
        if c.interval is not None:
            axes.plot(c.interval, [y, y], color=colour, linewidth=2)
    axes.set_yticks(range(len(shown)), [f"{c.row.method}\nover {c.over}" for c in shown])
    axes.set_xlabel("gain of one network, points")
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, metadata={"Date": None})


def _curves(found: Findings) -> dict[str, dict[float, float]]:
    """Row -> epoch -> mean test accuracy of the deployed predictor, of rows that were scored in several epochs."""
    key, curves = f"test/{found.deployed}/top1_error", {}
    for row in found.rows:
        runs = [{m["epoch"]: 100 * (1 - m[key]) for m in _metrics(found, row, s) if key in m} for s in row.results]
        epochs = sorted(set.intersection(*map(set, runs))) if runs else []
        if len(epochs) > 1:
            curves[f"{row.method} ({len(runs)})"] = {e: fmean(run[e] for run in runs) for e in epochs}
    return curves


def curves_figure(curves: Mapping[str, Mapping[float, float]], file: Path) -> None:
    """Mean test accuracy over the epochs that were scored, a line a row."""
    figure, axes = _figure(6)
    for label, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy of one network, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def progress(names: Sequence[str]) -> None:
    """How far every study is."""
    for name in names:
        file = RESULTS / name / "study" / "study.yaml"
        if not file.is_file():
            print(f"{name:14} not begun")
            continue
        outcomes = Study.open(file.parent).outcomes()
        print(f"{name:14} {sum(o.state == 'done' for o in outcomes)} of {len(outcomes)} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["list", "tune", "plan", "run", "check", "pages"])
    parser.add_argument("name", nargs="?", choices=list(STUDIES))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--row", default=ALONE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = list(STUDIES) if options.name is None else [options.name]
    if options.command in ("tune", "plan", "run", "check") and options.name is None:
        parser.error(f"{options.command} needs the name of a study: {', '.join(STUDIES)}")
    if options.command == "list":
        progress(names)
    elif options.command == "pages":
        pages(names)
        (RESULTS / "README.md").replace(ROOT / "README.md")
    elif options.command == "check":
        check(options.name, options.row, options.seed)
    elif options.command == "tune":
        tune(options.name, options.workers)
    else:
        run(options.name, options.workers, plan_only=options.command == "plan")


if __name__ == "__main__":
    main()
