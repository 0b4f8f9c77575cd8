"""The table of a study: one model, and how it is written for the terminal, Markdown, LaTeX and CSV."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from collegium.cohort import is_peer
from collegium.data import title as data_title
from collegium.files import write_whole
from collegium.formatting import MISSING, count, number, plural, printable
from collegium.networks.names import parse_peers
from collegium.pages.html import Html, element
from collegium.pages.sheet import Cell, Column, Sheet, csv_text, latex, markdown, several, shown
from collegium.results import wording
from collegium.results.answer import answer
from collegium.results.comparison import ONE_NETWORK, Comparison, Findings, Row
from collegium.results.runs import FinishedRuns
from collegium.results.scores import all_predictors, p_value, uneven, written
from collegium.results.statistics import LEVEL, POWER, Spread


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    row: Row
    cells: Mapping[str, Cell]


class StudyTable:
    """What came out of a study, row by row. Printing it shows it in the terminal.

    Args:
        findings: the study as it stands.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.rows = [row for row in findings.rows]

    @property
    def of_runs(self) -> bool:
        """Whether this is of runs that were trained one by one, not of a study."""
        return isinstance(self.findings.study, FinishedRuns)

    @property
    def title(self) -> str:
        """ "4 methods × 2 cohorts × 3 seeds on digits, 30 epochs" """
        cells = self.findings.study.cells
        counts = {
            "method": len({row.method for row in self.rows}),
            "cohort": len({row.cohort for row in self.rows}),
            "seed": len({cell.seed for cell in cells}),
        }
        sizes = " × ".join(plural(n, what) for what, n in counts.items())
        epochs = {cell.recipe.epochs for cell in cells}
        length = f", {plural(epochs.pop(), 'epoch')}" if len(epochs) == 1 else ""
        data = dict.fromkeys(data_title(cell.recipe.data_name, cell.recipe.data_options) for cell in cells)
        return f"{sizes} on {', '.join(data)}{length}"

    @cached_property
    def answer(self) -> str:
        """Whether it was worth it, in a sentence; "" where nothing is compared."""
        return answer(self.findings)

    @cached_property
    def columns(self) -> list[Column]:
        finished = [row for row in self.rows if row.results]
        by_class = any(uneven(row.result["test_images_per_class"]) for row in finished)
        mixed = any(is_peer(name) for row in finished for name in row.predictors)
        names = {against for against in self.findings.study.reference.values()}
        methods = dict.fromkeys(row.method for row in self.rows if row.label in names)
        against = " or ".join(methods) or "the reference"
        compared = self.findings.headline
        found = [Column("n", "n", "", "finished runs, one a seed")]
        if any(row.validation() for row in finished):
            meaning = "accuracy of one network on images held out of training, by which settings are chosen"
            found.append(Column("validation", "validation", "%", meaning))
        found += [Column("one", "one network", "%", "mean over the peers")]
        if len({c.over for c in compared}) > 1:
            found += [Column("over", "over", "", "what the row is compared with")]
        if compared:
            over = "that row" if found[-1].key == "over" else compared[0].over
            same = "same peers and seeds" if all(c.row.cohort == c.other.cohort for c in compared) else "same seeds"
            found.append(Column("gain", "gain", "points", f"of {_name(self.findings.deployed)} over {over}, {same}"))
            tested = any(c.decision for c in compared)
            if tested:
                found.append(Column("verdict", "verdict", "", "what the gain shows"))
            found.append(Column("wins", "wins", "", "seeds on which the gain is above 0"))
            if tested:
                found += [
                    Column("smallest", "could show", "points", "the smallest gain that the study shows 4 times of 5"),
                    Column("p", "p", "", "paired t-test over the seeds, corrected by Holm"),
                ]
        if by_class:
            found += [
                Column("average", "average acc.", "%", "of one network, mean over the classes"),
                Column("kappa", "kappa", "× 100", "of one network: agreement with the truth beyond chance"),
            ]
        if any("ensemble" in row.predictors and len(row.result["peers"]) > 1 for row in finished):
            found += [Column("ensemble", "ensemble", "%", "mean of the peers' logits")]
        if any(row.own for row in finished):
            found += [Column("own", "method's own", "%", "its further predictors, by their names")]
        if mixed:
            found += [Column("each", "each peer", "%", "where the peers are of different kinds")]
        if any(self.findings.relative_cost(row) is not None for row in finished):
            peers = ", same peers" if all(c.row.cohort == c.other.cohort for c in compared) else ""
            found += [Column("cost", "training", "time", f"training seconds over those of {against}{peers}")]
        return [*found, Column("ece", "ECE", "%", "expected calibration error of one network")]

    @cached_property
    def lines(self) -> list[Line]:
        lines = [Line(row, self._cells(row)) for row in self.rows]
        best: dict[tuple[str, ...], float] = {}
        for line in lines:
            for key in ("one", "ensemble"):
                value = line.cells[key].value
                if isinstance(value, float):
                    place = *line.row.rivals, key
                    best[place] = max(best.get(place, value), value)
        trained = Counter(row.rivals for row in self.rows if row.results)
        return [
            Line(
                line.row,
                {
                    key: replace(cell, strong=True)
                    if trained[line.row.rivals] > 1
                    and cell.value is not None
                    and best.get((*line.row.rivals, key)) == cell.value
                    else cell
                    for key, cell in line.cells.items()
                },
            )
            for line in lines
        ]

    def _cells(self, row: Row) -> dict[str, Cell]:
        n, all_of_them = len(row.results), len(row.cells)
        later = " added later" if len(row.later) == all_of_them else f", {len(row.later)} added later"
        told = str(n) if n == all_of_them else f"{n} of {all_of_them}"
        runs = Cell(told + (later if row.later else ""), n)
        if not n:
            empty = {key: Cell() for key in (*_KEYS, *_KEYS_OF_A_GAIN)}
            return empty | {"n": runs}
        ratio = self.findings.relative_cost(row)
        several = len(row.result["peers"]) > 1
        peers = [name for name in row.predictors if is_peer(name)]
        return {
            "n": runs,
            "validation": _spread(row.validation()),
            "one": _spread(row.spread(ONE_NETWORK)),
            **(_by_class(row) if any(column.key == "average" for column in self.columns) else {}),
            "each": _named(row, peers),
            "ensemble": _spread(row.spread("ensemble")) if several else Cell(),
            "own": _named(row, row.own),
            **comparison_cells(self.findings.compared(row, self.findings.deployed)),
            "cost": Cell() if ratio is None else Cell(f"{ratio:.2f} ×", ratio),
            "ece": _spread(row.spread(ONE_NETWORK, "ece"), digits=1),
        }

    @property
    def caption(self) -> list[str]:
        """How the numbers came about, in sentences."""
        return self._caption(self.columns)

    def _caption(self, columns: Sequence[Column]) -> list[str]:
        """The same, of these columns alone."""
        finished = [row for row in self.rows if row.results]
        if not finished:
            return ["No run is finished yet."]
        images = {row.result["test_images"] for row in finished}
        where = f"the {images.pop():,} test images" if len(images) == 1 else "the test images"
        text = [
            f"Top-1 accuracy on {where} after the last epoch, mean ± sample standard deviation over n seeds; nothing "
            "was selected on test images."
        ]
        told = "validation", "one", "ensemble", "own", "each"
        text += [f"{c.name}: {c.meaning}." for c in columns if c.key in told]
        meanings = {c.key: c.meaning for c in columns}
        if self.findings.headline:
            text += self._decided(meanings)
        if "cost" in meanings:
            text.append(
                f"training time: {meanings['cost']}, on the same kind of device; runs that computed side "
                "by side disturb it."
            )
        text += ["ECE: expected calibration error of one network."] if "ece" in meanings else []
        return [*text, *self.trunks, *self.reconstructed]

    def _decided(self, meanings: Mapping[str, str]) -> list[str]:
        """What the columns of the gain mean, of those that are shown."""
        k, margin = self.findings.contrasts, self.findings.margin
        level = f"{LEVEL:g} / {k}" if k > 1 else f"{LEVEL:g}"
        gain, wins = meanings["gain"], f"; wins: {meanings['wins']}" if "wins" in meanings else ""
        if not self.could_show:
            return [f"gain: {gain}{wins}.", "Nothing was tested: that takes two seeds or more."]
        where = f"1 – {level}"
        if k > 1 and any(c.decision is None for c in self.findings.headline):
            where += ", of 95 % where it is descriptive"
        corrected = f", corrected for {k} tests by Holm's procedure" if k > 1 else ""
        p = f"two-sided paired t-test of the gain over the seeds that both rows have{corrected}"
        smallest = (
            f"could show: the smallest true gain that the test at {level} finds with a power of {100 * POWER:.0f} %, "
            "by the deviation over the row's own seeds."
        )
        return [
            f"gain: {gain}, with its confidence interval at {where}{wins}.",
            *([f"p: {p}."] if "p" in meanings else [f"p is that of the {p}."]),
            *([smallest] if "smallest" in meanings else []),
            self.could_show,
            f"verdict: better or worse where p < {LEVEL:g}; no difference of more than x where the interval lies "
            f"within ±x and x is at most {margin:g} point{'' if margin == 1 else 's'}; else undecided.",
        ]

    @property
    def could_show(self) -> str:
        """The gains that were large enough for this study, in a sentence; "" where nothing was tested."""
        smallest = [
            points(c.smallest) for c in sorted(self.findings.headline, key=lambda c: c.smallest or 0) if c.smallest
        ]
        if not smallest:
            return ""
        return f"This study could have shown gains of {' to '.join(dict.fromkeys((smallest[0], smallest[-1])))} points."

    @property
    def plan(self) -> list[str]:
        """What was to be found out, and when that was said; nothing where the study has no plan."""
        plan = self.findings.study.plan
        if plan is None:
            return []
        method = {row.label: row.method if len(self.findings.cohorts()) == 1 else row.label for row in self.rows}
        pairs = "; ".join(f"{method[c.row]} vs {method[c.against]}" for c in plan.contrasts)
        seeds = ", ".join(map(str, plan.seeds))
        commit = f", commit {plan.commit}" if plan.commit else ""
        day, _, time = plan.written.removesuffix("Z").partition("T")
        return [
            *([f"Hypothesis: {plan.hypothesis}"] if plan.hypothesis else []),
            f"Contrasts: {pairs}, of {_name(plan.deployed)}, n = {len(plan.seeds)} (seeds {seeds}).",
            f"Planned {day} {time} UTC{commit}, before the first run. The contrasts are decided by the planned seeds "
            "alone; what is not among them is descriptive.",
        ]

    @property
    def trunks(self) -> list[str]:
        """Which rows share a trunk."""
        shared: dict[str, list[str]] = {}
        for row in self.rows:
            until = row.cells[0].recipe.share_until
            if until is not None:
                shared.setdefault(until, []).append(row.label)
        if not shared:
            several = any(len(parse_peers(row.cohort)) > 1 for row in self.rows)
            return ["The peers share no layers."] if several else []
        told = [f"{', '.join(labels)}: the peers share {wording.shared(until)}." for until, labels in shared.items()]
        rest = len(self.rows) - sum(map(len, shared.values()))
        return [*told, "All others share no layers."] if rest else told

    @property
    def reconstructed(self) -> list[str]:
        told = {row.result["method"]: row.result["reconstructed"] for row in self.rows if row.results}
        return [
            f"{method} is reconstructed, for want of a description: {what}." for method, what in told.items() if what
        ]

    @property
    def problems(self) -> list[str]:
        """What is missing from the table, and why."""
        study = self.findings.study
        rows = [f"Left out: {label}: {reason}" for label, reason in study.left_out.items()]
        if isinstance(study, FinishedRuns):
            rows += [f"Not compared: {label}: {reason}." for label, reason in study.not_compared.items()]
        for outcome in self.findings.unfinished:
            if outcome.state != "waiting" or outcome.error:
                rows.append(f"{outcome.state.capitalize()}: {outcome.cell.name}: {outcome.error}")
        waiting = sum(o.state == "waiting" and not o.error for o in self.findings.unfinished)
        if waiting:
            rows.append(f"Waiting: {waiting} of {len(self.findings.outcomes)} runs")
        return rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """A table a cohort, without the columns that a narrow terminal has no room for; words are broken last."""
        if self.answer:
            yield shown(self.answer, "bold")
        yield shown(self.title, "" if self.answer else "bold")
        for sentence in self.plan:
            yield shown(sentence)
        wide = options.update(width=1000)

        longest = max((len(row.method) for row in self.rows), default=0)

        def tables(columns: Sequence[Column], room: int = longest) -> list[RichTable]:
            return [self._of_cohort(rows, columns, room) for rows in self.findings.cohorts().values()]

        def excess(columns: Sequence[Column]) -> int:
            found = [console.measure(table, options=wide).maximum for table in tables(columns)]
            return max(found, default=0) - options.max_width

        kept, narrow = self._fitting(lambda columns: excess(columns) <= 0)
        room = longest - max(0, excess(kept))
        for cohort, table in zip(self.findings.cohorts().items(), tables(kept, room), strict=True):
            yield Text("\n").append_text(shown(f"{cohort[0]}{_size(cohort[1])}", "bold cyan"))
            yield table
        if narrow:
            yield shown(f"In table.md, for want of room: {', '.join(narrow)}.", "dim")
        yield shown(" ".join(self._caption(kept)), "dim")
        for problem in self.problems:
            yield shown(problem, "red" if problem.startswith("Failed") else "yellow")

    def _fitting(self, fit: Callable[[Sequence[Column]], bool]) -> tuple[list[Column], list[str]]:
        """As many columns as fit, and the names of those that are left out."""
        narrow: list[str] = []
        for key in ("", *_DISPENSABLE):
            narrow += [column.name for column in self.columns if column.key == key]
            kept = [column for column in self.columns if column.name not in narrow]
            if fit(kept):
                break
        return kept, narrow

    def _repr_html_(self) -> Html:
        """The table with its caption, for a notebook."""
        text = [*self.plan, " ".join(self.caption), *self.problems]
        first = element("p", element("strong", self.answer)) if self.answer else ""
        return element("div", first, self._whole.html(caption=self.title), [element("p", entry) for entry in text])

    @property
    def _whole(self) -> Sheet:
        """All cohorts in one."""
        columns = [_METHOD, Column("peers", left=True), *self.columns]
        rows = [[_row(line, [])[0], Cell(line.row.cohort), *_row(line, self.columns)[1:]] for line in self.lines]
        return Sheet(columns, rows)

    def _of_cohort(self, rows: Sequence[Row], columns: Sequence[Column], room: int) -> RichTable:
        """A cohort's rows, with names of at most ``room`` characters in a line where they can be broken so."""
        lines = [line for line in self.lines if line.row in rows]
        said = [c for c in columns if any(line.cells[c.key].text != MISSING for line in lines)]
        heads = [replace(c, left=True, wrap=True) if c.key in ("method", "verdict") else c for c in (_METHOD, *said)]
        names = [in_lines(line.row.method, room).split("\n") for line in lines]
        cells = [[several(name), *_row(line, said)[1:]] for name, line in zip(names, lines, strict=True)]
        return Sheet(heads, cells).terminal()

    def __str__(self) -> str:
        return self.markdown()

    def markdown(self) -> str:
        """The table with its caption, in GitHub's Markdown."""
        parts = [
            f"**{markdown(self.answer)}**" if self.answer else "",
            markdown(self.title) if self.answer else f"**{markdown(self.title)}**",
            _listed(self.plan),
            self._whole.markdown(),
            markdown(" ".join(self.caption)),
            _listed(self.problems),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def latex(self) -> str:
        """The table with its caption, for the package booktabs, without the columns that a page has no room for."""

        def sheet(columns: Sequence[Column]) -> Sheet:
            groups = [
                (cohort, [_row(line, columns) for line in self.lines if line.row in rows])
                for cohort, rows in self.findings.cohorts().items()
            ]
            heads = [replace(c, left=True) if c.key == "verdict" else c for c in columns]
            return Sheet([_METHOD, *heads], groups=groups)

        kept, narrow = self._fitting(lambda columns: sheet(columns).width <= LATEX_WIDTH)
        first, *notes = map(latex, self._caption(kept))
        lines = [
            "% needs \\usepackage{booktabs}",
            *(f"% {printable(sentence)}" for sentence in self.plan),
            *([f"% In table.md, for want of room: {', '.join(narrow)}."] if narrow else []),
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{first}}}",
            "  \\label{tab:comparison}",
            indent(sheet(kept).latex(), "  "),
            *(["  \\par\\medskip", "  \\begin{minipage}{\\linewidth}\\footnotesize"] if notes else []),
            *(f"    {note}" for note in notes),
            *(["  \\end{minipage}"] if notes else []),
            "\\end{table}",
            "",
            *(f"% {printable(problem)}" for problem in self.problems),
        ]
        return "\n".join(lines).rstrip() + "\n"

    def runs_csv(self) -> str:
        """One line a finished run and predictor, with every metric of the last epoch."""
        metrics: dict[str, None] = {}
        lines = []
        planned = self.findings.study.plan is not None
        for row in self.rows:
            for seed, result in row.results.items():
                for predictor, scores in all_predictors(result).items():
                    metrics |= dict.fromkeys(scores["last"])
                    cost = row.cost(predictor)
                    lines.append(
                        {"row": row.label, "method": row.method, "peers": row.cohort, "data": result["data"]}
                        | {"share_until": row.cells[0].recipe.share_until, "seed": seed, "predictor": predictor}
                        | {"network": row.name_of(predictor) if is_peer(predictor) else ""}
                        | dict(scores["last"])
                        | {"parameters": cost["parameters"], "flops": cost["flops"]}
                        | {"training_seconds": result["training_seconds"], "device": row.device}
                        | ({"added_later": "yes" if seed in row.later else "no"} if planned else {})
                    )
        named = ["row", "method", "peers", "data", "share_until", "seed", "predictor", "network"]
        return csv_text(
            [*named, *metrics, "parameters", "flops", "training_seconds", "device", *["added_later"] * planned], lines
        )

    def summary_csv(self) -> str:
        """One line a row, predictor and row that it is compared with: spread over the seeds, gain and test."""
        lines = []
        planned = self.findings.study.plan is not None
        for row in self.rows:
            for predictor in row.predictors:
                found, cost = row.spread(predictor), row.cost(predictor)
                assert found is not None
                several: list[Comparison | None] = [*self.findings.compared(row, predictor)]
                for compared in several or [None]:
                    lines.append(
                        {"row": row.label, "method": row.method, "peers": row.cohort, "predictor": predictor}
                        | {"n": found.n, "accuracy": found.mean, "accuracy_std": found.std}
                        | _comparison(compared)
                        | {"relative_training_time": self.findings.relative_cost(row)}
                        | {"parameters": cost["parameters"], "flops": cost["flops"]}
                        | ({"added_later": len(row.later)} if planned else {})
                    )
        heads = "row method peers predictor n accuracy accuracy_std against gain gain_std pairs wins p p_holm".split()
        heads += ["relative_training_time", "parameters", "flops", "gain_low", "gain_high", "smallest_gain", "verdict"]
        return csv_text([*heads, *["added_later"] * planned], lines)

    def write(self, folder: Path) -> list[Path]:
        """Writes table.md, table.tex, summary.csv and runs.csv, and returns where they are."""
        files = {"table.md": self.markdown(), "table.tex": self.latex()}
        files |= {"summary.csv": self.summary_csv(), "runs.csv": self.runs_csv()}
        for name, text in files.items():
            write_whole(folder / name, text)
        return [folder / name for name in files]


