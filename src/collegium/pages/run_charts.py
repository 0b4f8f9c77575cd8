"""The sections of the page that are charts: learning, agreement, mistakes, confidence."""

from collections.abc import Callable

from torch import Tensor

from collegium.formatting import number, percent
from collegium.pages import figures
from collegium.pages.colours import ACCENT, INK, Style
from collegium.pages.html import Html, element, figure, html, section
from collegium.pages.run_sections import Styles, chip, key
from collegium.pages.sheet import Column, Sheet
from collegium.results.analysis import RunAnalysis
from collegium.results.diversity import confusion, most_confused, reliability

HINT = "A pointer, a finger or the arrow keys show the values in a chart; a click on a name hides or shows its line."


def learning(analysis: RunAnalysis, styles: Styles) -> Html:
    """Accuracies of every predictor over the epochs, and every term of the loss; a table where there is one epoch."""
    if len(analysis.history) == 1:
        return _one_epoch(analysis)
    splits = [s for s in ("test", "validation") if any(k.startswith(f"{s}/") for k in analysis.history[-1])]
    charts = [_accuracy_chart(analysis, styles, split) for split in splits if _measured(analysis, split) > 1]
    training = {
        name: _column(analysis, f"train/accuracy/{name}", lambda v: 100 * v)
        for name in analysis.predictors
        if f"train/accuracy/{name}" in analysis.history[-1]
    }
    if training:
        picture = figures.curves(
            "accuracy-train",
            training,
            styles,
            unit="accuracy on training batches (%)",
            linear=True,
            description="Accuracy of the predictors on training batches over the epochs",
        )
        caption = "Accuracy on augmented training batches, measured while the weights were changing."
        charts.append(figure(picture, caption, key(styles, list(training))))
    return section(
        "Learning curves",
        element("p", HINT, class_="soft hint"),
        element("div", charts, class_="grid three" if len(charts) == 3 else "grid"),
        element("h3", "Terms of the loss"),
        element(
            "p",
            "Each term times its weight, mean over the epoch's steps; "
            "and the learning rate. Axes are logarithmic where values span more than a factor of ten.",
            class_="soft",
        ),
        element("div", _terms(analysis), class_="grid small"),
        id="curves",
    )


def _one_epoch(analysis: RunAnalysis) -> Html:
    """What one epoch left besides the final scores: there is no curve to draw."""
    (epoch,) = analysis.history
    rows = []
    for name in analysis.predictors:
        if (key := f"validation/{name}/top1_error") in epoch:
            rows.append((f"validation accuracy of {name}, %", percent(1 - epoch[key])))
        if (key := f"train/accuracy/{name}") in epoch:
            rows.append((f"accuracy of {name} on training batches, %", percent(epoch[key])))
    rows += [(f"{name}, term of the loss", f"{epoch[key]:.4g}") for key, name in _loss_terms(analysis).items()]
    rows.append(("learning rate", f"{epoch['learning_rate']:.4g}"))
    return section("After one epoch", Sheet([Column("measured", left=True), Column("value")], rows).html(), id="curves")


def _measured(analysis: RunAnalysis, split: str) -> int:
    """After how many epochs a split was scored."""
    return sum(f"{split}/{analysis.predictors[0]}/top1_error" in row for row in analysis.history)


def _accuracy_chart(analysis: RunAnalysis, styles: Styles, split: str) -> Html:
    series = {
        name: _column(analysis, f"{split}/{name}/top1_error", lambda v: 100 * (1 - v)) for name in analysis.predictors
    }
    picture = figures.curves(
        f"accuracy-{split}",
        series,
        styles,
        unit=f"{split} accuracy (%)",
        linear=True,
        description=f"Top-1 {split} accuracy of every predictor over the epochs",
    )
    note = " They select nothing: the last epoch counts." if split == "test" else ""
    return figure(picture, f"Top-1 accuracy on the {split} images after each epoch.{note}", key(styles, list(series)))


def _terms(analysis: RunAnalysis) -> list[Html]:
    charts = []
    for k, (column, name) in enumerate((_loss_terms(analysis) | {"learning_rate": ""}).items()):
        shown = name or "learning rate"
        picture = figures.curves(
            f"term-{k}",
            {shown: _column(analysis, column)},
            {shown: Style(ACCENT if name else INK, "solid")},
            unit="",
            small=True,
            description=f"{shown} over the epochs",
        )
        charts.append(element("figure", element("figcaption", element("code", name) if name else shown), picture))
    return charts


def _loss_terms(analysis: RunAnalysis) -> dict[str, str]:
    """Columns of metrics.csv that are terms of the loss -> their names, with the player where there are several."""
    columns = dict.fromkeys(k for row in analysis.history for k in row if k.startswith("train/"))
    terms = [k for k in columns if not k.startswith("train/accuracy/")]
    one_player = len({term.split("/")[1] for term in terms}) == 1
    return {term: term.split("/", 2 if one_player else 1)[-1] for term in terms}


def _column(analysis: RunAnalysis, key: str, change: Callable[[float], float] = float) -> figures.Points:
    rows = [row for row in analysis.history if key in row]
    return [row["epoch"] for row in rows], [change(row[key]) for row in rows]


