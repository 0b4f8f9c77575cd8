"""The table of accuracies by class, where classes have different numbers of test images."""

from collegium.formatting import number, percent
from collegium.pages.html import Html, element, html, section
from collegium.pages.run_sections import Styles, chip
from collegium.pages.sheet import Cell, Column, Sheet
from collegium.results.analysis import RunAnalysis
from collegium.results.scores import METRICS, last, uneven


def by_class(analysis: RunAnalysis, styles: Styles) -> Html:
    """Accuracy of every predictor in each class, over all, on average, and kappa; nothing where classes are even."""
    result = analysis.result
    counts = result["test_images_per_class"]
    if not uneven(counts):
        return Html("")
    names = analysis.predictors
    columns = [Column("class", left=True), Column("test images")]
    columns += [Column(name, html([chip(styles[name]), name]), "%") for name in names]
    rows: list[list[Cell | str]] = []
    for label, (class_name, count) in enumerate(zip(result["class_names"], counts, strict=True)):
        shares = [result["class_accuracy"][name][label] for name in names]
        rows.append([class_name, f"{count:,}", *(Cell() if s is None else percent(s) for s in shares)])
    shown = ("overall_accuracy", "average_accuracy", "kappa")
    for key in shown:
        values = [number(last(result, name, key)) for name in names]
        rows.append([Cell(METRICS[key].name, strong=True), "", *(Cell(value, strong=True) for value in values)])
    return section(
        "Accuracy by class",
        Sheet(columns, rows).html(),
        element(
            "p",
            "Test images after the last epoch. Classes have different numbers of them, so the overall accuracy is that "
            "of the large classes; the average gives each class the same weight. Kappa is agreement with the labels "
            "beyond what the classes' frequencies alone would give, 100 for all right.",
            class_="soft",
        ),
        id="classes",
    )
