"""Commands and code in the pages: each command is read by its real parser, and code that is quick is run.

tests/test_docs.py and tests/test_own_loop.py run the longer examples.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from collegium.cli import COMMANDS, main
from collegium.parsing import spelled
from collegium.training.recipe import Recipe
from collegium.user_code import consent

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "results/*.md", "results/*/README.md", "results/*/tuning.md")
    for file in ROOT.glob(pattern)
)
WITH_CODE = {  # page: what runs its code
    "README.md": "below",
    "docs/first_network.md": "below",
    "docs/training.md": "below",
    "docs/own_loop.md": "test_own_loop.py",
    "docs/own_method.md": "test_docs.py",
    "docs/own_network_and_data.md": "test_docs.py",
    "docs/photographs.md": "test_docs.py",
}
# What neither is a command of Collegium nor can be checked to exist here.
OF_OTHERS = ("source .venv/bin/activate", "python3 -m venv .venv", "pip install -e .", "ray start --")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def lines(page: str) -> Iterator[str]:
    """The commands of a page: the lines of its shell blocks, and of blocks without a language that hold commands."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line
    for block in blocks(page, ""):
        for line in block.splitlines():
            if re.match(r"(collegium|make|pip|python|source|\.venv/bin/)", line):
                yield line
    yield from re.findall(r"`(collegium (?:train|compare|reproduce|rank|list) [^`|]*)`", (ROOT / page).read_text())


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that pages show, my_network.py and so on."""
    names = []
    for page in WITH_CODE:
        for code in blocks(page, "python"):
            if re.match(r"# my_\w+\.py\n", code):
                names.append(code.splitlines()[0].removeprefix("# "))
                (tmp_path / names[-1]).write_text(code)
    monkeypatch.chdir(tmp_path)
    for name in names:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    return tmp_path


def check(words: list[str]) -> None:
    """Raises where a command is wrong; nothing is trained."""
    if words[0] in ("torchrun", "srun"):  # which start the command's processes
        words = ["collegium", *words[words.index("train") :]]
    if words[0] == "collegium":
        command, *rest = words[1:]
        if "--help" in rest or "..." in rest:
            return
        with consent(rest, trust="--trust" in rest):
            rest = spelled(rest)
            values = COMMANDS[command][0](rest).read(rest)
            if command == "train":
                parts = {
                    part: {"name": values[part], **values.get(f"{part}_options", {})} for part in ("method", "data")
                }
                Recipe.from_dict({key: values[key] for key in Recipe().to_dict()} | parts, "the command")
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {words[1]}"
    elif words[0] in ("python", ".venv/bin/python"):
        assert all((ROOT / word).is_file() for word in words if word.endswith(".py")), f"no such file: {words}"
    else:
        assert " ".join(words).startswith(OF_OTHERS) or "pre-commit" in words, f"nothing checks: {' '.join(words)}"


@pytest.mark.parametrize("page", [page for page in PAGES if list(lines(page))])
def test_the_commands_of_a_page_can_be_given(page: str, own_code: Path) -> None:
    for line in lines(page):
        check(shlex.split(line, comments=True))


@pytest.mark.parametrize("wrong", ["collegium train --epoch 3", "collegium train --method dmi", "make tests"])
def test_a_wrong_command_is_found(wrong: str, own_code: Path) -> None:
    with pytest.raises((ValueError, AssertionError)):
        check(shlex.split(wrong))


def test_every_page_with_code_has_a_test_that_runs_it() -> None:
    assert {page for page in PAGES if blocks(page, "python")} == set(WITH_CODE)
    for page, test in WITH_CODE.items():
        assert test == "below" or Path(page).name in (ROOT / "tests" / test).read_text()


def short(code: str) -> str:
    """A page's code with less to train and data that are here."""
    for long, quick in (("2xresnet20", "2xresnet8"), ('"cifar100"', '{"name": "digits", "per_class": 4}')):
        code = code.replace(long, quick)
    code = re.sub(r", epochs=\d+", "", code).replace("collegium.train(", "collegium.train(epochs=1, quiet=True, ")
    return code.replace('data="digits"', 'data={"name": "digits", "per_class": 4}')


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photographs", 2, (16, 16), mode="L")
    torch.manual_seed(0)
    names: dict[str, Any] = {"torch": torch}
    train, loop = map(short, blocks("README.md", "python"))
    exec(train, names)
    assert isinstance(names["student"], nn.Module)
    assert [file.name for file in (tmp_path / "runs" / "ffl" / "exports").iterdir()] == ["peer0.pt2"]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    before = network[0].weight.detach().clone()
    names["network"], names["other"] = network, "resnet8"
    names["batches"] = [(torch.rand(4, 3, 32, 32), torch.randint(10, (4,))) for _ in range(3)]
    exec(loop, names)
    assert names["kd"].steps == 3 and not torch.equal(network[0].weight, before)


def test_the_callback_of_the_page_on_runs_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/training.md", "python")
    exec(short(code), {})
    assert re.match(r"1 0\.\d+\n", capsys.readouterr().out)


def test_the_first_network_is_trained_exported_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for line in lines("docs/first_network.md") if line.startswith("collegium")]
    train, compare, export = (shlex.split(line)[1:] for line in commands)
    assert compare[0] == "compare"  # which starts a process for each of six runs
    main([*train, "--epochs", "1", "--quiet", "--device", "cpu"])
    main(export)
    (code,) = blocks("docs/first_network.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    assert isinstance(names["student"], nn.Module)
