"""The page of a paper's table: one HTML file that needs nothing else, and no network."""

from collections.abc import Sequence
from pathlib import Path

from collegium.files import write_whole
from collegium.pages.document import document
from collegium.pages.html import Html, element, section
from collegium.pages.paper_table import Reproduction


def page(found: Reproduction) -> str:
    """The table as one HTML file that needs nothing else."""
    paper = found.table
    link = element("a", paper.link, href=paper.link, rel="noreferrer") if paper.link else ""
    body = element(
        "main",
        element(
            "header",
            element("h1", found.title),
            element("p", found.cohort) if found.cohort else "",
            element("p", paper.reference, " ", link, class_="soft"),
            element("p", found.warning, class_="notice") if found.warning else "",
        ),
        found.sheet.html(),
        element("p", " ".join(found.caption), class_="soft"),
        [element("p", problem, class_="soft") for problem in found.problems],
        section("What is certain of the recipe", _listed(paper.certain), id="certain") if paper.certain else "",
        section("What is reconstructed", _listed(paper.reconstructed), id="reconstructed")
        if paper.reconstructed
        else "",
        element("footer", element("p", "Written by ", element("code", "collegium reproduce"), ".", class_="soft")),
    )
    return document(found.title, body)


def write_files(found: Reproduction, folder: Path) -> list[Path]:
    """Writes the table as Markdown, CSV and a page, and returns where they are."""
    files = {".md": found.markdown(), ".csv": found.as_csv(), ".html": page(found)}
    for ending, text in files.items():
        write_whole(folder / f"{found.stem}{ending}", text)
    return [folder / f"{found.stem}{ending}" for ending in files]


def _listed(sentences: Sequence[str]) -> Html:
    return element("ul", [element("li", sentence) for sentence in sentences])