def diversity(analysis: RunAnalysis) -> Html:
    """How alike the predictors are."""
    picture = figures.agreement_matrix(
        "agreement",
        analysis.agreement,
        analysis.predictors,
        description="Share of test images with the same answer, for each pair of predictors, in percent",
    )
    caption = "Test images with the same answer, in percent. The stronger the colour, the more often two differ."
    parts = [figure(picture, caption)]
    if analysis.pairs:
        columns = [
            Column("peers", left=True),
            Column("disagree", unit="%", meaning="Share of test images with different answers"),
            Column("kappa", meaning="Cohen's kappa: agreement beyond chance"),
            Column("both wrong", unit="%", meaning="Share of test images that both get wrong (double fault)"),
            Column("JS divergence", unit="nats", meaning="Mean Jensen-Shannon divergence of the probabilities"),
        ]
        rows = [
            (
                f"{p.first}, {p.second}",
                percent(p.disagreement),
                f"{p.kappa:.3f}",
                percent(p.double_fault),
                f"{p.jensen_shannon:.4f}",
            )
            for p in analysis.pairs
        ]
        notes = (
            "Kappa is agreement beyond chance: 1 when two peers always answer alike, 0 when no more often than by "
            "chance. The Jensen-Shannon divergence compares whole predictions, from 0 (equal) to 0.693 nats. "
            f"At least one peer is right on {percent(analysis.any_peer_right)} % of the test images: "
            "no way of choosing among the peers' answers could do better."
        )
        parts.append(element("div", Sheet(columns, rows).html(), element("p", notes, class_="soft")))
    return section("Agreement and diversity", element("div", parts, class_="beside"), id="diversity")


def mistakes(analysis: RunAnalysis, styles: Styles) -> Html:
    """Confusion matrices of the peer that the method trains for use and of the joint predictor."""
    shown = [analysis.deployed] + ([analysis.joint] if len(analysis.peers) > 1 or analysis.own else [])
    charts = [_mistakes_of(analysis, name, styles) for name in shown]
    return section("Mistakes", element("div", charts, class_="grid"), id="mistakes")


def _mistakes_of(analysis: RunAnalysis, name: str, styles: Styles) -> Html:
    classes = analysis.data.class_names
    matrix = confusion(analysis.answers[name], analysis.targets, len(classes))
    images, wrong = int(matrix.sum()), int(matrix.sum() - matrix.diagonal().sum())
    summary = f"{wrong:,} of {images:,} test images are classified wrongly"
    picture = figures.confusion_matrix(
        f"confusion-{name}", matrix, classes, description=f"Confusion matrix of {name}: {summary}"
    )
    caption = f"{summary}. The stronger a cell's colour, the larger its share of the true class's images; " + (
        "right answers are counted, not coloured."
        if len(classes) <= figures.LABELLED_CLASSES
        else "right answers, on the thin line, are not coloured. A pointer, a finger or the arrow keys show a cell's "
        "classes and images."
    )
    return element(
        "div",
        element("h3", chip(styles[name]), name),
        figure(picture, caption),
        _most_confused(matrix, classes),
    )


def _most_confused(matrix: Tensor, classes: tuple[str, ...]) -> Html:
    """The pairs of classes that were mistaken more than once; empty where there are none."""
    totals = matrix.sum(1)
    pairs = [(i, j, n) for i, j, n in most_confused(matrix, 10 if len(classes) > 20 else 5) if n > 1]
    if not pairs:
        return Html()
    rows = [(classes[i], classes[j], f"{n} of {int(totals[i])}") for i, j, n in pairs]
    columns = [Column("true class", left=True), Column("answer", left=True), Column("images")]
    return Sheet(columns, rows).html(caption="Most frequent mistakes")


def calibration(analysis: RunAnalysis, styles: Styles) -> Html:
    """Whether predictors are as often right as they are sure."""
    least = max(10, len(analysis.targets) // 200)
    bins = {name: reliability(z, analysis.targets) for name, z in analysis.logits.items()}
    picture = figures.reliability_diagram(
        "reliability",
        bins,
        styles,
        least=least,
        description="Share of right answers against confidence, for every predictor",
    )
    caption = f"In 15 equal bins of confidence; those with fewer than {least} test images are left out."
    columns = [
        Column("predictor", left=True),
        Column("confidence", unit="%", meaning="Mean probability of the answers given"),
        Column("right", unit="%", meaning="Share of right answers"),
        Column("gap", unit="points", meaning="Confidence minus right answers: above 0 too sure, below 0 too modest"),
        Column("ECE", unit="%", meaning="Expected calibration error: mean gap over the bins, weighted by images"),
    ]
    rows = []
    for name, r in bins.items():
        sure = float((r.confidence * r.count).sum() / r.count.sum())
        right = analysis.accuracy[name]
        gap = number(100 * (sure - right), sign=True)
        label = html([chip(styles[name]), name])
        rows.append((label, percent(sure), percent(right), gap, percent(r.ece)))
    notes = (
        "On the thin line of the chart confidence is what it says; below it a predictor is too sure of itself, "
        "above it too modest."
    )
    parts = [
        figure(picture, caption, key(styles, list(bins))),
        element("div", Sheet(columns, rows).html(), element("p", notes, class_="soft")),
    ]
    return section("Confidence", element("div", parts, class_="beside"), id="confidence")
