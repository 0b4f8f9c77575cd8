"""The page of what agrees with the authors' code, results/agreement/README.md, from its record."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clones import REPOSITORIES
from differences import AGREES, Row, read

RESULTS = Path(__file__).parents[2] / "results" / "agreement"
NOT_TRIED = "not tried: clone is missing"

INTRODUCTION = f"""\
Collegium's losses and those of public code are given the same random logits, maps, labels and weights, in float64.
Compared are losses and their gradients for logits, maps and heads, or the weights and running statistics of small
networks after some steps. *Agrees*: no difference above {AGREES:.0e}, relative to the largest entry of a tensor.

Where both differ, what is known to differ is taken out on one side, and they are compared again: the column *changed*
says what, *theirs* or *ours*. No code of others is in this repository: the script reads it from clones, at the
commits below, and runs it as it is there, but for what *changed* says, GPUs, and what newer versions of torch or Python
no longer take."""

NO_DIVERGENCE = (
    "A slip of the code: it adds 1e-7 to the target, which then sums to more than 1, so that its term is no divergence."
)

DIFFERENCES: dict[str, list[str]] = {
    "ab": [
        "Not compared: in the benchmark's initialisation the student's norms are in evaluation mode, here in training "
        "mode, and maps of equal shape have no connector; the authors' second phase, KL at T = 3 without its T²."
    ],
    "afd": [
        "There is no code of the authors. In the re-implementation gradients reach what is imitated; ours is a "
        "constant, as in DML.",
        "An error there: the networks descend the loss of their discriminators, and help them in place of fooling "
        "them, so that its gradient for maps is not that of L_G. Its two discriminators have each other's names.",
    ],
    "at": [],
    "cl_ilr": [
        "OKDDip's form of the method: both terms count 1, at T = 3; ours with β = 0.5 is half of it. "
        "The gradient of the trunk is divided by the number of heads on both sides.",
        NO_DIVERGENCE,
        "In it gradients reach what is imitated; ours is a constant.",
    ],
    "codistillation": [
        "There is no code of the authors. The cross-entropy of the re-implementation is ours and the entropy of the "
        "target, a constant. Its kl_divergence, the default, has the other direction.",
    ],
    "competitive": ["One network's images are strongly changed in every tenth batch of the code, here in none."],
    "dkd": [],
    "dml": [
        "The authors' code (TensorFlow 1, whose functions are given torch's tensors) adds 1e-8 to a probability and to "
        "a quotient, so that its term is no divergence. It sums over the others; ours averages by default.",
        f"OKDDip's form of the method has T = 3. {NO_DIVERGENCE} Gradients reach what is imitated there; ours is a "
        "constant, as in DML's code. Its ensemble is the mean of the others' logits, ours of their probabilities.",
        "The code of the Rényi divergence clips probabilities at 1e-8. Here orders within 0.001 of 1 count as 1. "
        "The annealed order that it sets after an epoch is ours within that epoch.",
    ],
    "dualnet": [
        "Caffe is not run: the weights that its configuration for ImageNet names stand in the equations of its layers."
    ],
    "ffl": [NO_DIVERGENCE],
    "ffsd": [
        "The code numbers epochs from 1. The last place of the lowest third of the attention is moved there to half of "
        "the length, where the sign of 0 is 0; here it stays where it is, like the rest of the third.",
    ],
    "fitnets": [],
    "kd": [],
    "kdcl": [
        "There is no code of the authors. A re-implementation for graphs has two of the four targets. Its divergence "
        "is a mean over images and classes, divided by the images again, which is an error. It picks the target "
        "*naive* for a batch, ours for each image.",
        "Another takes the plain mean of the logits. That is another method, and so are the numbers called KDCL from "
        "it. The targets *linear* and *general* are compared with nothing.",
    ],
    "l_mcl": [
        "An error of the code: going back through an unrolled step, it adds the gradient of the momentum to that of "
        "the weights whole, where the derivative has the weight decay times it. Without momentum, or with a weight "
        "decay of 1, this is no difference.",
        "Its unrolled steps begin after the main step on the batch, ours before it.",
    ],
    "mcl": ["With more than two networks the code lets the last one alone imitate the mean of the logits, ours all."],
    "okddip": [f"{NO_DIVERGENCE} What is imitated is no constant, there or here."],
    "okdph": [
        "The code returns its peers towards the mean from before the last step, which they lose by the share γ; ours "
        "after it. It counts the steps between two returns within an epoch, from the first."
    ],
    "one": [NO_DIVERGENCE],
    "pcl": [
        "There is no code of the authors. In the re-implementation each view passes the trunk by itself; here all pass "
        "it together, and norms see them all.",
        "An error there: the ramp divides the epoch by the weight at its end, 1, and not by its length, 80. The weight "
        "is 1 in epoch 1 and below 0.01 from epoch 2 to 80. Ours rises over 80 of 300 epochs.",
    ],
    "switokd": [
        "With two students the code lets the teacher's optimizer step with a gradient of 0 where it waits, so that "
        "momentum and weight decay go on. With one it takes no step, as ours in both cases.",
    ],
    "tf_kd_reg": [
        "The code's divergence is a mean over images and classes, with a factor for each network: for ResNet-18 100, "
        "the number of CIFAR-100's classes, so that it is the mean over images there alone. Ours is that always.",
    ],
    "two_views": [
        "R-Drop adds the losses of both views, ours is their mean. Its image classifier sums the divergences over the "
        "images of a batch, ours averages them, so that its alpha is ours divided by their number.",
        "CR-CTC is given sequences of one frame with one label, whose CTC loss is the cross-entropy.",
    ],
}

NOT_COMPARED = {
    "independent": "cross-entropy alone, which is part of every comparison above",
    "mfef": "no public code is known",
    "ffcl": "no public code is known",
}


def write_page(folder: Path = RESULTS) -> None:
    """Writes README.md from agreement.csv and agreement.json."""
    rows = read(folder / "agreement.csv")
    where = json.loads((folder / "agreement.json").read_text())
    methods = sorted({row.method for row in rows})
    lines = ["# Agreement with the authors' code", "", "Made by `benchmarks/agreement`; do not edit by hand.", ""]
    lines += [INTRODUCTION, "", *_overview(rows), ""]
    lines += ["Not compared:", "", *(f"- `{name}`: {why}" for name, why in NOT_COMPARED.items())]
    for method in methods:
        lines += ["", *_section(method, [row for row in rows if row.method == method])]
    lines += ["", *_repeat(), "", _told(where)]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _overview(rows: Sequence[Row]) -> list[str]:
    lines = ["| method | code | whose | comparisons | agree as they are | agree with changes | differ |"]
    lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: |"]
    authors_of = {repository.address: repository.authors_of for repository in REPOSITORIES}
    for method, address in dict.fromkeys((row.method, row.repository) for row in rows):
        own = [row for row in rows if (row.method, row.repository) == (method, address)]
        whose = "the authors'" if method in authors_of[address] else "others'"
        begun = f"| [{method}](#{method}) | [{address}](https://github.com/{address}) | {whose} |"
        if own[0].verdict == NOT_TRIED:
            lines.append(f"{begun} {NOT_TRIED} | | | |")
            continue
        agree = {row.compared for row in own if row.verdict == "agrees"}
        at_once = {row.compared for row in own if row.verdict == "agrees" and not row.changed}
        every = {row.compared for row in own}
        lines.append(f"{begun} {len(every)} | {len(at_once)} | {len(agree - at_once)} | {len(every - agree)} |")
    return lines


def _section(method: str, rows: Sequence[Row]) -> list[str]:
    lines = [f"## {method}", "", f"[What it is](../../docs/methods/{method}.md)", ""]
    lines += [f"- {sentence}" for sentence in DIFFERENCES[method]]
    lines += [""] if DIFFERENCES[method] else []
    for address in dict.fromkeys(row.repository for row in rows):
        lines += [f"{address}:", "", "| compared | changed | loss or weights | gradient | |"]
        lines.append("| --- | --- | ---: | ---: | --- |")
        for row in rows:
            if row.repository == address:
                lines.append(f"| {row.compared} | {row.changed} | {row.value} | {row.gradient} | {row.verdict} |")
        lines.append("")
    return lines[:-1]


def _repeat() -> list[str]:
    """How to get the clones."""
    clones = [
        f"git clone --no-checkout https://github.com/{r.address} clones/{r.name}   # read at {r.commit[:12]}"
        for r in REPOSITORIES
    ]
    command = "python benchmarks/agreement/compare.py --clones clones"
    sensitive = (
        "With `--scale 1e-6` all losses of Collegium are larger by a millionth: then every comparison of a method's "
        "terms differs. Those of parts alone still agree, five in all: `boundaries of two maps`, `attention of two "
        "maps`, `the fused score` and `weight w` in two epochs."
    )
    return ["## To repeat it", "", "```bash", *clones, command, "```", "", sensitive]


def _told(where: dict[str, Any]) -> str:
    known = where["provenance"]
    return (
        f"{where['date']}, commit {known['commit']}: {known['device']}, {known['platform']}, Python {known['python']}, "
        f"torch {known['torch']}, in {where['seconds']} s. Every row is a line of [agreement.csv](agreement.csv)."
    )


if __name__ == "__main__":
    write_page()
