"""Changes the equations one by one and looks whether a test notices (mutation testing, by mutmut).

python benchmarks/faults/mutation.py [--only methods/ffl.py ...] [--minutes 60] [--out FOLDER]

mutmut makes the mutants of losses.py, heads.py and methods/: an operator, a number, a default or an argument replaced
or left out. Each is run against the tests that reach its function. A function is a case: it fails where one of its
mutants passes all tests, but for those that no test can tell from the original; alike.yaml lists them with the reason.
It works on a copy of the project. With ``--only`` the cases of these modules are tried anew, and the others stay.
"""

import argparse
import ast
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml
from trials import OK, Case, Record, finish, parser

PROJECT = Path(__file__).parents[2]
PACKAGE = Path("src/collegium")
MUTATED = ("losses.py", "heads.py", "methods/*.py")
NOTICED = (1, 3, 36, 24, -24, 152, 255)  # a test failed, or collection; it took far too long


@dataclass(frozen=True)
class Alike:
    """A kind of mutant that does what the original does.

    Args:
        where: pattern that the function must hold, as ``methods/ffl.py FFL.forward``.
        change: pattern that both lines must hold, the original after ``-`` and the mutant after ``+``.
        why: the reason.
    """

    where: str
    change: str
    why: str

    def holds(self, function: str, change: str) -> bool:
        return re.search(self.where, function) is not None and re.search(self.change, change) is not None


@dataclass
class Function:
    """The mutants of a function."""

    module: str
    name: str
    mutants: int = 0
    alike: int = 0
    untried: int = 0
    survived: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.module} {self.name}"

    def told(self) -> str:
        """How many mutants it has, and of which kinds."""
        more = {"alike": self.alike, "not tried": self.untried}
        return f"{self.name}: {self.mutants} mutants" + "".join(f", {n} {what}" for what, n in more.items() if n)


def alike() -> list[Alike]:
    return [Alike(**entry) for entry in yaml.safe_load((Path(__file__).parent / "alike.yaml").read_text())]


def tests_of(modules: tuple[str, ...]) -> list[str]:
    """Arguments of pytest that choose the tests of these modules."""
    if modules == MUTATED:
        also = ("heads", "losses", "method", "user_code")
        return [*(f"tests/test_{name}.py" for name in also), "tests/methods"]
    own = {"methods/__init__.py": "tests/test_user_code.py"}
    files = [own.get(module, f"tests/{Path(module).parent / f'test_{Path(module).name}'}") for module in modules]
    names = " or ".join(Path(file).stem.removeprefix("test_") for file in files)
    # Of what every method must pass, what names these.
    return [*files, "tests/methods/test_contract.py", "-k", names]


def mutate(folder: Path, modules: tuple[str, ...], children: int, seconds: float) -> None:
    """Runs mutmut on a copy of the project in a folder, for so long at most."""
    for name in ("src", "tests", "recipes"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    options = {
        "source_paths": ["src/"],
        "only_mutate": [str(PACKAGE / module) for module in modules],
        "also_copy": ["recipes", "README.md", "LICENSE"],
        "pytest_add_cli_args_test_selection": tests_of(modules),
    }
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    (folder / "pyproject.toml").write_text(f"{(PROJECT / 'pyproject.toml').read_text()}\n[tool.mutmut]\n{table}")
    mutmut = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
    log = folder / "mutmut.log"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            mutmut, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if status:
        raise SystemExit(f"mutmut did not go:\n{log.read_text()[-2000:]}")


def functions(folder: Path, known: list[Alike]) -> Iterator[Function]:
    """What became of the mutants of every function."""
    package = folder / "mutants" / PACKAGE
    for record in sorted(package.rglob("*.py.meta")):
        ended = json.loads(record.read_text())["exit_code_by_key"]
        if not ended:
            continue
        module = str(record.relative_to(package)).removesuffix(".meta")
        texts = variants(record.with_suffix(""))
        found: dict[str, Function] = {}
        for key, status in ended.items():
            variant = key.rpartition(".")[2]
            original = re.sub(r"__mutmut_\d+$", "", variant)
            name = re.sub("^x_|^xǁ", "", original).replace("ǁ", ".")
            function = found.setdefault(original, Function(module, name))
            function.mutants += 1
            if status in NOTICED:
                continue
            if status is None:
                function.untried += 1
                continue
            change = changed(texts[f"{original}__mutmut_orig"], texts[variant])
            if any(kind.holds(str(function), change) for kind in known):
                function.alike += 1
            else:
                function.survived.append(change if status == 0 else f"{change} (status {status})")
        yield from found.values()


def variants(file: Path) -> dict[str, list[str]]:
    """The functions of a file that holds all mutants, with their own names left out."""
    text = file.read_text()
    lines, found = text.splitlines(), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = lines[node.lineno - 1 : node.end_lineno]
            found[node.name] = [line.replace(node.name, "", 1).strip() for line in body]
    return found


def changed(original: list[str], mutant: list[str]) -> str:
    """The lines that differ, those of the original after ``-``, those of the mutant after ``+``."""
    lines = list(difflib.unified_diff(original, mutant, lineterm="", n=0))[2:]
    return " ".join(f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-")


def main() -> None:
    made = parser(__doc__ or "", 0)
    made.add_argument("--only", nargs="+", default=MUTATED, help="modules, beneath the package")
    made.add_argument("--minutes", type=float, default=1e6, help="no mutant is tried after so many")
    made.add_argument("--children", type=int, default=os.cpu_count(), help="processes at a time")
    options = made.parse_args()
    modules = tuple(options.only)
    record = Record("mutation", options.out, goes_on=modules != MUTATED)
    record.keep(lambda case: case.kind not in modules)
    with tempfile.TemporaryDirectory() as scratch:
        mutate(Path(scratch), modules, options.children, 60 * options.minutes)
        found = list(functions(Path(scratch), alike()))
    report(record, found, options)


def report(record: Record, found: Sequence[Function], options: argparse.Namespace) -> NoReturn:
    """Writes what became of the functions' mutants, and ends."""
    for number, function in enumerate(found, start=record.next_number):
        record.add(Case(number, function.module, function.told(), "; ".join(function.survived) or OK))
    tried = sum(f.mutants - f.untried for f in found)
    same, survived = sum(f.alike for f in found), sum(len(f.survived) for f in found)
    noticed = f"{(tried - same - survived) / max(1, tried - same):.1%}"
    finish(record, options, mutants_tried=tried, alike=same, survived=survived, noticed=noticed)


if __name__ == "__main__":
    main()
