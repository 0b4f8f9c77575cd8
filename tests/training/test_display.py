import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny
from rich.console import Console

from collegium.training.cost import peer_costs
from collegium.training.display import Display, fitted
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.overview import overview

ACCURACY = {"peer0": 0.25, "peer1": 0.5, "ensemble": 0.75, "fused": 0.8}
ROW = {"epoch": 3.0, "train/all/ce": 1.5, "validation/mean_peer/top1_error": 0.625} | {
    f"{split}/{name}/top1_error": 1 - accuracy + (0.05 if split == "test" else 0)
    for split in ("validation", "test")
    for name, accuracy in ACCURACY.items()
}


def shown(act: Callable[[Display], None], width: int = 80, *, terminal: bool = True, **options: object) -> str:
    """What a display writes, without the codes that move and colour."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, force_interactive=terminal, color_system="standard"
    )
    values = dict(deployed="peer1", split="validation") | options
    with Display(40, 10, console=console, **values) as display:  # type: ignore[arg-type]
        act(display)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "\n")


def step(display: Display) -> None:
    display.begin([], [], 11, 0)
    display.begun -= 60
    display.step(11, 5, 1234.5, 3.25, ACCURACY)


@pytest.mark.parametrize("width", (60, 80, 120))
def test_the_bar_is_readable_with_the_time_left_and_the_speed(width: int) -> None:
    lines = shown(step, width).splitlines()
    bar = next(line for line in reversed(lines) if line.startswith("epoch 12/40"))
    assert bar.rstrip().endswith("29 %  57 min left  1,234 images/s")  # 28.5 epochs to go, a minute for each half
    assert bar.count("━") + bar.count("╸") + bar.count("╺") >= 10
    assert any(line.startswith("step 5/10  training accuracy peer1 50.00 %") for line in lines)
    assert max(map(len, lines)) <= width


def test_a_line_an_epoch_stays_above_the_bar_with_the_deployed_network_first() -> None:
    text = shown(lambda display: display.epoch_ended(ROW, 3.25, 90), 120)
    line = "epoch  3/40  validation accuracy peer1 50.00 %  ensemble 75.00 %  fused 80.00 %  peer0 25.00 %"
    assert f"{line}  total loss 3.250  2 min\n" in text
    narrow = shown(lambda display: display.epoch_ended(ROW, 3.25, 90), 60)
    assert "epoch  3/40  validation accuracy peer1 50.00 %" in narrow
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_pipe_gets_whole_lines_and_no_bar() -> None:
    def act(display: Display) -> None:
        step(display)
        display.epoch_ended(ROW, 3.25, 90)

    assert shown(act, 20, terminal=False, split="test") == (
        "goes on  at epoch 12 of 40\n"
        "epoch  3/40  test accuracy peer1 45.00 %  ensemble 70.00 %  fused 75.00 %  peer0 20.00 %"
        "  total loss 3.250  2 min\n"
    )


def test_an_epoch_without_an_evaluation_has_a_line() -> None:
    text = shown(lambda display: display.epoch_ended({"epoch": 4.0}, 3.25, 5), terminal=False)
    assert text == "epoch  4/40  total loss 3.250  5 s\n"


def test_a_network_alone_is_not_shown_twice() -> None:
    alone = {"epoch": 1.0, "test/peer0/top1_error": 0.5, "test/ensemble/top1_error": 0.5}
    text = shown(lambda d: d.epoch_ended(alone, 1, 5), terminal=False, split="test", deployed="peer0")
    assert text == "epoch  1/40  test accuracy peer0 50.00 %  total loss 1.000  5 s\n"


def test_where_it_goes_on_is_said_with_the_step() -> None:
    text = shown(lambda display: display.begin([("data", "x\x1b[2J")], ["A note."], 11, 4), terminal=False)
    assert text == "data     x[2J\ngoes on  at epoch 12 of 40, step 5 of 10\nA note.\n"
    assert shown(lambda d: d.begin([], [], 40, 0), terminal=False) == "goes on  after the last epoch\n"
    assert shown(lambda d: d.begin([], [], 0, 0), terminal=False) == ""
    text = shown(lambda d: d.begin([], [], 7, 0, stopped=True), terminal=False)
    assert text == "stopped  early, after epoch 7 of 40; the result is left to be written\n"


def test_quiet_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Display(2, 2, deployed="peer0", split="test", quiet=True) as display:
        display.begin([("data", "x")], ["A note."], 1, 1)
        display.step(1, 1, 1.0, 1.0, ACCURACY)
        display.epoch_ended(ROW, 1.0, 1.0)
    assert capfd.readouterr() == ("", "")


IN_A_NOTEBOOK = """
from collegium.training.display import Display

with Display(4, 10, deployed="peer0", split="test") as display:
    display.begin([("data", "<b>digits</b>")], [], 0, 0)
    display.step(0, 5, 100.0, 1.5, {"peer0": 0.5})
    display.epoch_ended({"epoch": 1.0, "test/peer0/top1_error": 0.25}, 1.5, 3.0)
    display.step(1, 5, 100.0, 1.5, {"peer0": 0.5})
"""


def test_a_notebook_has_a_live_bar_and_the_lines_stay(tmp_path: Path) -> None:
    needed = "needs ipykernel, ipywidgets and nbclient"
    nbclient, _, _ = (pytest.importorskip(name, reason=needed) for name in ("nbclient", "ipywidgets", "ipykernel"))
    nbformat = pytest.importorskip("nbformat", reason=needed)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(IN_A_NOTEBOOK)])
    nbclient.NotebookClient(notebook, timeout=120).execute(cwd=str(tmp_path))
    lines = [output["data"].get("text/html", "") for output in notebook.cells[0].outputs if "data" in output]
    assert any("&lt;b&gt;digits" in line for line in lines)
    assert any("epoch 1/4  test accuracy peer0 75.00 %" in line for line in lines)
    state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (bar,) = (widget["state"]["outputs"] for widget in state.values() if widget["model_name"] == "OutputModel")
    assert "38 %" in bar[0]["data"]["text/html"] and "100 images/s" in bar[0]["data"]["text/html"]


def test_parts_of_the_highest_ranks_are_left_out_first() -> None:
    parts = [(0, "epoch 1"), (3, "other"), (1, "loss"), (3, "more")]
    assert fitted(parts, None) == "epoch 1  other  loss  more"
    assert fitted(parts, 20) == "epoch 1  loss  more"
    assert fitted(parts, 3) == "epoch 1"


def test_the_overview_says_what_is_trained(tmp_path: Path) -> None:
    recipe = tiny(
        peers="2xresnet8,resnet14", share_until=None, data={"name": "digits", "per_class": 8, "validation": 0.25}
    )
    experiment = build(recipe)
    costs = peer_costs(experiment.learner.cohort, experiment.data.image_shape)
    found = dict(overview(experiment, make_fabric(recipe), tmp_path / "run", costs))
    assert found["data"] == "digits: 80 training, 338 validation and 450 test images of 1x16x16, 10 classes"
    assert found["peers"] == "2 x resnet8: 77.8 k parameters, 6.10 M FLOPs each"
    assert found[""].startswith("resnet14: 175 k parameters, ")
    assert found["method"] == "ffl; peer0 is deployed"
    assert found["device"].endswith(", fp32")
    assert found["training"] == "3 epochs, batches of 20 images, sgd, learning rate 0.1"
    assert found["folder"] == str(tmp_path / "run")
