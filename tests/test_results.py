"""Tables and figures under results/ are those of the runs that are committed beside them."""

import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import studies  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    studies.pages(list(studies.STUDIES), folder)
    return folder


BEGUN = [name for name in studies.STUDIES if (studies.RESULTS / name / "study" / "study.yaml").is_file()]


@pytest.mark.parametrize("name", BEGUN)
def test_tables_are_those_of_the_committed_runs(name: str, written: Path) -> None:
    for file in ("README.md", "runs.csv", "summary.csv"):
        assert (written / name / file).read_text() == (studies.RESULTS / name / file).read_text(), (
            f"{name}/{file} is out of date: run `make results`"
        )


@pytest.mark.parametrize("name", BEGUN)
def test_figures_are_those_of_the_committed_runs(name: str, written: Path) -> None:
    assert {f.name for f in (written / name).glob("*.svg")} == {f.name for f in (studies.RESULTS / name).glob("*.svg")}
    for file in (file.name for file in (written / name).glob("*.svg")):
        now, committed = ((folder / name / file).read_text() for folder in (written, studies.RESULTS))
        if f"Matplotlib v{matplotlib.__version__}," in committed:  # another version draws other paths
            assert now == committed, f"{name}/{file} is out of date: run `make results`"


def test_what_they_say_together(written: Path) -> None:
    assert (written / "which_method.md").read_text() == (studies.RESULTS / "which_method.md").read_text()
    assert (written / "README.md").read_text() == (ROOT / "README.md").read_text(), "run `make results`"


@pytest.mark.parametrize("name", list(studies.STUDIES))
def test_every_study_is_one_command_on_a_shipped_recipe(name: str) -> None:
    planned = studies.STUDIES[name]
    command = planned.command("somewhere")
    assert f"--config {planned.recipe} " in command and "--contrasts" in command
    assert (ROOT / "recipes" / f"{planned.recipe}.yaml").is_file()
    for contrast in planned.contrasts:
        assert set(contrast.split(" vs ")) <= set(planned.methods)
