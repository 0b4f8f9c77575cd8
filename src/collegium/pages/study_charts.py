"""The charts of a study: accuracy against training time and parameters, gains by method, learning curves."""

import warnings
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from collegium.errors import DataError
from collegium.formatting import count, number
from collegium.pages import figures
from collegium.pages.colours import INK, OWN, PEERS, Style
from collegium.pages.html import Html, element, figure, html
from collegium.pages.run_sections import chip
from collegium.pages.study_table import gain_text, in_lines
from collegium.results.comparison import ONE_NETWORK, Findings, Row
from collegium.results.scores import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (PEERS[0], OWN[0], PEERS[1], PEERS[2], OWN[1], PEERS[3], PEERS[4], OWN[2], PEERS[5])
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
KINDS = {"one network": ("o", "●"), "ensemble": ("s", "■"), "method's own": ("^", "▲")}


def styles(findings: Findings) -> dict[str, Style]:
    """Method -> colour and line, the same in every chart; what others are compared with is in the page's ink."""
    compared = set(findings.study.reference.values())
    methods = dict.fromkeys(row.method for row in findings.rows)
    base = {row.method for row in findings.rows if row.label in compared}
    result = {method: Style(INK, "solid") for method in methods if method in base}
    for k, method in enumerate(m for m in methods if m not in base):
        result[method] = Style(COLOURS[k % len(COLOURS)], ("solid", "dashed", "dotted")[k // len(COLOURS) % 3])
    return result


def charts(findings: Findings) -> list[Html]:
    """All charts that the finished runs can be drawn in."""
    rows = [row for row in findings.rows if row.results]
    if not rows:
        return []
    look = styles(findings)
    drawn = [_gains(findings, look), _by_time(rows, look), _by_parameters(rows, look), *_curves(findings, look)]
    return [chart for chart in drawn if chart is not None]


def _gains(findings: Findings, look: Mapping[str, Style]) -> Html | None:
    found = findings.headline
    if not found:
        return None
    contrasts = len({c.over for c in found}) > 1
    found.sort(key=lambda c: list(findings.cohorts()).index(c.row.cohort))
    several = len({c.row.cohort for c in found}) > 1
    names = [c.row.label if several else c.row.method for c in found]
    names = [f"{name} − {c.over}" if contrasts else name for name, c in zip(names, found, strict=True)]
    names = [in_lines(name) for name in names]
    heights = [max(0.34, 0.17 * (name.count("\n") + 1) + 0.08) for name in names]  # inches
    places = [sum(heights[k:]) - height / 2 for k, height in enumerate(heights)]
    points: list[figures.Point] = []
    with figures.drawing("gains", 5.2, 0.9 + sum(heights)) as (drawn, axes):
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
        for y, c in zip(places, found, strict=True):
            colour, mean = look[c.row.method].colour, c.gain.spread.mean
            values = list(c.gain.by_seed.values())
            axes.scatter(values, [y] * len(values), s=22, color=colour, alpha=0.75, linewidths=0)
            axes.plot([mean] * 2, [y - 0.1, y + 0.1], color=colour, linewidth=2.2)
            style = list(look).index(c.row.method)
            points += [
                figures.Point(gain, y, style, (f"{c.row.label}, seed {seed}", f"{number(gain, sign=True)} points"))
                for seed, gain in c.gain.by_seed.items()
            ]
            points.append(figures.Point(mean, y + 0.1, style, (f"{c.row.label}, mean", f"{gain_text(c)} points")))
            if c.interval is not None:
                axes.plot(c.interval, [y, y], color=colour, linewidth=1, alpha=0.6)
        axes.set_yticks(places, names)
        axes.set_ylim(-0.05, sum(heights) + 0.05)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("gain in accuracy (points)")
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        picture = figures.to_svg(
            drawn, "gains", "Gain of every row over what it is compared with, one dot a seed", points=points
        )
    against = " or ".join(dict.fromkeys(c.over for c in found))
    caption = (
        f"Gain over {against}, with the same peers and seed: one dot a seed, a bar at the mean, a line for its "
        "confidence interval."
    )
    return figure(picture, caption)


def _by_time(rows: Sequence[Row], look: Mapping[str, Style]) -> Html | None:
    if len(rows) == 1 or len({row.device for row in rows}) > 1 or rows[0].device is None:
        return None  # seconds of different machines do not compare
    with figures.drawing("time", 5.2, 3.4) as (drawn, axes):
        markers = dict(zip(dict.fromkeys(row.cohort for row in rows), _endless(MARKERS), strict=False))
        points = []
        for row in rows:
            x = fmean(row.training_seconds.values())
            points.append(_dot(axes, row, ONE_NETWORK, (x, f"{x:,.1f} s"), look, markers[row.cohort]))
        axes.set_xlabel("training time of a run (s)")
        _accuracy_axis(axes)
        picture = figures.to_svg(
            drawn, "time", "Accuracy of one network against the training time of a run", points=points
        )
    key = _key(look, rows, {cohort: MARKERS[marker] for cohort, marker in markers.items()})
    caption = (
        "Accuracy of one network against what its run took to train, mean and standard deviation over the seeds. "
        "Runs that computed side by side slow each other down."
    )
    return figure(picture, caption, key)


def _by_parameters(rows: Sequence[Row], look: Mapping[str, Style]) -> Html | None:
    if len(rows) == 1:
        return None
    shown: dict[str, str] = {}
    points: list[figures.Point] = []
    with figures.drawing("parameters", 5.2, 3.4) as (drawn, axes):
        for row in rows:
            kinds = {"one network": [ONE_NETWORK], "method's own": row.own}
            if len(row.result["peers"]) > 1:
                kinds["ensemble"] = ["ensemble"]
            for kind, predictors in kinds.items():
                for predictor in predictors:
                    shown[kind] = KINDS[kind][1]
                    x = row.cost(predictor)["parameters"]
                    at = x, f"{count(x)} parameters"
                    points.append(_dot(axes, row, predictor, at, look, KINDS[kind][0], spread=False))
        _parameter_axis(axes, [row.cost(predictor)["parameters"] for row in rows for predictor in row.predictors])
        axes.set_xlabel("parameters of the predictor")
        _accuracy_axis(axes)
        picture = figures.to_svg(
            drawn, "parameters", "Accuracy of every predictor against its parameters", points=points
        )
    ordered = {kind: shown[kind] for kind in KINDS if kind in shown}
    caption = "Accuracy of every predictor against the parameters that it needs at inference."
    return figure(picture, caption, _key(look, rows, ordered))


def _curves(findings: Findings, look: Mapping[str, Style]) -> list[Html]:
    """A chart a cohort: test accuracy of one network over the epochs, mean over the seeds.

    Rows with a run that has no metrics.csv are left out, and with a warning those with a damaged one.
    """
    found = []
    for k, (cohort, rows) in enumerate(findings.cohorts().items()):
        series = {}
        for row in rows:
            folders = [findings.study.run_folder(cell) for cell in row.cells if cell.seed in row.results]
            if not all(folder.metrics_file.is_file() for folder in folders):
                continue  # archived runs may lack it, and a mean over some of the seeds would mislead
            points: dict[int, list[float]] = {}
            try:
                measured_by_run = [folder.metrics() for folder in folders]
            except DataError as damaged:
                warnings.warn(f"{damaged}; the curve of its row is left out", stacklevel=2)
                continue
            for rows_of_run in measured_by_run:
                for measured in rows_of_run:
                    if f"test/{ONE_NETWORK}/top1_error" in measured:
                        accuracy = 100 * (1 - measured[f"test/{ONE_NETWORK}/top1_error"])
                        points.setdefault(int(measured["epoch"]), []).append(accuracy)
            if points:
                series[row.method] = list(points), [fmean(values) for values in points.values()]
        if any(len(epochs) > 1 for epochs, _ in series.values()):
            picture = figures.curves(
                f"curves-{k}",
                series,
                look,
                unit="test accuracy (%)",
                linear=True,
                description=f"Test accuracy of one network over the epochs, {cohort}",
            )
            caption = (
                f"{cohort}: test accuracy of one network after each epoch, mean over the seeds. It selects nothing."
            )
            drawn = [row for row in rows if row.method in series]
            found.append(figure(picture, caption, _key(look, drawn, {})))
    return found


def _dot(
    axes: "Axes",
    row: Row,
    predictor: str,
    at: tuple[float, str],
    look: Mapping[str, Style],
    marker: str,
    *,
    spread: bool = True,
) -> figures.Point:
    """Draws a predictor's mean accuracy over an x, which is also given in words; what a pointer is told of it."""
    found = row.spread(predictor)
    assert found is not None
    deviation = [found.std] if spread and found.std is not None else None
    drawn = axes.errorbar(
        [at[0]], [found.mean], yerr=deviation, color=look[row.method].colour, marker=marker,
        markersize=6, linestyle="none", elinewidth=1, alpha=0.85, markeredgewidth=0,
    )  # fmt: skip
    style = list(look).index(row.method)
    for artist in drawn.get_children():
        figures.mark(artist, style)
    text = row.label, f"{row.name_of(predictor)}: {written(found)} %", at[1]
    return figures.Point(at[0], found.mean, style, text)


def _accuracy_axis(axes: "Axes") -> None:
    axes.set_ylabel("accuracy (%)")
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)


def _parameter_axis(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks like 80 k and 1.2 M; logarithmic where values span more than a factor of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if max(values) > 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 60 * min(values) else (1,), numticks=8))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))


def _key(look: Mapping[str, Style], rows: Sequence[Row], marks: Mapping[str, str]) -> Html:
    """Which colour is which method, and which mark is what."""
    methods = dict.fromkeys(row.method for row in rows if row.results)
    entries = [element("li", chip(look[method]), method, data_style=list(look).index(method)) for method in methods]
    if len(marks) > 1:
        entries += [element("li", html([element("span", mark, class_="mark"), name])) for name, mark in marks.items()]
    return element("ul", entries, class_="key")


def _endless(markers: Mapping[str, str]) -> list[str]:
    return list(markers) * 20
