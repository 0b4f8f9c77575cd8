"""The loops in examples/own_loop, shortened, run as their reader would run them."""

import re
import runpy
import sys
from pathlib import Path

import pytest

LOOPS = Path(__file__).parent.parent / "examples" / "own_loop"
PAGE = Path(__file__).parent.parent / "docs" / "own_loop.md"


@pytest.mark.parametrize("name", ["plain", "with_timm"])
def test_a_loop_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (LOOPS / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 40
    monkeypatch.syspath_prepend(str(LOOPS))
    short = tmp_path / f"{name}.py"
    short.write_text(re.sub(r"^EPOCHS = \d+", "EPOCHS = 1", text, flags=re.MULTILINE))
    try:
        runpy.run_path(str(short), run_name="__main__")
    finally:
        sys.modules.pop("digits", None)
    assert re.fullmatch(r"alone [01]\.\d{3}, together [01]\.\d{3}\n", capsys.readouterr().out)


def test_the_page_links_every_loop() -> None:
    linked = set(re.findall(r"own_loop/(\w+)\.py", PAGE.read_text()))
    assert linked == {file.stem for file in LOOPS.glob("*.py")} - {"digits"}
