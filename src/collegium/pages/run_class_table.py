"""The table of accuracies by class, where classes have different numbers of test images."""

from collegium.formatting import number, percent
from collegium.pages.html import Html, element, section, table
from collegium.pages.run_sections import Styles, chip, column_head
from collegium.results.analysis import Evidence
from collegium.results.scores import METRICS, last, uneven


def by_class(evidence: Evidence, styles: Styles) -> Html:
    """Accuracy of every predictor in each class, over all, on average, and kappa; nothing where classes are even."""
    result = evidence.result
    counts = result["test_images_per_class"]
    if not uneven(counts):
        return Html("")
    names = evidence.predictors
    head = [
        column_head("class"),
        column_head("test images"),
        *(element("th", chip(styles[name]), name, [element("br"), "%"], scope="col") for name in names),
    ]
    rows: list[list[object]] = []
    for label, (class_name, count) in enumerate(zip(result["class_names"], counts, strict=True)):
        shares = [result["class_accuracy"][name][label] for name in names]
        rows.append([class_name, f"{count:,}", *("–" if s is None else percent(s) for s in shares)])
    shown = ("overall_accuracy", "average_accuracy", "kappa")
    bold = [(METRICS[key].name, [number(last(result, name, key)) for name in names]) for key in shown]
    rows += [[element("b", title), "", *(element("b", value) for value in values)] for title, values in bold]
    return section(
        "Accuracy by class",
        table(head, rows),
        element(
            "p",
            "Test images after the last epoch. Classes have different numbers of them, so the overall accuracy is that "
            "of the large classes; the average gives each class the same weight. Kappa is agreement with the labels "
            "beyond what the classes' frequencies alone would give, 100 for all right.",
            class_="soft",
        ),
        id="classes",
    )
