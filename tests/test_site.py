"""What docs/site_hooks.py adds to mkdocs; `make site` builds the whole site, in which every link must hold."""

from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import site_hooks

    return site_hooks


def test_formulas_become_mathml_and_code_stays(hooks: ModuleType) -> None:
    import markdown

    html = markdown.markdown("with $`T^2`$ and `$x$`", extensions=[hooks.InlineFormulas()])
    assert "<msup><mi>T</mi><mn>2</mn></msup>" in html and "<code>$x$</code>" in html


def test_a_notebook_is_a_page_of_its_texts_and_code(hooks: ModuleType, tmp_path: Path) -> None:
    page = hooks.Notebook("notebooks/study.ipynb", str(ROOT), str(tmp_path), use_directory_urls=False)
    assert page.is_documentation_page() and page.dest_uri == "notebooks/study.html"
    assert page.content_string.startswith("# A study\n") and "```python\nimport collegium\n" in page.content_string


def test_patterns_in_the_navigation_are_pages_with_their_titles(hooks: ModuleType) -> None:
    (methods,) = hooks._expanded([{"Methods": ["docs/methods/d?l*.md", "README.md"]}])
    assert methods == {"Methods": [{"DML": "docs/methods/dml.md"}, "README.md"]}


def test_roles_and_equations_of_docstrings_are_markdown(hooks: ModuleType) -> None:
    import griffe

    text = "Sum.\n\n.. math:: a\n    b\n\nSee :func:`~collegium.train` and :math:`c`."
    with griffe.temporary_visited_module(
        f'"""{text}"""', extensions=griffe.load_extensions(hooks.Docstrings)
    ) as module:
        assert module.docstring.value == "Sum.\n\n```math\na\n    b\n```\n\nSee `collegium.train` and $`c`$."
