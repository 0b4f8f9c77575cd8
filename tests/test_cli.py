"""The command line as a user meets it: what it prints, and how it ends."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import collegium
from collegium import api
from collegium.cli import main
from collegium.training.recipe import Recipe

SMALL = "--peers 2xresnet8 --epochs 1 --batch-size 20 --data.per-class 8 --device cpu"


def call(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    try:
        main(command.split())
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    out, err = capsys.readouterr()
    return status, out, err


def test_train_evaluate_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "ffl"
    status, out, err = call(f"train --method ffl --share-until stage2 {SMALL} --run {run}", capsys)
    assert status == 0, err
    assert (run / "report.html").exists()
    result = json.loads((run / "result.json").read_text())
    fused, deployed = (
        f"{100 - 100 * result['predictors'][name]['last']['top1_error']:.2f}" for name in ("fused", "peer0")
    )
    assert re.search(rf"fused.*{fused}", out)
    assert out.startswith(f"The deployed network, peer0 (resnet8): {deployed} % test accuracy\n")
    assert re.search(rf"epoch 1/1  test accuracy peer0 {deployed} %  ensemble .*  total loss \d", err)
    assert call(f"train --method ffl --share-until stage2 {SMALL} --run {run} --quiet", capsys) == (0, "", "")
    assert f'collegium.load_peer("{run}/peers/peer0")' in out
    assert f"collegium export {run}\n" in out and f"collegium predict {run} FOLDER\n" in out
    again = f"train --method ffl --share-until stage2 {SMALL} --run {run} --baseline"
    assert "The same network alone" not in (run / "report.html").read_text()
    assert call(again, capsys)[0] == 0 and "The same network alone" in (run / "report.html").read_text()

    status, out, _ = call(f"evaluate {run}", capsys)
    assert status == 0
    assert re.search(rf"fused.*{fused}", out)

    (run / "report.html").unlink()
    status, out, _ = call(f"report {run}", capsys)
    assert (status, out.strip()) == (0, str(run / "report.html"))
    assert (run / "report.html").exists()


def test_a_recipe_is_overridden_by_options_and_remembered_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: {name: dml, temperature: 2}\npeers: 2xresnet8\ndata: {name: digits, per_class: 8}\n")
    base = f"train --config {recipe} --epochs 1 --batch-size 20 --quiet --device cpu"
    assert call(f"{base} --method.target ensemble --run {tmp_path / 'a'}", capsys)[0] == 0
    written = (tmp_path / "a" / "recipe.yaml").read_text()
    assert "temperature: 2" in written and "target: ensemble" in written and "reduction: mean" in written
    # A run's own recipe repeats it; another method's options do not carry over.
    assert call(f"train --config {tmp_path / 'a' / 'recipe.yaml'} --run {tmp_path / 'b'} --quiet", capsys)[0] == 0
    status, _, err = call(f"{base} --method independent --run {tmp_path / 'c'}", capsys)
    assert status == 0, err
    a, b = (json.loads((tmp_path / n / "result.json").read_text())["predictors"] for n in "ab")
    assert a == b


@pytest.mark.parametrize("kind", ["methods", "networks", "datasets", "optimizers", "recipes"])
def test_lists(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(f"list {kind} --json", capsys)
    rows = json.loads(out)
    assert status == 0
    assert rows and all(row["name"] and row["summary"] for row in rows)
    status, out, _ = call(f"list {kind}", capsys)
    assert [line.split()[0] for line in out.splitlines()] == [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        ("", 2, ""),
        ("tran", 2, "no command 'tran'; did you mean 'train'"),
        ("train --method ffx", 2, "no method is called 'ffx'; did you mean 'ffl'"),
        ("train --peers 2xresnte20", 2, "no network is called 'resnte20'; did you mean 'resnet20'"),
        ("train --peers 2xresnet21", 2, "has 6n \\+ 2 layers .* not 21"),
        ("train --peers 0xresnet20", 2, "cannot read the peers '0xresnet20'"),
        ("train --data cifar1000", 2, "no data set 'cifar1000'; did you mean 'cifar100'"),
        ("train --peers resnet20", 2, "FFL needs at least 2 peers, got 1"),
        ("train --share-until stage7", 2, "cannot be cut after 'stage7'; it can be cut after: stem, stage1, stage2"),
        ("train --share-until stage2 --peers resnet8,wrn_10_2", 2, "peer0 .resnet8. and peer1 .wrn_10_2. differ"),
        ("train --method.fusion sum --peers resnet8,wrn_10_2", 2, "resnet8 64x4x4, wrn_10_2 128x4x4"),
        ("train --method one --peers 2xresnet8", 2, "shared trunk.*--share-until stage2"),
        ("train --method kd --peers resnet8", 2, "needs a trained teacher.*--teacher"),
        ("train --method.temprature 4", 2, "no option --method.temprature; did you mean '--method.temperature'"),
        ("train --epochs many", 2, "--epochs must be a whole number, not .many."),
        ("train --optimizer sdg", 2, "there is no optimizer 'sdg' in timm; did you mean 'sgd'"),
        ("train --epochs 0", 2, "epochs must be 1 or more, got 0"),
        ("train --batch-size", 2, "--batch-size expects a value"),
        ("train --data.per-class 100000", 2, "100000"),
        ("train --data.padding 99", 2, "padding"),
        ("train --milestones 0.3,0.6", 2, "written like \\[0.5,0.75\\]"),
        ("train --method.temperature 0", 2, "temperature must be more than 0"),
        ("train --batch-size 1", 2, "batches of 2 images or more"),
        ("train --config nowhere.yaml", 2, "no recipe nowhere.yaml"),
        ("train --data cifar10 --data.root . --data.download false", 1, "cifar10 is not at"),
        ("train --precision fp16 --device cpu", 2, "fp16 needs a GPU"),
        ("train --compile true --cuda-graphs true --device cpu", 2, "CUDA graphs need a GPU"),
        ("train --loggers wandd", 2, "no logger 'wandd'; did you mean 'wandb'"),
        ("train --method independent --baseline", 2, "independent is the baseline itself: leave --baseline out"),
        ("train --baseline-from nowhere", 2, "nowhere is not a study"),
        ("evaluate nowhere --predictor fused", 2, "give a file for them, --predictions FILE"),
        ("evaluate nowhere --predictions answers.txt", 2, "ends in .csv or .jsonl, not as answers.txt"),
        ("list method", 2, "cannot list 'method'; did you mean 'methods'"),
        ("evaluate nowhere", 2, "nowhere is not a run"),
        ("report nowhere", 2, "nowhere"),
    ],
)
def test_wrong_use_ends_in_one_sentence_and_writes_nothing(
    command: str,
    status: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = call(command, capsys)
    assert found == status
    if sentence:
        assert re.search(sentence, err)
        assert len(err.splitlines()) == 1 and err.startswith("collegium: ")
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call("train --method ffx --debug", capsys)
    assert status == 2
    assert "Traceback" in err and "no method is called 'ffx'" in err


def test_general_data_options_of_a_recipe_hold_for_another_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "train --config cifar100_50_per_class --data digits --peers 2xresnet8 --epochs 1"
    command += f" --run {tmp_path / 'a'}"
    status, _, err = call(command, capsys)
    assert status == 0, err
    assert json.loads((tmp_path / "a" / "result.json").read_text())["training_images"] == 500
    status, out, _ = call(command, capsys)
    assert status == 0 and "was complete already" in out


def test_help_names_the_options_of_the_chosen_method(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call("train --method one --data cifar100 --help", capsys)
    assert status == 0
    for option in ("--share-until", "--method.gate", "--data.per-class", "--data.root", "--learning-rate"):
        assert option in out
    assert "_until" not in out and "CONFIG       Path to a conf" not in out
    status, out, _ = call("--help", capsys)
    assert status == 0 and "collegium train" in out


def test_a_recipe_sets_the_defaults_that_help_shows(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call("train --config ffl_cifar100_resnet32 --help", capsys)
    text = " ".join(out.split())
    assert status == 0
    for option, default in (
        ("epochs", "300"),
        ("peers", "2xresnet32"),
        ("share-until", "stage2"),
        ("data", "cifar100"),
    ):
        assert re.search(rf"--{option} [A-Z_]+ [^)]*default: {default}\)", text), option


def test_the_printed_recipe_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "train --config digits --method dml --method.temperature 2 --data.per-class 5 --epochs 3 --print-config"
    status, out, _ = call(command, capsys)
    assert status == 0
    config = tmp_path / "printed.yaml"
    config.write_text(out)
    recipe = Recipe.read(config)
    assert (recipe.method_name, recipe.method["temperature"], recipe.epochs) == ("dml", 2.0, 3)
    assert recipe.data["per_class"] == 5
    assert call(f"train --config {config} --print-config", capsys)[1] == out


def test_underscores_and_dashes_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    dashes = call("train --batch-size 7 --method.fusion-weight-decay=0.5 --data.per-class 3 --print-config", capsys)
    assert (
        call("train --batch_size 7 --method.fusion_weight_decay=0.5 --data.per_class 3 --print_config", capsys)
        == dashes
    )
    assert call("train --method.name dml --print-config", capsys) == call("train --method dml --print-config", capsys)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            "method: {name: dml, temprature: 2}",
            "method 'dml' has no option 'temprature'; did you mean .--method.temper",
        ),
        ("method: {name: dml, temperature: hot}", "method.temperature must be a number, not 'hot'"),
        ("data: {name: digits, per_class: ten}", "data.per_class must be a whole number or nothing, not 'ten'"),
        ("epoch: 3", "unknown entry 'epoch'; did you mean 'epochs'"),
    ],
)
def test_what_is_wrong_in_a_config_is_said(
    entry: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(entry + "\n")
    status, _, err = call(f"train --config {config} --run {tmp_path / 'run'}", capsys)
    assert status == 2
    assert re.search(f"mine.yaml.*{sentence}", err) and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", ["train --run", "compare --methods dml --seeds 0 --study", "reproduce ffl/ablation --study"]
)
@pytest.mark.parametrize("place", ["", "file/run", "x" * 300, "/proc/run", "~nobody-of-this-name/run"])
def test_a_folder_that_cannot_be_made_is_refused(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        main([*command.split(), place])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert re.search("folder.*(cannot be made|is empty)", err) and len(err.splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_another_recipe_s_run_is_told_by_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"train --method dml {SMALL} --run {tmp_path / 'run'}"
    assert call(command, capsys)[0] == 0
    status, _, err = call(f"{command} --method.temperature 4 --data.per-class 9", capsys)
    assert status == 2
    assert "(method.temperature: 4.0 here, 1.0 there; data.per_class: 9 here, 8 there)" in err


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(run: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("collegium.api.report", interrupted)
    assert call("report somewhere", capsys)[::2] == (130, "collegium: interrupted\n")


def test_options_are_suggested_by_their_initials(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no option --lr; did you mean '--learning-rate'" in call("train --lr 0.1", capsys)[2]


def test_the_package_is_a_command_and_has_a_version() -> None:
    done = subprocess.run([sys.executable, "-m", "collegium", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == collegium.__version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="completion needs the package shtab")
    status, out, _ = call(f"--print-completion {shell}", capsys)
    assert status == 0 and all(word in out for word in ("train", "reproduce", "share-until", "method.temperature"))


def test_what_lacks_memory_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.wraps(api.report)  # with its options
    def full(**_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(api, "report", full)
    status, _, err = call("report run", capsys)
    assert status == 1 and err.startswith("collegium: there is not enough memory for this") and err.count("\n") == 1