LATEX_WIDTH = 100
"""Characters, the space between columns among them, that a page of LaTeX has room for in a small font."""
_DISPENSABLE = ("ece", "cost", "wins", "p", "each", "own", "ensemble", "smallest", "n")
"""Columns that a narrow terminal or page goes without, one after the other."""
_KEYS = ("n", "validation", "one", "average", "kappa", "each", "ensemble", "own", "cost", "ece")
_KEYS_OF_A_GAIN = ("over", "gain", "wins", "smallest", "p", "verdict")


_METHOD = Column("method", left=True, code=True)


def _row(line: Line, columns: Sequence[Column]) -> list[Cell]:
    return [Cell(line.row.method), *(line.cells[column.key] for column in columns)]


def in_lines(name: str, width: int = 30) -> str:
    """A row's name in lines that leave chart or table their room, broken between its parts and options."""
    lines = [""]
    for part in re.split(r"(?<=:)|(?<= [·−] )", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(sentence)}" for sentence in sentences)


def _spread(found: Spread | None, *, sign: bool = False, digits: int = 2) -> Cell:
    if found is None:
        return Cell()
    return Cell(written(found, sign=sign, digits=digits), found.mean)


def points(value: float | None, *, sign: bool = False) -> str:
    """``"0.62"``, ``"+0.62"``."""
    return MISSING if value is None else number(value, sign=sign)


