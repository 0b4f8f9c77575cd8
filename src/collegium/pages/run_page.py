"""The page of a run: one HTML file that needs nothing else, and no network."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from collegium.cohort import AVERAGED
from collegium.data import SceneData
from collegium.files import auxiliary, write_whole
from collegium.pages import run_changes as changes
from collegium.pages import run_charts as charts
from collegium.pages import run_class_table as class_table
from collegium.pages import run_gallery as gallery
from collegium.pages import run_scene_maps as scene_maps
from collegium.pages import run_sections as sections
from collegium.pages.colours import styles
from collegium.pages.document import document
from collegium.pages.html import element
from collegium.results.analysis import RunAnalysis, gather
from collegium.training.run_folder import RunFolder

T = TypeVar("T")

MAP_FILE = "classification_map.png"


def write_report(run: str | Path, **given: Any) -> Path:
    """Writes RUN/report.html for a finished run and returns its path. The same run gives the same page.

    Beside it, RUN/classification_map.png holds the maps of a hyperspectral scene, where the data are one.

    Args:
        run: the run's folder.
        **given: what the run was given from Python, as for :func:`gather`.

    Raises:
        UsageError: there is no run, or it is not complete.
        TrainingError: its checkpoint is damaged, or does not fit the recipe.
    """
    analysis = gather(run, **given)
    page = render(analysis)
    folder = RunFolder(run)
    if isinstance(analysis.data, SceneData):
        with auxiliary(folder.path / MAP_FILE):
            image = scene_maps.map_file(analysis.data, analysis.maps, sections.title(analysis))
            write_whole(folder.path / MAP_FILE, image)
    write_whole(folder.report_file, page)
    return folder.report_file


def write_report_if_possible(run: str | Path) -> Path | None:
    """:func:`write_report` of a run that has just been trained, which its page shall not spoil: else a warning."""
    try:
        return write_report(run)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        warnings.warn(
            f"the run is complete, but its page cannot be written ({reason}); `collegium report {run}` tries again",
            stacklevel=2,
        )
        return None


def render(analysis: RunAnalysis) -> str:
    """The whole page."""
    analysis = _without_copies(analysis)
    others = [name for name in analysis.predictors if name not in (*analysis.peers, "ensemble")]
    look = styles(analysis.peers, others)
    body = element(
        "main",
        element("header", sections.heading(analysis), sections.notices(analysis), sections.summary(analysis)),
        sections.scores(analysis, look),
        changes.changes(analysis),
        class_table.by_class(analysis, look),
        charts.learning(analysis, look),
        charts.diversity(analysis) if len(analysis.predictors) > 2 else "",
        charts.mistakes(analysis, look),
        charts.calibration(analysis, look),
        gallery.classification_map(analysis, look),
        gallery.examples(analysis, look),
        gallery.attention(analysis, look),
        sections.trained(analysis),
        sections.use(analysis),
        element("footer", element("p", "Written by ", element("code", "collegium report"), ".", class_="soft")),
    )
    return document(sections.title(analysis), body)


def _without_copies(analysis: RunAnalysis) -> RunAnalysis:
    """The same without the ensemble of a lone peer, which is that peer again."""
    if len(analysis.peers) > 1:
        return analysis

    def rest(predictors: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in predictors.items() if name.removesuffix(AVERAGED) != "ensemble"}

    return replace(
        analysis,
        logits=rest(analysis.logits),
        result=analysis.result | {"predictors": rest(analysis.result["predictors"])},
        examples=tuple(replace(example, answers=rest(example.answers)) for example in analysis.examples),
        maps=rest(analysis.maps),
    )
