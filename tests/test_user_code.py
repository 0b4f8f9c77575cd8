"""Code that files name is imported with the user's consent alone, wherever it is named."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import collegium
from collegium import api, data, methods, networks
from collegium.cli import main
from collegium.errors import UsageError
from collegium.student import save_peer
from collegium.study.cell import Cell
from collegium.study.executors.local import LocalExecutor
from collegium.study.study import Study
from collegium.training.experiment import build
from collegium.training.recipe import Recipe
from collegium.training.run import restore
from collegium.user_code import Consent, Untrusted, consent, current, find, given, never
from made_up_runs import result_of

CODE = """
from pathlib import Path
Path("IMPORTED").touch()
import torch
from collegium.methods.independent import Independent
def net(num_classes, in_channels, width: int = 4):
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, width, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, num_classes),
    )
class Net(torch.nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(*net(num_classes, in_channels))
class Mine(Independent):
    pass
def digits():
    import collegium.data
    return collegium.data.load("digits", per_class=4)
class Other:
    pass
"""
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 20, "device": "cpu", "quiet": True}
OWN = {
    "method": {"method": "module:theirs.Mine"},
    "peers": {"peers": "2xmodule:theirs.net:width=5"},
    "class": {"peers": "module:theirs.Net"},
    "data": {"data": "module:theirs.digits"},
}
PLAIN: dict[str, Any] = {"method": "independent", "peers": "2xresnet8", "data": {"name": "digits", "per_class": 4}}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which lies the code, not imported yet."""
    (tmp_path / "theirs.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    yield tmp_path
    sys.modules.pop("theirs", None)


def imported() -> bool:
    """Whether the code has been run since this was last asked."""
    sys.modules.pop("theirs", None)
    there = Path("IMPORTED").exists()
    Path("IMPORTED").unlink(missing_ok=True)
    return there


def sent(own: dict[str, Any]) -> Path:
    """A trained run that names code, and is somebody else's."""
    api.train(run="run", **PLAIN | own | QUICK)
    assert imported()
    return Path("run")


USES: dict[str, Callable[..., Any]] = {
    "evaluate": lambda run, **trust: api.evaluate(run, **trust),
    "report": lambda run, **trust: api.report(run, **trust),
    "export": lambda run, **trust: api.export(run, predictor="ensemble", **trust),
    "config": lambda run, **trust: api.train(config=run / "recipe.yaml", run="other", quiet=True, **trust),
}


@pytest.mark.parametrize("part", OWN)
@pytest.mark.parametrize("use", USES)
def test_a_run_that_names_code_is_used_with_trust_alone(part: str, use: str) -> None:
    run = sent(OWN[part])
    with pytest.raises(Untrusted, match="module:theirs.* is code that a file names .*--trust"):
        USES[use](run)
    assert not imported() and not Path("other").exists()
    USES[use](run, trust=True)
    assert imported()


def test_what_the_call_writes_is_imported_and_what_its_config_says_is_not() -> None:
    run = sent(OWN["method"])
    with pytest.raises(Untrusted, match="theirs.Mine"):
        api.train(config=run / "recipe.yaml", run="other", peers="module:theirs.net", quiet=True)
    api.train(config=run / "recipe.yaml", run="other", method="module:theirs.Mine", quiet=True)
    with pytest.raises(Untrusted):
        restore(run)
    with pytest.raises(Untrusted):
        build(Recipe.read(run / "recipe.yaml"))


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "run"],
        ["report", "run"],
        ["export", "run", "--predictor", "ensemble"],
        ["train", "--config", "run/recipe.yaml", "--run", "other", "--quiet"],
    ],
)
def test_the_command_line_asks_for_trust(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sent(OWN["method"] | {"peers": "2xmodule:theirs.net"})
    with pytest.raises(SystemExit) as ended:
        main(command)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "--trust" in said and len(said) <= 310 and said.count("\n") == 1
    assert not imported()
    main([*command, "--trust"])
    assert imported()


def test_what_the_command_line_writes_is_imported() -> None:
    quick = ["--epochs", "1", "--batch-size", "20", "--device", "cpu", "--quiet"]
    main(["train", "--method", "module:theirs.Mine", "--peers=2xmodule:theirs.net", "--run", "a", *quick])
    assert imported() and Path("a/report.html").exists()


@pytest.mark.parametrize("name", ["module:os.system:command=touch PWNED", "module:theirs.net", "module:theirs.Other"])
def test_a_peer_that_names_code_is_loaded_with_trust_alone(name: str) -> None:
    network = networks.build("resnet8", num_classes=7, in_channels=1)
    network.name = name
    save_peer(network, Path("peer"), num_classes=7)
    for use in (collegium.load_peer, api.export):
        with pytest.raises(UsageError):
            use("peer")
    with pytest.raises(Untrusted):
        api.train(run="taught", teacher="peer", **PLAIN | {"method": "kd"} | QUICK)
    assert not imported() and not Path("taught").exists()
    if "net" not in name:
        with pytest.raises(UsageError, match="is a .*, not a function or a class derived from"):
            collegium.load_peer("peer", trust=True)
    assert not Path("PWNED").exists()


def test_a_user_s_peer_is_loaded_again_with_trust() -> None:
    run = sent(OWN["class"])
    assert isinstance(collegium.load_peer(run, trust=True), torch.nn.Module)


def test_ranking_shows_the_name_and_imports_nothing() -> None:
    recipe = Recipe.from_dict({**PLAIN, "method": "module:theirs.Mine", "peers": "2xmodule:theirs.net", "epochs": 1})
    Path("runs/theirs").mkdir(parents=True)
    Path("runs/theirs/recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    errors = dict.fromkeys(("peer0", "peer1", "ensemble", "mean_peer"), 0.5)
    Path("runs/theirs/result.json").write_text(json.dumps(result_of(recipe, errors)))
    with consent("module:theirs.Mine", trust=True):
        ranking, page = api.rank("runs")
    assert not imported() and not ranking.left_out
    assert "module:theirs.Mine" in page.read_text()


def test_a_study_is_published_without_import_and_goes_on_with_consent() -> None:
    call: dict[str, Any] = dict(methods="independent,module:theirs.Mine", study="study", seeds=[0], workers=1)
    call |= {"peers": "2xmodule:theirs.net", "data": PLAIN["data"]} | QUICK
    api.compare(**call)
    assert imported()
    table = api.publish("study")
    print(table)
    assert "module:theirs.Mine" in Path("study/table.md").read_text()
    assert not table.findings.unfinished
    api.rank("study")
    assert not imported()
    shutil.rmtree(next(Path("study/runs").glob("module-theirs*")))
    more = call | {"methods": "independent", "peers": "2xresnet8"}
    (refused,) = api.compare(**more).findings.unfinished
    assert refused.state == "failed" and "--trust" in str(refused.error)
    assert not imported()
    assert not api.compare(**more, trust=True).findings.unfinished
    assert imported()


@pytest.mark.parametrize("key", [None, "../../other", "x", "/etc", "module-theirs.mine-2xresnet8-digits-seed0-../.."])
def test_the_key_that_a_study_says_leads_nowhere_else(key: str | None) -> None:
    with consent("module:theirs.Mine"):
        recipe = Recipe.from_dict(PLAIN | {"method": "module:theirs.Mine"})
        Study("study", [Cell("module:theirs.Mine · 2xresnet8", recipe)]).write()
    assert imported()
    content = yaml.safe_load(Path("study/study.yaml").read_text())
    assert Study.open("study").cells[0].key == content["cells"][0]["key"]
    content["cells"][0] = {**content["cells"][0], "key": key} if key else {"label": "module:theirs.Mine · 2xresnet8"}
    Path("study/study.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="does not say the key of|is not that of a study"):
        Study.open("study")
    assert not imported()


def test_a_study_of_somebody_else_s_is_not_run() -> None:
    with consent("module:theirs.Mine"):
        study = Study("study", [Cell("a", Recipe.from_dict(PLAIN | OWN["method"] | {"epochs": 1, "device": "cpu"}))])
        study.write()
    assert imported()
    with pytest.raises(Untrusted):
        Study.open("study").run(LocalExecutor(1))
    assert not imported()


def test_the_outermost_consent_holds() -> None:
    assert current() == Consent()
    with consent("a, 3xmodule:a.b:c=1", {"x": ["module:d.e"]}, "runs/module:f.g", "2xmodule:h.i,module:j.k"):
        assert current().paths == {"a.b", "d.e", "h.i", "j.k"}
        with consent("module:l.m", trust=True):
            assert current().paths == {"a.b", "d.e", "h.i", "j.k"} and not current().everything
        with never(), pytest.raises(Untrusted):
            find("a.b")
    with given(Consent.from_dict(json.loads(json.dumps(Consent(frozenset({"theirs.net"})).to_dict())))):
        assert find("theirs.net").__name__ == "net"


def test_a_name_in_a_direct_call_is_consent() -> None:
    assert networks.build("module:theirs.net", num_classes=3).name == "module:theirs.net"
    assert methods.get("module:theirs.Mine").__name__ == "Mine"
    assert "dml" in methods.names() and not any("theirs" in name for name in methods.names())
    assert len(data.load("module:theirs.digits").train) == 40
    with pytest.raises(UsageError, match="theirs.Other is a type, not a function"):
        networks.build("module:theirs.Other", num_classes=3)
    with pytest.raises(UsageError, match="is no method|not a function or a class derived from collegium.method.Method"):
        methods.get("module:theirs.Net")
