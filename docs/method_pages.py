"""One page for each method, made from its docstring, its signature and what can be measured of it.

python docs/method_pages.py      writes docs/methods/*.md and *.svg anew

Nothing is written by hand: the words are those of the class's docstring, whose paragraphs open with one of the labels
below; options and defaults are the signature's; who teaches whom and what a method asks of a cohort are measured.
"""

import csv
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from docstring_parser import Docstring, DocstringStyle, parse
from teaching import Teaching, small_cohort, small_spec, teaching
from teaching_picture import LEGEND, draw, drawn

from collegium import methods
from collegium.cohort import CohortSpec
from collegium.errors import UsageError
from collegium.method import Method, ParameterGroup, trainable
from collegium.options import keywords
from collegium.training.recipe import Recipe

FOLDER = Path(__file__).parent / "methods"
LABELS = {  # how a paragraph of a docstring opens: the heading under which it stands on the page
    "Source": "Source",
    "Differs from the paper": "Where this version differs",
    "Differs from the code": "Where this version differs",
    "Differs from the source": "Where this version differs",
    "Known from": "What is certain, what is reconstructed",
    "Reconstructed": "What is certain, what is reconstructed",
    "When to use": "When to use it",
}


@dataclasses.dataclass(frozen=True)
class Text:
    """A method's docstring, taken apart."""

    idea: str
    sections: dict[str, list[str]]  # label, "" before the first: paragraphs
    options: dict[str, str]  # name -> meaning


def read(cls: type[Method]) -> Text:
    """The docstring's beginning, its paragraphs by label and its options."""
    parsed: Docstring = parse(inspect.getdoc(cls) or "", style=DocstringStyle.GOOGLE)
    sections: dict[str, list[str]] = {}
    label = ""
    for paragraph in re.split(r"\n\s*\n(?!\s)", parsed.long_description or ""):
        opening = re.match(rf"({'|'.join(LABELS)}):\s", paragraph)
        if opening:
            label, paragraph = opening[1], paragraph[opening.end() :]
        sections.setdefault(label, []).append(paragraph)
    options = {p.arg_name: p.description or "" for p in parsed.params if p.arg_name != "spec"}
    return Text(parsed.short_description or "", sections, options)


def markdown(paragraph: str) -> str:
    """A paragraph of reStructuredText, as far as docstrings use it, as GitHub's Markdown; one line, or a list."""
    blocks = re.split(r"(?m)^(?=\.\. math::)", paragraph.strip("\n"))
    return "\n\n".join(_equation(b) if b.startswith(".. math::") else _prose(b) for b in blocks if b.strip())


def _equation(block: str) -> str:
    lines = [line.strip() for line in block.removeprefix(".. math::").strip().splitlines()]
    if any(line.endswith("\\\\") for line in lines):
        lines = [r"\begin{aligned}", *lines, r"\end{aligned}"]
    return "\n".join(["```math", *lines, "```"])


def _prose(block: str) -> str:
    text = re.sub(r"\n(?!- )\s*", " ", block.strip())
    text = re.sub(r":math:`([^`]+)`", r"$`\1`$", text)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"`(results/\w+)`", r"[`\1`](../../\1/README.md)", text)
    return re.sub(r"https?://[^\s<>]*[^\s<>.,;:)]", r"<\g<0>>", text)


def page(name: str) -> str:
    """The page of a method as Markdown."""
    cls = methods.get(name)
    text, found = read(cls), teaching(name)
    by_heading: dict[str, list[str]] = {}
    for label, paragraphs in text.sections.items():
        converted = [markdown(paragraph) for paragraph in paragraphs]
        if label in ("Source", "When to use"):
            converted[0] = converted[0][0].upper() + converted[0][1:]
        elif label:
            converted[0] = f"{label}: {converted[0]}"
        by_heading.setdefault(LABELS.get(label, ""), []).extend(converted)
    certain = by_heading.setdefault("What is certain, what is reconstructed", [])
    reconstructed = f"reconstructed is {cls.reconstructed}" if cls.reconstructed else "nothing is reconstructed"
    certain.append(f"Printed with every result: {reconstructed}.")
    blocks = [
        f"<!-- Written by docs/method_pages.py from src/collegium/methods/{name}.py; edit that docstring instead. -->",
        f"# {cls.__name__}",
        f"{_module_line(cls)} {markdown(text.idea)}",
        "## Who teaches whom",
        f"![{told(cls.__name__, found)}]({name}.svg)",
        "\n".join(f"- {line}" for line in sentences(found)),
        MEASURED,
        "## Equations",
        *by_heading[""],
        "## Source",
        *by_heading["Source"],
        f"Code: [`src/collegium/methods/{name}.py`](../../src/collegium/methods/{name}.py).",
    ]
    for heading in dict.fromkeys(LABELS.values()):
        if heading != "Source" and heading in by_heading:
            blocks += [f"## {heading}", *by_heading[heading]]
    blocks += ["## Measured here", measured(name)]
    blocks += ["## Train it", f"```sh\n{chr(10).join(commands(name))}\n```", SHORT]
    options = list(_options(cls, text))
    blocks += ["## Options", _table(("option", "default", "meaning"), options) if options else "None."]
    blocks += ["## What it asks of a cohort", _table(("", ""), asks(name).items())]
    return "\n\n".join(blocks) + "\n"


