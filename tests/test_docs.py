"""The example in the docs is run as its reader would run it."""

import ast
import json
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from collegium import methods
from collegium.cli import main
from collegium.errors import UsageError
from collegium.student import read_config
from collegium.training.recipe import Recipe

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "own_network_and_data.md").read_text()
PHOTOGRAPHS = (DOCS / "photographs.md").read_text()
OWN_METHOD = (DOCS / "own_method.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, in a folder of their own."""
    for code in re.findall(r"```python\n(.*?)```", PAGE + PHOTOGRAPHS + OWN_METHOD, re.DOTALL):
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code)
    monkeypatch.chdir(tmp_path)
    for name in ("my_network", "my_data", "my_method", "my_fusion", "my_changes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def shell(page: str) -> list[str]:
    """The commands of a page's first shell block."""
    return re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines()


def test_the_page_s_commands_train_the_page_s_network_on_the_page_s_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = shell(PAGE)
    assert len(commands) == 2
    for command in commands:
        with pytest.raises(SystemExit) as exit_:
            main([*shlex.split(command)[1:], "--quiet", "--device", "cpu"])
            raise SystemExit(0)
        assert exit_.value.code == 0, capsys.readouterr().err
    for run in ("own", "trunk"):
        assert (folder / "runs" / run / "report.html").is_file()
    exports = re.findall(r"^collegium export runs/own .*", PAGE, re.MULTILINE)
    for command in exports if find_spec("onnxruntime") else exports[:1]:
        main(shlex.split(command, comments=True)[1:])
    written = {file.name for file in (folder / "runs" / "own" / "exports").iterdir()}
    if not find_spec("onnxruntime"):
        assert written == {"peer0.pt2"}
        return
    assert written == {"fused.onnx", "peer0.pt2", "peer0_int8.onnx"}
    capsys.readouterr()
    monkeypatch.syspath_prepend(str(folder))
    exec((folder / "my_deployment.py").read_text(), {})
    for answers in capsys.readouterr().out.splitlines():
        assert len(ast.literal_eval(answers)) == 12 and set(ast.literal_eval(answers)) <= {0, 1, 2}


def test_the_page_s_script_trains_and_loads_the_user_s_own_class(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    space: dict[str, object] = {}
    exec((folder / "my_training.py").read_text(), space)
    student = space["student"]
    assert type(student).__name__ == "SmallNet" and not student.training
    capsys.readouterr()
    exec((folder / "my_application.py").read_text(), {})
    answers = ast.literal_eval(capsys.readouterr().out)
    assert len(answers) == 12 and set(answers) <= {"0", "1", "2"}
    eval(re.search(r"`(collegium\.export\(.*?\))`", PAGE)[1], space)
    assert (folder / "runs" / "python" / "exports" / "peer0.pt2").is_file()


def test_the_page_s_command_for_photographs(folder: Path, write_images) -> None:
    for split, count in (("train", 6), ("test", 2)):
        for k, name in enumerate(("cat", "dog")):
            write_images(folder / "photos" / split / name, count, (40, 60), seed=k)
    command = re.search(r"^collegium train .*folder:photos.*", PHOTOGRAPHS, re.MULTILINE)[0]
    few = "--epochs 1 --data.image-size 32 --batch-size 4 --data.validation 0.2 --data.workers 0 --quiet --device cpu"
    main([*shlex.split(command)[1:], *shlex.split(few)])
    config = read_config(folder / "runs" / "photos")
    assert config["network"] == "timm/mobilenetv3_small_100" and config["resize"] == 37
    write_images(folder / "new_photos", 2, (40, 60))
    main(shlex.split(re.search(r"^collegium predict runs/photos new.*", PHOTOGRAPHS, re.MULTILINE)[0])[1:])
    assert (folder / "labels.csv").read_text().startswith("file,label,probability,p(cat),p(dog)\n")


def test_the_page_s_command_with_weights_from_a_file(folder: Path, write_images) -> None:
    for k, name in enumerate(("rose", "tulip")):
        for split, count in (("train", 6), ("test", 2)):
            write_images(folder / "flowers" / split / name, count, (40, 60), seed=k)
    save_file(timm.create_model("resnet18").state_dict(), folder / "resnet18.safetensors")
    command = re.search(r"^collegium train .*weights=resnet18.*", PAGE, re.MULTILINE)[0]
    few = "--epochs 1 --data.image-size 32 --batch-size 4 --data.workers 0 --quiet --device cpu"
    main([*shlex.split(command)[1:], *shlex.split(few)])
    notes = json.loads((folder / "runs" / "fine" / "result.json").read_text())["notes"]
    assert any("its layer fc is new (1000 classes there, 2 here)" in note for note in notes)


def test_the_page_s_transform_changes_the_photographs(folder: Path, write_images) -> None:
    for k, name in enumerate(("cat", "dog")):
        for split, count in (("train", 6), ("test", 2)):
            write_images(folder / "photos" / split / name, count, (40, 60), seed=k)
    command = re.search(r"^collegium train .*--data.transform.*", PHOTOGRAPHS, re.MULTILINE)[0]
    few = "--epochs 1 --data.image-size 32 --batch-size 4 --data.workers 1 --quiet --device cpu --peers 2xresnet8"
    main([*shlex.split(command)[1:], *shlex.split(few)])
    notes = json.loads((folder / "runs" / "colours" / "result.json").read_text())["notes"]
    assert "Training images are changed by module:my_changes.colours." in notes


def test_the_method_of_the_page_trains_beside_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, compare = shell(OWN_METHOD)
    for command in (train, compare):
        main([*shlex.split(command)[1:], "--quiet", "--device", "cpu"])
    recipe = Recipe.read(folder / "runs" / "surest" / "recipe.yaml")
    assert recipe.method == {"name": "module:my_method.Surest", "temperature": 2.0, "ramp": 0.25}
    table = (folder / "studies" / "surest" / "table.md").read_text()
    assert "| `module:my_method.Surest:ramp=0.5` | 2xresnet8 | 2 |" in table
    assert "Surest" in (folder / "runs" / "surest" / "report.html").read_text()
    capsys.readouterr()


def test_the_page_s_method_with_a_player_and_a_predictor_of_its_own_trains(folder: Path) -> None:
    command = re.search(r"^collegium train .*Pooled.*", OWN_METHOD, re.MULTILINE)[0]
    main([*shlex.split(command)[1:], "--quiet", "--device", "cpu"])
    result = json.loads((folder / "runs" / "pooled" / "result.json").read_text())
    assert "joint" in result["predictors"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("module:my_method.Surer", "cannot find 'my_method.Surer'"),
        ("module:my_method.distill", "my_method.distill is no method: derive a class from collegium.method.Method"),
    ],
)
def test_what_is_no_method_is_refused(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        methods.get(name)
    assert name not in methods.names()
