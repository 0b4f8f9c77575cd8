"""The loops in examples/own_loop, shortened, run as their reader would run them."""

import copy
import logging
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch
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


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")  # Lightning
def test_the_page_s_code_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)

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
        "training_set": [{"pixel_values": torch.rand(3, 32, 32), "labels": k % 10} for k in range(16)],
        "test_set": [{"pixel_values": torch.rand(3, 32, 32), "labels": k % 10} for k in range(6)],
        "settings": dict(num_train_epochs=1, report_to="none", save_strategy="no", dataloader_pin_memory=False),
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
    assert steps == [8, 8, 2, 2 + 2, 8, 1]  # the second is a class alone
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    training = names["Training"]()
    batches = torch.utils.data.DataLoader(names["batches"], batch_size=None)
    lightning.pytorch.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(training, batches)
    assert training.kd.steps == 8 and training.network is network
    answers = names["trainer"].predict(names["test_set"])
    assert answers.predictions.shape == (6, 10) and answers.label_ids.tolist() == list(range(6))
    assert torch.equal(
        torch.from_numpy(answers.predictions),
        network.eval()(torch.stack([image["pixel_values"] for image in names["test_set"]])),
    )
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
