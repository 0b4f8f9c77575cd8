"""`collegium compare` as a user meets it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import collegium
from collegium.cli import main
from collegium.errors import UsageError
from collegium.study.executors.worker import _wait_for as wait_for
from collegium.study.study import Study
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

SMALL = "--peers 2xresnet8 --data.per-class 4 --batch-size 20 --device cpu"


def call(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    try:
        main(command)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "needs --methods, for example"),
        ("--methods dml", "needs --study, for example"),
        ("--methods , --study s", "needs --methods|the grid is empty"),
        ("--methods dml --seeds , --study s", "the grid is empty: --seeds names nothing"),
        ("--methods dml,ffx --study s", "no method is called 'ffx'; did you mean 'ffl'"),
        ("--methods dml,ffl:temprature=3 --study s", "FFL has no option 'temprature'; did you mean 'temperature'"),
        ("--methods dml --peers 2xresnte20 --study s", "no network is called 'resnte20'; did you mean 'resnet20'"),
        ("--methods dml --data digit --study s", "there is no data set 'digit'; did you mean 'digits'"),
        ("--methods dml,ffl --method.temperature 3 --study s", "--method.OPTION is for a single method"),
        ("--methods dml --epoch 3 --study s", "compare has no option --epoch; did you mean '--epochs'"),
        ("--methods dml --epochs many --study s", "--epochs must be a whole number, not .many."),
        ("--methods dml --workers 0 --study s", "workers must be 1 or more, got 0"),
        ("--methods kd --peers resnet8 --study s", "KD needs a trained teacher"),
        ("--methods dml --study full", "full holds something that is no study; choose another folder with --study"),
        ("--methods dml --precision fp16 --device cpu --study s", "fp16 needs a GPU"),
        ("nowhere", "there is no folder nowhere; give finished runs"),
        ("full", "no finished run to compare .full: it holds no finished run"),
        ("full --epochs 3", "compare has no option --epochs"),
        ("--methods dml,ffl --contrasts dml:fll --study s", "no row is called 'fll'; did you mean 'ffl'"),
        ("--methods dml,ffl --hypothesis x --study s", "the plan compares nothing: name two rows"),
        ("--methods dml,ffl --contrasts dml:ffl --margin -1 --study s", "--margin is a number of points above 0"),
        ("--methods dml,ffl --plan-only --study s", "there is no plan to write: say with --hypothesis or --contrasts"),
    ],
)
def test_wrong_use_ends_in_one_sentence_and_writes_nothing(
    command: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    status, _, err = call(["compare", *command.split()], capsys)
    assert status == 2
    assert re.search(sentence, err) and len(err.splitlines()) == 1 and err.startswith("collegium: ")
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "a.txt"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed, then stopped by Ctrl-C, each time while a run was training."""
    folder = tmp_path_factory.mktemp("compare") / "study"
    # A shell that starts tests in the background lets them ignore Ctrl-C, and their processes inherit that.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    heeding += "from collegium.cli import main; main()"
    command = [sys.executable, "-c", heeding, "compare", "--methods", "independent,kd", "--teacher", "resnet8"]
    command += [*SMALL.split(), "--seeds", "0", "--epochs", "200", "--evaluate-every", "200", "--study", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number, epochs in ((signal.SIGKILL, 3), (signal.SIGINT, 20)):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 120
        while _epochs(folder) < epochs and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(number)
        said = process.communicate()[1]
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert re.search(r"collegium: stopped with \d of 3 runs done; repeat the command to go on", said)
    return folder


def _epochs(folder: Path) -> int:
    """Of the run that is furthest."""
    return max((len(f.read_text().splitlines()) - 1 for f in folder.glob("runs/*/metrics.csv")), default=0)


def test_what_was_interrupted_can_be_gone_on_with(interrupted: Path) -> None:
    study = Study.open(interrupted)
    assert [c.label for c in study.cells] == ["teacher · resnet8", "independent · 2xresnet8", "kd · 2xresnet8"]
    states = [outcome.state for outcome in study.outcomes()]
    assert "broken" in states and "failed" not in states
    assert list(interrupted.glob("runs/*/checkpoints/*.pt"))
    for folder in interrupted.glob("runs/*"):  # no run outlives its study
        wait_for(RunFolder(folder), 60.0)


def test_a_study_is_trained_added_to_and_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["compare", "--methods", "dml:temperature=2", *SMALL.split(), "--epochs", "1"]
    command += ["--study", "studies/first", "--quiet", "--seeds"]
    status, out, err = call([*command, "0"], capsys)
    assert status == 0, err
    study = Study.open("studies/first")
    before = {o.cell.key: study.run_folder(o.cell).result_file.stat().st_mtime_ns for o in study.outcomes()}
    results = [outcome.result for outcome in study.outcomes()]
    shown = f"{100 * (1 - results[0]['mean_peer']['last']['top1_error']):.2f}"  # type: ignore[index]
    assert re.search(rf"dml:temperature=2 +1 +{shown}", out) and "studies/first/report.html" in out
    for name in ("report.html", "table.md", "table.tex", "summary.csv", "runs.csv", "study.yaml"):
        assert (tmp_path / "studies" / "first" / name).is_file()

    status, out, err = call([*command, "0,1,2"], capsys)
    assert status == 0, err
    after = {key: study.runs.joinpath(key, "result.json").stat().st_mtime_ns for key in before}
    assert after == before, "finished runs are left as they are"
    study = Study.open("studies/first")
    assert len(study.cells) == 3
    for cell in study.cells:  # processes that one has forked, of which one came later
        train(study.recipe(cell), cell.key, quiet=True)
        weights = [folder / "peers/peer0/model.safetensors" for folder in (study.run_folder(cell).path, Path(cell.key))]
        assert weights[0].read_bytes() == weights[1].read_bytes()

    status, again, err = call(["compare", "studies/first"], capsys)
    assert status == 0 and again == out

    status, _, err = call([*command, "0", "--learning-rate", "0.05"], capsys)
    assert status == 2 and "learning_rate: 0.05 here, 0.1 there" in err


def test_a_plan_is_written_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    command = ["compare", "--methods", "independent,dml", *SMALL.split(), "--epochs", "1", "--seeds", "0,1", "--quiet"]
    command += ["--study", str(folder)]
    planned = ["--hypothesis", "DML: better than none", "--contrasts", "dml:independent", "--plan-only"]
    status, out, err = call([*command, *planned], capsys)
    assert status == 0, err
    assert "Hypothesis: DML: better than none" in out and "No run is finished yet." in out
    assert not (folder / "runs").exists()
    plan = Study.open(folder).plan
    assert plan is not None and plan.seeds == (0, 1)

    status, _, err = call([*command, "--hypothesis", "DML is worse"], capsys)
    assert status == 2 and "a plan does not change; leave --hypothesis out" in err

    status, out, err = call([*command, *planned[:-1]], capsys)
    assert status == 0, err
    assert Study.open(folder).plan == plan and "n = 2 (seeds 0, 1)" in " ".join(out.split())


def test_a_run_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    given = dict(peers="2xresnet8", data={"name": "digits", "per_class": 4}, batch_size=20, epochs=1, device="cpu")
    call = dict(methods="independent", seeds=[0], study=tmp_path / "s", quiet=True, **given)
    table = collegium.compare(**call, learning_rate=1e14)  # type: ignore[arg-type]
    (outcome,) = table.findings.outcomes
    assert outcome.state == "failed" and outcome.error is not None and "became nan" in outcome.error
    assert "Failed: independent · 2xresnet8, seed 0" in str(table)
    assert "Traceback" in (tmp_path / "s" / "errors" / f"{outcome.cell.key}.txt").read_text()
    with pytest.raises(UsageError, match="with another recipe .learning_rate: 0.1 here, 100000000000000.0 there"):
        collegium.compare(**call)  # type: ignore[arg-type]