def gain_text(compared: Comparison) -> str:
    """``"+1.20 [0.30, 2.10]"``, without the interval where there is none."""
    bounds = "" if compared.interval is None else f" [{', '.join(map(points, compared.interval))}]"
    return points(compared.gain.spread.mean, sign=True) + bounds


def comparison_cells(compared: Sequence[Comparison]) -> dict[str, Cell]:
    """Column -> one text for each row that a predictor's row is compared with; sorted by the first."""
    texts: dict[str, list[tuple[str, float | None]]] = {
        "over": [(c.over, None) for c in compared],
        "gain": [(gain_text(c), c.gain.spread.mean) for c in compared],
        "verdict": [(c.verdict, None) for c in compared],
        "wins": [(f"{c.gain.wins} of {c.gain.spread.n}", c.gain.wins / c.gain.spread.n) for c in compared],
        "smallest": [(points(c.smallest), c.smallest) for c in compared],
        "p": [(p_value(c.p), c.p) for c in compared],
    }
    return {key: several([text for text, _ in found], found[0][1] if found else None) for key, found in texts.items()}


def _name(predictor: str) -> str:
    return {ONE_NETWORK: "one network", "ensemble": "the ensemble"}.get(predictor, predictor)


def _by_class(row: Row) -> dict[str, Cell]:
    return {
        "average": _spread(row.spread(ONE_NETWORK, "average_accuracy")),
        "kappa": _spread(row.spread(ONE_NETWORK, "kappa")),
    }


