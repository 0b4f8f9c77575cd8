"""The page of a run: one HTML file that needs nothing else, and no network."""

import warnings
from pathlib import Path
from typing import Any

from collegium.data import SceneData
from collegium.files import auxiliary, write_whole
from collegium.pages import run_charts as charts
from collegium.pages import run_class_table as class_table
from collegium.pages import run_gallery as gallery
from collegium.pages import run_scene_maps as scene_maps
from collegium.pages import run_sections as sections
from collegium.pages.colours import styles
from collegium.pages.document import document
from collegium.pages.html import element
from collegium.results.analysis import Evidence, gather
from collegium.training.run_folder import RunFolder

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
    evidence = gather(run, **given)
    page = render(evidence)
    folder = RunFolder(run)
    if isinstance(evidence.data, SceneData):
        with auxiliary(folder.path / MAP_FILE):
            image = scene_maps.map_file(evidence.data, evidence.maps, sections.title(evidence))
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


def render(evidence: Evidence) -> str:
    """The whole page."""
    look = styles(evidence.peers, evidence.own)
    body = element(
        "main",
        element("header", sections.heading(evidence), sections.notices(evidence), sections.summary(evidence)),
        sections.scores(evidence, look),
        class_table.by_class(evidence, look),
        charts.learning(evidence, look),
        charts.diversity(evidence) if len(evidence.predictors) > 2 else "",
        charts.mistakes(evidence, look),
        charts.calibration(evidence, look),
        gallery.classification_map(evidence, look),
        gallery.examples(evidence, look),
        gallery.attention(evidence, look),
        sections.trained(evidence),
        sections.use(evidence),
        element("footer", element("p", "Written by ", element("code", "collegium report"), ".", class_="soft")),
    )
    return document(sections.title(evidence), body)