STUDY = Path(__file__).parent.parent / "results" / "every_method"


def measured(name: str) -> str:
    """What the study of every method has found of one of them so far, in a sentence a row."""
    with (STUDY / "summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"].partition(",")[0] == name]
    told = [_row(row) for row in rows if row["predictor"] == "mean_peer" and row["n"] != "0"]
    if not told:
        return "Not in the study of every method yet."
    study = "[the study of every method](../../results/every_method/README.md)"
    return f"Top-1 accuracy of one network in {study}, a short training on few images:\n\n" + "\n".join(told)


def _row(row: dict[str, str]) -> str:
    def value(key: str, sign: str = "") -> str:
        spread = f" ± {float(row[key + '_std']):.2f}" if row[key + "_std"] else ""
        return f"{float(row[key]):{sign}.2f}".replace("-", "−") + spread

    seeds = f"{row['n']} seed" + "s" * (row["n"] != "1")
    against = row["against"].rpartition(",")[0].partition(" · ")[0]
    gain = f", {value('gain', '+')} points over `{against}`, seed by seed" if row["gain"] else ""
    return f"- `{row['method']}`, {row['peers']}: {value('accuracy')} % ({seeds}){gain}."


SHORT = (
    f"That is a short training of {Recipe().epochs} epochs in float32; papers train for 200 to 300 (`--epochs 300`). "
    "`--fastest` finds the precision that is fastest on your machine."
)
MEASURED = (
    "Measured with the defaults, on random outputs: X teaches Y where the gradient that Y descends changes with what X "
    "says, all others saying what they said ([how](../teaching.py))."
)


def _module_line(cls: type[Method]) -> str:
    return (sys.modules[cls.__module__].__doc__ or "").strip()


def sentences(found: Teaching) -> Iterator[str]:
    """The edges of the picture in words, those of one kind and source together."""
    verbs = {"teaches": "teaches", "trains": "trains, by its loss,", "is read by": "is read by"}
    for kind in LEGEND:
        for name in found.nodes:
            targets = [e.target for e in drawn(found) if e.kind == kind and e.source == name]
            if targets:
                verb = verbs.get(kind, kind)
                if name == "labels":
                    verb = "teach"
                yield f"{_called(found, name)} {verb} {_listed(targets)}."


def _called(found: Teaching, name: str) -> str:
    parts = found.nodes[name].parts
    return name + (f" ({', '.join(parts)})" if parts else "")


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def told(name: str, found: Teaching) -> str:
    """The picture in one line, for those who do not see it."""
    return f"Who teaches whom in {name}: " + " ".join(sentences(found))


def commands(name: str) -> list[str]:
    """The command that trains with a method, and before it the one that trains the teacher it needs."""
    cls = methods.get(name)
    teacher = " --teacher runs/teacher" if cls.needs_teacher else ""
    first = ["collegium train --method independent --peers resnet32 --data cifar100 --run runs/teacher"]
    train = f"collegium train --method {name} {cls.example}{teacher} --data cifar100 --run runs/{name}"
    return [*(first if teacher else []), train]


def _options(cls: type[Method], text: Text) -> Iterator[tuple[str, str, str]]:
    for name, parameter in keywords(cls, skip="spec").items():
        yield f"`--method.{name}`", f"`{_value(parameter.default)}`", markdown(text.options[name])


