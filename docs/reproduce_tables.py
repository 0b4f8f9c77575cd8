"""The list of tables in reproduce.md, made from the tables themselves.

python docs/reproduce_tables.py      writes the end of docs/reproduce.md anew
"""

from collections import Counter
from pathlib import Path

from collegium.results.papers import PaperTable, papers
from collegium.results.published import CERTAINTY, in_table

PAGE = Path(__file__).with_name("reproduce.md")
MARK = "<!-- From here on written by docs/reproduce_tables.py -->"


def listing() -> str:
    """All tables, then paper by paper what is certain of their recipes."""
    heads = ["table", "what", "runs a seed", "published numbers", *CERTAINTY]
    lines = ["## Tables", "", f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for tables in papers().values():
        for table in tables:
            numbers = in_table(table.name)
            sure = Counter(number.certainty for number in numbers)
            cells = [f"`{table.name}`", table.title, len(table.cells()) or "none", len(numbers)]
            lines.append(f"| {' | '.join(map(str, [*cells, *(sure[key] or '' for key in CERTAINTY)]))} |")
    lines += ["", "## What is certain of the recipes, and what is not", ""]
    for name, tables in papers().items():
        if any(table.cells() for table in tables):
            lines += [f"**{name}**: {_linked(tables[0])}", "", *_sentences(tables), ""]
    return "\n".join(lines).rstrip() + "\n"


def _linked(table: PaperTable) -> str:
    return f"[{table.reference}]({table.link})." if table.link else f"{table.reference}."


def _sentences(tables: list[PaperTable]) -> list[str]:
    shared = [s for s in tables[0].reconstructed if all(s in table.reconstructed for table in tables)]
    lines = [f"- Certain: {sentence}." for sentence in tables[0].certain]
    lines += [f"- Reconstructed: {sentence}." for sentence in shared]
    for table in tables:
        lines += [f"- Reconstructed in `{table.name}`: {s}." for s in table.reconstructed if s not in shared]
    return lines


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n\n" + listing())
