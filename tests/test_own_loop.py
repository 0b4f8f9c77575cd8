"""The loops in examples/own_loop, shortened, run as their reader would run them."""

import logging
import re
import runpy
import sys
from pathlib import Path

import pytest

LOOPS = Path(__file__).parent.parent / "examples" / "own_loop"
PAGE = Path(__file__).parent.parent / "docs" / "own_loop.md"


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")  # Lightning
@pytest.mark.parametrize("name", sorted(file.stem for file in LOOPS.glob("*.py") if file.stem != "digits"))
def test_a_loop_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (LOOPS / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 40
    monkeypatch.syspath_prepend(str(LOOPS))
    monkeypatch.setattr(logging.root.manager, "disable", logging.root.manager.disable)  # which the examples change
    short, folder = tmp_path / f"{name}.py", tmp_path / "folder"
    short.write_text(re.sub(r"^EPOCHS = \d+", "EPOCHS = 1", text, flags=re.MULTILINE))
    folder.mkdir()
    monkeypatch.chdir(folder)
    try:
        runpy.run_path(str(short), run_name="__main__")
    finally:
        sys.modules.pop("digits", None)
    assert re.fullmatch(r"alone [01]\.\d{3}, together [01]\.\d{3}\n", "".join(capsys.readouterr()))
    assert not list(folder.iterdir())


def test_the_page_links_every_loop() -> None:
    linked = set(re.findall(r"own_loop/(\w+)\.py", PAGE.read_text()))
    assert linked == {file.stem for file in LOOPS.glob("*.py")} - {"digits"}
