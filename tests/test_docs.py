"""The example in the docs is run as its reader would run it."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

from collegium.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "own_network_and_data.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, in a folder of their own."""
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code)
    monkeypatch.chdir(tmp_path)
    for name in ("my_network", "my_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_page_s_commands_train_the_page_s_network_on_the_page_s_data(folder: Path, capsys) -> None:
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert len(commands) == 2
    for command in commands:
        with pytest.raises(SystemExit) as exit_:
            main([*shlex.split(command)[1:], "--quiet", "--device", "cpu"])
            raise SystemExit(0)
        assert exit_.value.code == 0, capsys.readouterr().err
    for run in ("own", "trunk"):
        assert (folder / "runs" / run / "report.html").is_file()


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
