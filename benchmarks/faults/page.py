"""The page of all campaigns, results/reliability/README.md, from their records."""

import json
from pathlib import Path
from typing import Any

from trials import OK, RESULTS, Record, kinds

TITLES = {
    "hostile": "Hostile inputs",
    "flips": "Flipped bytes",
    "wrong": "Wrong inputs",
    "storage": "Storage that fails",
    "kills": "Kills",
    "load": "Load",
    "networks": "Networks of all kinds",
    "mutation": "Mutants of the equations",
}

ASKED = {
    "hostile": "Files that an attacker made are given to the command line. Nothing of theirs runs, nothing outside the "
    "folder is changed or told, the command ends within 5 s and 1 GiB more of memory, in one sentence or with what "
    "is shown escaped.",
    "flips": "A few bytes of a finished run's file are changed. Loading must notice: it refuses the file, or takes the "
    "checkpoint before it with a warning.",
    "wrong": "A wrong option, recipe, data set, array or argument is refused in one sentence of at most 300 "
    "characters, with a status that is not 0, and nothing is left half written.",
    "storage": "The disk is full, or cannot be written, at every place where a small run, study, report or export "
    "writes. The sentence names the file; once there is space, the same command goes on and ends bit for bit like "
    "an undisturbed one.",
    "kills": "A small run is killed (SIGKILL) again and again, at a random moment or before, in or after a chosen file "
    "operation, until it ends. Weights, optimizer and result are then bit for bit those of an undisturbed run.",
    "load": "Many steps, and many runs, in one process: memory, open files and threads do not grow.",
    "networks": "The networks of [Architectures](../../docs/architectures.md) and one more of each of timm's families "
    "are trained by the command line. Each trains, diverges, or is refused in one sentence; none ends the command by a "
    "crash.",
    "mutation": "The code of losses, heads and methods is changed in one place, and the tests that reach it are run. A "
    "case is a function; it fails where a mutant passes them all. Mutants that do the same as the original are "
    "[listed with the reason](../../benchmarks/faults/alike.yaml).",
}


def write_page(folder: Path = RESULTS) -> None:
    """Writes README.md of the campaigns whose records are there."""
    lines = ["# Reliability", "", "Made by the scripts in `benchmarks/faults`; do not edit by hand.", ""]
    rows, parts = [], []
    for name, title in TITLES.items():
        record = Record(name, folder, goes_on=True)
        if not record.table.exists():
            continue
        rows.append(f"| [{title}](#{title.lower().replace(' ', '-')}) | {len(record.cases)} | {len(record.failed)} |")
        parts += _part(record, title)
    lines += ["| campaign | cases | failed |", "| --- | ---: | ---: |", *rows, *parts]
    discussion = folder / "discussion.md"
    if discussion.exists():
        lines += ["", discussion.read_text().strip()]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _part(record: Record, title: str) -> list[str]:
    lines = ["", f"## {title}", "", ASKED[record.name], ""]
    lines += [
        f"`python benchmarks/faults/{record.name}.py`; every case is a line of [{record.name}.csv]({record.name}.csv).",
        "",
    ]
    lines += ["| kind | cases | failed | longest, s |", "| --- | ---: | ---: | ---: |"]
    for kind, cases in kinds(record.cases).items():
        failed = sum(case.outcome != OK for case in cases)
        lines.append(f"| {kind} | {len(cases)} | {failed} | {max(case.seconds for case in cases):.1f} |")
    if record.failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {c.number}, {c.kind}, `{_plain(c.what)}`: {_plain(c.outcome)}" for c in record.failed]
    figure = record.folder / f"{record.name}.svg"
    if figure.exists():
        lines += ["", f"![{title}]({figure.name})"]
    return [*lines, "", *(_told(session) for session in record.sessions)]


def _told(session: dict[str, Any]) -> str:
    known = ("date", "commit", "device", "platform", "python", "torch", "seed", "cases", "seconds")
    more = "".join(f", {name.replace('_', ' ')} {value}" for name, value in session.items() if name not in known)
    return (
        f"- {session['date']}, commit {session['commit']}: {session['cases']} cases in {session['seconds']} s, "
        f"seed {session['seed']}; {session['device']}, {session['platform']}, Python {session['python']}, "
        f"torch {session['torch']}{more}."
    )


def _plain(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)[1:-1].replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    write_page()
