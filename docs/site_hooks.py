"""What the site (mkdocs.yml) needs besides its plugins.

The site is made of the files as they lie in the repository: each keeps its path, so that a link between two of them,
also one that leaves docs/, holds on the site and on a code host alike. Notebooks are shown as committed, without
executing them. Formulas become MathML, which browsers draw without a script.
"""

import json
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = [  # pages, and what pages show or link to
    "*.md",
    "benchmarks/faults/*.yaml",
    "docs/**/*.md",
    "docs/**/*.png",
    "docs/**/*.svg",
    "docs/*.py",
    "examples/**/*.py",
    "notebooks/*.ipynb",
    "recipes/*.yaml",
    "results/*.md",
    "results/*/*.csv",
    "results/*/README.md",
    "results/*/tuning.md",
    "results/*/*.png",
    "results/*/*.svg",
    "src/collegium/**/*.py",
    "tests/methods/*.py",
]


class Notebook(File):
    """A notebook as a page: its texts and, in blocks, its code."""

    def is_documentation_page(self) -> bool:
        return True

    @property
    def content_string(self) -> str:
        cells = json.loads((ROOT / self.src_uri).read_text())["cells"]
        return "\n\n".join(
            f"```python\n{''.join(cell['source'])}\n```" if cell["cell_type"] == "code" else "".join(cell["source"])
            for cell in cells
        )


def on_config(config: MkDocsConfig) -> None:
    config.nav = _expanded(config.nav)
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": _displayed}]
    }
    config.markdown_extensions.append(InlineFormulas())


def _expanded(nav: Any) -> Any:
    """Patterns in the navigation are replaced by the pages that match, in the order of their paths."""
    if isinstance(nav, dict):
        return {title: _expanded(part) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    parts: list[Any] = []
    for part in nav:
        if isinstance(part, str) and "*" in part:
            parts += [{_title(path): path.relative_to(ROOT).as_posix()} for path in sorted(ROOT.glob(part))]
        else:
            parts.append(_expanded(part))
    return parts


def _title(page: Path) -> str:
    return next(line.removeprefix("# ") for line in page.read_text().splitlines() if line.startswith("# "))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """In place of what lies in docs/: the files of the repository that the site shows, each by its path in it."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)}):
        kind = Notebook if path.suffix == ".ipynb" else File
        name = path.relative_to(ROOT).as_posix()
        files.append(kind(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _displayed(formula: str, *_: Any, **__: Any) -> str:
    shown = convert(formula, display="block")
    shown = re.sub("<mpadded [^>]*>", "<mpadded>", shown)  # around what stands over arrows; browsers do not add widths
    return f'<div style="overflow-x: auto; overflow-y: hidden">{shown}</div>'


class InlineFormulas(Extension):
    """$`x`$, as code hosts write formulas in a line."""

    class Processor(InlineProcessor):
        def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
            return self.md.htmlStash.store(convert(m[1])), m.start(0), m.end(0)

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(self.Processor(r"\$`([^`]+)`\$", md), "formula", 200)  # before code


class Docstrings(griffe.Extension):
    """The reStructuredText of docstrings, as far as they use it, as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        text = obj.docstring.value
        text = re.sub(r"(?m)^( *)\.\. math:: *(.+(?:\n.+)*)", r"\1```math\n\1\2\n\1```", text)
        text = re.sub(r":math:`([^`]+)`", r"$`\1`$", text)
        obj.docstring.value = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
