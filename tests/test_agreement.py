"""The comparison with the authors' code in benchmarks/agreement, as far as it needs no clones."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from collegium import methods

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "results" / "agreement"
sys.path.insert(0, str(ROOT / "benchmarks" / "agreement"))

import agreement_page  # noqa: E402
import compare  # noqa: E402
from clones import REPOSITORIES, Absent, Clone, Repository  # noqa: E402
from differences import read, relative, verdict  # noqa: E402


def test_the_page_is_that_of_the_record(tmp_path: Path) -> None:
    for name in ("agreement.csv", "agreement.json"):
        shutil.copy(RECORD / name, tmp_path / name)
    agreement_page.write_page(tmp_path)
    written = "write it anew: python benchmarks/agreement/agreement_page.py"
    assert (tmp_path / "README.md").read_text() == (RECORD / "README.md").read_text(), written


def test_the_record_has_every_comparison_of_the_script_and_each_method_is_compared_or_said_not_to_be() -> None:
    rows = read(RECORD / "agreement.csv")
    assert [*dict.fromkeys((row.method, row.repository) for row in rows)] == [
        *dict.fromkeys((method, address) for method, address, _ in compare.CHECKS)
    ]
    assert {row.method for row in rows}.isdisjoint(agreement_page.NOT_COMPARED)
    assert {row.method for row in rows} | set(agreement_page.NOT_COMPARED) == set(methods.names())
    assert {(r.address, r.commit[:12]) for r in REPOSITORIES} == {(row.repository, row.commit) for row in rows}


def test_verdicts_are_those_of_the_numbers_and_what_differs_is_explained() -> None:
    for row in read(RECORD / "agreement.csv"):
        assert row.verdict == verdict(*(float(x) for x in (row.value, row.gradient) if x))
        assert row.verdict == "agrees" or agreement_page.DIFFERENCES[row.method]


def test_what_is_not_cloned_is_not_tried(tmp_path: Path) -> None:
    (row,) = compare.compared(compare.CHECKS[:1], tmp_path)
    assert (row.method, row.verdict) == ("ab", "not tried: clone is missing")


@pytest.mark.skipif(shutil.which("git") is None, reason="clones are read by git")
def test_code_is_read_at_its_commit_and_compiled_with_the_names_that_it_is_given(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path / "code"), *settings, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "code").mkdir()
    git("init", "--quiet")
    script = tmp_path / "code" / "train.py"
    script.write_text(
        "import gone\n\ndef loss(x):\n    return scale * x + 1e-7\n\n"
        "class A:\n    def twice(self, x):\n        return 2 * x\n"
    )
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    clone = Clone(tmp_path, Repository("who/code", git("rev-parse", "HEAD")))
    script.write_text("other")
    assert clone.load("train.py", "loss", given={"scale": 3}).loss(2) == 6 + 1e-7
    assert clone.load("train.py", given={"scale": 3}, replaced=[("+ 1e-7", "")]).loss(2) == 6
    assert clone.load("train.py", "A.twice").twice(None, 2) == 4
    with pytest.raises(Absent, match="gone.py"):
        clone.load("gone.py")
    with pytest.raises(ValueError, match="defines no gain"):
        clone.load("train.py", "gain")
    with pytest.raises(ValueError, match="does not hold '2e-7'"):
        clone.load("train.py", replaced=[("2e-7", "")])


def test_a_difference_is_relative_to_the_largest_entry_of_its_tensor() -> None:
    large, small = torch.tensor([1.0, 4.0]), torch.tensor([0.02])
    assert relative([large, small], [large, 1.5 * small]) == pytest.approx(1 / 3)
    assert relative([large, torch.zeros(1)], [large, torch.full((1,), 1e-9)]) == pytest.approx(1e-9 / 4e-3)
    assert relative([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert verdict(1e-11, None) == "agrees" and verdict(1e-11, 1e-9) == verdict(math.nan) == "differs"
