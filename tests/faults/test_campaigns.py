"""The campaigns of benchmarks/faults, each with a few of its cases."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).parents[2] / "benchmarks" / "faults"


@pytest.mark.skipif(sys.platform != "linux", reason="campaigns fork, and read /proc")
@pytest.mark.parametrize(
    ("name", "options", "cases"),
    [
        ("hostile", ["--count", "8"], 8),
        ("flips", ["--count", "40"], 40),
        ("wrong", ["--count", "20"], 20),
        ("storage", ["--count", "6"], 8),
        ("kills", ["--count", "3"], 3),
        ("load", ["--steps", "200", "--runs", "4"], 6),
        ("networks", ["--count", "1"], 1),
        ("mutation", ["--only", "methods/independent.py"], 1),
    ],
)
def test_a_short_campaign_finds_nothing(name: str, options: list[str], cases: int, tmp_path: Path) -> None:
    command = [sys.executable, str(CAMPAIGNS / f"{name}.py"), *options, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == cases and {row["outcome"] for row in rows} == {"ok"}
    (session,) = json.loads((tmp_path / f"{name}.json").read_text())["sessions"]
    assert session["cases"] == cases


def test_the_page_lists_what_failed_and_where_it_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CAMPAIGNS)
    from page import write_page
    from trials import Case, Record, parser

    record = Record("flips", tmp_path)
    record.add(Case(0, "result.json", "bit 3 of byte 9"))
    record.add(Case(1, "result.json", "a | `b`", "not noticed"))
    record.write(parser("", 2).parse_args([]), kills=3)
    write_page(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| [Flipped bytes](#flipped-bytes) | 2 | 1 |" in page and "| result.json | 2 | 1 | 0.0 |" in page
    assert "- 1, result.json, `a \\| 'b'`: not noticed" in page and "seed 0" in page and "kills 3" in page
    again = Record("flips", tmp_path, goes_on=True)
    assert again.next_number == 2 and again.failed == [Case(1, "result.json", "a | `b`", "not noticed")]
    again.keep(lambda case: case.kind != "result.json")
    assert not again.cases and again.added == 0
