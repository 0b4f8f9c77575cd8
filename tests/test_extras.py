import re
import tomllib
from pathlib import Path

from collegium.extras import how_to_install

ROOT = Path(__file__).parent.parent
TEXTS = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]


def test_extras_are_advised_that_there_are_and_as_they_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for file in TEXTS for name in re.findall(r"how_to_install\(['\"](\w+)['\"]\)", file.read_text())}
    assert named and named <= set(extras)
    assert "pip install -e '.[onnx]'" in how_to_install("onnx")
    assert [file.name for file in TEXTS if "collegium[" in file.read_text()] == []  # no package index has it