def _value(value: Any) -> str:
    """A default as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def asks(name: str) -> dict[str, str]:
    """What a method asks of a cohort, found by building it."""
    cls = methods.get(name)
    peers = max(2, cls.min_peers)
    spec = small_spec(peers, teacher=cls.needs_teacher)
    method = cls(spec)
    players = method.players(small_cohort(peers))
    last = " (the last)" if method.deployed_peer < 0 else ""
    own = [child for child, module in method.named_children() if trainable(module)]
    return {
        "peers": f"{least_peers(cls)} or more",
        "unlike peers": "yes" if not needs_trunk(cls) and _builds(cls, _unlike(spec)) else "not with the defaults",
        "shared trunk": "needed" if needs_trunk(cls) else "possible",
        "frozen teacher": _teacher(cls),
        "own view of an image for every peer": _views(method),
        "images of a class in every batch": f"{method.images_per_class} or more",
        "copies of the peers": _copies(method),
        "players and their optimizers": "; ".join(_player(method, p, groups) for p, groups in players.items()),
        "modules of its own": _code(own),
        "predictors besides the peers and `ensemble`": _code(teaching(name).predictors),
        "deployed where no predictor is named": f"`peer{method.deployed_peer % peers}`{last}",
    }


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _builds(cls: type[Method], spec: CohortSpec) -> bool:
    try:
        cls(spec)
    except UsageError:
        return False
    return True


@cache
def least_peers(cls: type[Method]) -> int:
    """The smallest number of peers that a method takes, beside a teacher where it needs one."""
    return next(n for n in range(1, 9) if _builds(cls, small_spec(n, teacher=cls.needs_teacher)))


@cache
def needs_trunk(cls: type[Method]) -> bool:
    """Whether a method takes no peers that share no layers."""
    return not _builds(cls, small_spec(least_peers(cls), trunk=False, teacher=cls.needs_teacher))


def _unlike(spec: CohortSpec) -> CohortSpec:
    """The same cohort, without a trunk, the first network's maps twice as wide and twice as large."""
    large = tuple((2 * d, 2 * h, 2 * w) for d, h, w in spec.feature_shapes[0])
    return dataclasses.replace(
        spec, names=("large", *spec.names[1:]), feature_shapes=(large, *spec.feature_shapes[1:]), trunk_shape=None
    )


def _teacher(cls: type[Method]) -> str:
    if cls.needs_teacher:
        return "needed"
    alone = _builds(cls, small_spec(1))
    other = not alone and cls.min_peers == 1 and _builds(cls, small_spec(1, teacher=True))
    return "possible: then one peer is enough" if other else "not used"


def _views(method: Method) -> str:
    return "yes" if method.own_views else f"no; {method.views} views for each" if method.views > 1 else "no"


def _copies(method: Method) -> str:
    shadow = method.shadow
    if shadow is None:
        return "none"
    often = "at every step" if shadow.every == 1 else f"every {shadow.every} steps"
    if shadow.hybrid:
        return f"one, the mean of their weights {often}"
    kind = f"a moving average of its weights with decay {shadow.decay:g}" if shadow.decay else "its weights as they are"
    return f"one of each, {kind}, {often}"


def _player(method: Method, player: str, groups: Iterable[ParameterGroup]) -> str:
    names = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
    optimizer = names[method.optimizers[player]] if player in method.optimizers else "the run's optimizer"
    own = []
    for group in groups:
        for key, value in group.items():
            if key != "params" and group["params"] and (key, value) != ("lr_scale", 1):
                own.append(f"{key.replace('lr', 'learning rate').replace('_', ' ')} {value:g}")
    return f"`{player}` by {optimizer}" + (f", in part with {_listed(own)}" if own else "")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    head = list(head)
    return "\n".join([row(head), "|" + "---|" * len(head), *map(row, rows)])


def index() -> str:
    """The table of all methods."""
    rows = []
    for name in methods.names():
        cls = methods.get(name)
        least, teacher = least_peers(cls), _teacher(cls).partition(":")[0]
        rows.append((f"[`{name}`]({name}.md)", markdown(read(cls).idea), str(least), teacher, cls.reconstructed))
    blocks = [
        "<!-- Written by docs/method_pages.py from the docstrings in src/collegium/methods. -->",
        "# Methods",
        "A page for each method: who teaches whom, its equations and source, when to use it, its options and what it "
        "asks of a cohort.",
        _table(("method", "idea", "least peers", "frozen teacher", "reconstructed"), rows),
    ]
    return "\n\n".join(blocks) + "\n"


def files() -> dict[str, str]:
    """Everything that the folder is to hold: file name -> text."""
    found = {"README.md": index()}
    for name in methods.names():
        label = methods.get(name).__name__
        found[f"{name}.md"] = page(name)
        found[f"{name}.svg"] = draw(f"Who teaches whom in {label}", " ".join(sentences(teaching(name))), teaching(name))
    return found


def main() -> None:
    torch.set_num_threads(1)  # the networks are too small for more
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for old in FOLDER.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)
    print(f"{FOLDER}: {len(wanted)} files")


if __name__ == "__main__":
    main()
