"""The notebooks are executed from top to bottom, each in a kernel of its own."""

import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NEEDED = ("nbclient", "ipykernel")

ONE_PROCESS = """
from collegium.study.executors import local, worker

class OneProcess(local.LocalExecutor):  # starting a process for each run takes several times as long as training here
    def run(self, jobs):
        for job in jobs:
            yield local.Event(job.key, "started")
            yield local.Event(job.key, **worker.work(job.recipe.to_dict(), str(job.folder)))

local.LocalExecutor = OneProcess
"""


def read(name: str) -> Any:
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def executed(name: str, folder: Path, *first: str) -> list[str]:
    """What the notebook shows in the end of each cell, after cells that do not stand in it."""
    nbclient, _ = (pytest.importorskip(package, reason="needs ipykernel and nbclient") for package in NEEDED)
    notebook = read(name)
    new_cell = pytest.importorskip("nbformat").v4.new_code_cell
    notebook.cells[:0] = [new_cell(code) for code in first]
    nbclient.NotebookClient(notebook, timeout=120).execute(cwd=str(folder), env=os.environ | {"OMP_NUM_THREADS": "1"})
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output["text"]
            if output["output_type"] == "execute_result":
                shown.append(output["data"].get("text/html", output["data"]["text/plain"]))
    return shown


@pytest.mark.parametrize("name", sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    for cell in read(name).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


def test_the_first_network_is_trained_loaded_and_scored(tmp_path: Path) -> None:
    result, student, evaluation = executed("first_network", tmp_path)
    assert all(name in result and name in evaluation for name in ("peer0", "peer1", "ensemble"))
    assert student.startswith("(77754, [16, 16], [")
    assert (tmp_path / "runs" / "notebook_first" / "result.json").is_file()


def test_the_own_loop_teaches_the_digits(tmp_path: Path) -> None:
    terms, accuracies = (eval(shown) for shown in executed("own_loop", tmp_path))
    assert set(terms) == {"ce", "mutual"}
    assert set(accuracies) == {"peer0", "peer1", "ensemble"} and min(accuracies.values()) > 0.5
    assert (tmp_path / "kept.pt").is_file()


def test_the_study_has_its_table(tmp_path: Path) -> None:
    table, runs, files = executed("study", tmp_path, ONE_PROCESS)
    assert "independent" in table and "dml" in table
    assert {(method, seed) for method, seed, _ in eval(runs)} == {(m, s) for m in ("independent", "dml") for s in "01"}
    assert {"report.html", "runs.csv", "summary.csv", "table.md"} <= set(eval(files))
