"""The loops in examples/own_loop, shortened, run as their reader would run them."""

import copy
import logging
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from collegium import methods

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


def test_the_page_s_code_runs_from_top_to_bottom() -> None:
    def classifier() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
        )

    torch.manual_seed(0)
    network, segmenter = classifier(), nn.Conv2d(3, 5, 1)
    start = copy.deepcopy((network, segmenter))
    labels = torch.randint(5, (2, 6, 7))
    labels[0, :3] = 255
    names: dict[str, Any] = {
        "network": network,
        "other": classifier(),
        "epochs": 1,
        "batches": [(torch.rand(4, 3, 32, 32), torch.randint(10, (4,))) for _ in range(8)],
        "segmenter": segmenter,
        "another": nn.Conv2d(3, 5, 1),
        "maps": torch.rand(2, 3, 6, 7),
        "labels": labels,
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    steps = []
    for block in blocks:
        exec(block, names)
        steps.append(names["kd"].steps)
    assert steps == [8, 8 + 2, 8, 1]
    assert names["network"] is network and names["classes"].shape == (2, 6, 7)
    for now, before in zip((network, segmenter), start, strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(now.parameters(), before.parameters(), strict=True))


def test_the_page_names_every_method_that_reads_logits_alone() -> None:
    sentence = re.search(r"Methods that read logits alone do this: (.*?), and your own", PAGE.read_text(), re.DOTALL)
    assert sentence is not None
    able = {name for name in methods.names() if methods.get(name).logits_only}
    assert set(re.findall(r"`(\w+)`", sentence[1])) == able


def test_the_page_links_every_loop() -> None:
    linked = set(re.findall(r"own_loop/(\w+)\.py", PAGE.read_text()))
    assert linked == {file.stem for file in LOOPS.glob("*.py")} - {"digits"}