def _named(row: Row, predictors: Sequence[str]) -> Cell:
    """Several predictors with their names; sorted by the first."""
    found = {name: row.spread(name) for name in predictors}
    texts = [f"{row.name_of(name)} {written(s)}" for name, s in found.items() if s is not None]
    first = next(iter(found.values()), None)
    return several(texts, first.mean if first else None)


def _size(rows: Sequence[Row]) -> str:
    """What one network of a cohort takes."""
    finished = next((row for row in rows if row.results), None)
    if finished is None:
        return ""
    cost = finished.cost(ONE_NETWORK)
    mean = " on average" if len(set(finished.result["peers"])) > 1 else ""
    return f" · {count(cost['parameters'])} parameters, {count(cost['flops'])} FLOPs a network{mean}"


def _comparison(compared: Comparison | None) -> dict[str, Any]:
    if compared is None:
        return {}
    found = compared.gain.spread
    low, high = compared.interval or (None, None)
    return {
        "against": f"{compared.other.label}, {compared.against}",
        "gain": found.mean,
        "gain_std": found.std,
        "pairs": found.n,
        "wins": compared.gain.wins,
        "p": None if compared.decision is None else compared.gain.p,
        "p_holm": compared.p,
        "gain_low": low,
        "gain_high": high,
        "smallest_gain": compared.smallest,
        "verdict": compared.verdict,
    }
