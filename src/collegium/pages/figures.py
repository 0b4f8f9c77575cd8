"""Figures of the page as inline SVG, drawn by matplotlib, in the page's own font and text colour."""

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from collegium.formatting import plural
from collegium.pages.colours import ACCENT, INK, Style
from collegium.pages.html import Html, element
from collegium.results.diversity import Reliability

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = tuple[Sequence[float], Sequence[float]]
"""x and y of a curve."""

FULL = 0.1  # a smaller share is never drawn in full colour
_MARKED = "style"  # begins the ids of what belongs to an entry of the key
LABELLED_CLASSES = 20  # a confusion matrix of more classes has no class names beside it

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "savefig.bbox": None,  # whatever the user's own settings say
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator["tuple[Figure, Axes]"]:
    """A figure of one pair of axes, in inches, drawn in the page's manner; ``name`` seeds the SVG's ids."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


class Cells(NamedTuple):
    """Counts of a matrix (C, C) that a pointer finds in a chart of its cells, and the names of its rows and columns."""

    counts: Tensor
    names: Sequence[str]


class Point(NamedTuple):
    """A place that a pointer finds in a chart, in the units of its axes, and the lines that are shown there."""

    x: float
    y: float
    style: int
    text: Sequence[str]


def mark(artist: "Artist", style: int) -> None:
    """What is drawn here goes and comes with the entry of this style in the chart's key."""
    artist.set_gid(f"{_MARKED}{style}")


def to_svg(
    figure: "Figure",
    name: str,
    description: str,
    *,
    curves: Mapping[str, Any] | None = None,
    points: Sequence[Point] = (),
    cells: Cells | None = None,
) -> Html:
    """The figure as an SVG element that can stand in a page with others: ids of its own, no outside links.

    Args:
        figure: of one pair of axes.
        name: begins the ids.
        description: for readers who do not see it.
        curves: what page.js shows at each x, see :func:`curves`.
        points: what it shows at each point.
        cells: what it shows at each cell that is not 0.
    """
    text = io.StringIO()
    with warnings.catch_warnings():
        # matplotlib's font may lack a class name's letters; the page is shown in the browser's own.
        warnings.filterwarnings("ignore", message="Glyph")
        still = curves is None and not points and cells is None
        trim = "tight" if still else None  # which would move what pointers find
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None}, bbox_inches=trim, pad_inches=0.04)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r"<[^<>]+>", lambda tag: _tidied(tag[0], name, used), svg)
    svg = re.sub(r">\s+<", "><", svg)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None
    width = box[1].split()[2]
    return element(
        "svg",
        Html(svg[svg.index(">") + 1 : svg.rindex("</svg>")]),
        class_="curves" if curves else None,
        viewBox=box[1],
        role="img",
        aria_label=description,
        style=f"max-width: {float(width) * 1.45:.0f}px",
        data_chart=None if still else _for_pointers(figure, curves, points, cells),
    )


def _tidied(tag: str, name: str, used: set[str]) -> str:
    """A tag of matplotlib's with ids of its own, the page's font and colour, and no more digits than can be seen."""
    tag = re.sub(rf' id="{_MARKED}(\d+)"', r' data-style="\1"', tag)
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font: (?:[a-z]+ )?([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), tag)
    return re.sub(r"\s+", " ", tag).replace(INK, "currentColor")


def _for_pointers(
    figure: "Figure", curves: Mapping[str, Any] | None, points: Sequence[Point], cells: Cells | None
) -> str:
    """As JSON: where the axes lie, as left, top, right and bottom, and what is shown where, in units of the SVG."""
    (axes,) = figure.axes
    scale = 72 / figure.dpi
    height = 72 * figure.get_figheight()
    left, bottom, right, top = (scale * float(v) for v in axes.bbox.extents)
    told: dict[str, Any] = {"plot": [round(v, 1) for v in (left, height - top, right, height - bottom)]}
    if curves is not None:
        return json.dumps(told | {"span": axes.get_xlim(), **curves}, separators=(",", ":"))
    if cells is not None:
        filled = cells.counts.nonzero().tolist()
        told |= {"names": list(cells.names), "cells": [[i, j, int(cells.counts[i, j])] for i, j in filled]}
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    places = axes.transData.transform([(p.x, p.y) for p in points]) * scale
    told["points"] = [
        [round(float(x), 1), round(height - float(y), 1), p.style, *p.text]
        for (x, y), p in zip(places, points, strict=True)
    ]
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False)


def curves(
    name: str,
    series: Mapping[str, Points],
    styles: Mapping[str, Style],
    *,
    unit: str,
    description: str,
    small: bool = False,
    linear: bool = False,
) -> Html:
    """Values over epochs, one line each.

    Where values span more than a factor of ten the axis is logarithmic, unless it is to be ``linear``.

    A pointer shows the values themselves: two decimals where the axis is to be linear, else four significant digits.
    """
    with drawing(name, *((2.4, 1.7) if small else (5.2, 3.2))) as (figure, axes):
        for label, (x, y) in series.items():
            style = styles[label]
            marker = "o" if len(x) <= 20 else ""
            (line,) = axes.plot(x, y, color=style.colour, linestyle=style.dash, marker=marker, markersize=3)
            mark(line, list(styles).index(label))
        epochs = [x for xs, _ in series.values() for x in xs]
        axes.set_xlim(0 if max(epochs) > 20 else 0.5, max(epochs) + (1 if max(epochs) > 20 else 0.5))
        _whole_ticks(axes)
        logarithmic = _value_axis(axes, [y for _, ys in series.values() for y in ys], linear=linear)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{unit}, log scale" if unit and logarithmic else unit)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        return to_svg(figure, name, description, curves=_values(series, styles, linear=linear))


def _values(series: Mapping[str, Points], styles: Mapping[str, Style], *, linear: bool) -> dict[str, Any]:
    """Every x, and of each style its value there, None where it has none."""
    every = sorted({x for xs, _ in series.values() for x in xs})
    values = {}
    for label, points in series.items():
        known = {x: round(y, 2) if linear else float(f"{y:.4g}") for x, y in zip(*points, strict=True) if isfinite(y)}
        values[list(styles).index(label)] = [known.get(x) for x in every]
    return {"x": every, "y": values, "digits": 2 if linear else None}


def _whole_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _value_axis(axes: "Axes", values: Sequence[float], *, linear: bool) -> bool:
    """Limits and ticks; whether the axis is logarithmic."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if not linear and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        decades = max(values) / min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 200 else (1,), numticks=7))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return True
    if min(values) >= 0:
        axes.set_ylim(0, max(values) * 1.05 or 1)
    return False


def confusion_matrix(name: str, matrix: Tensor, classes: Sequence[str], *, description: str) -> Html:
    """Mistakes by true class and answer: the stronger the colour, the larger the share of the true class's images.

    Up to LABELLED_CLASSES classes are named and counted; of more a pointer shows the names and counts of a cell. Right
    answers are not coloured.
    """
    share = matrix.double() / matrix.sum(1, keepdim=True).clamp_min(1)
    share.fill_diagonal_(0)
    labelled = len(classes) <= LABELLED_CLASSES
    size = 4.2 if len(classes) > 4 else 1.4 + 0.7 * len(classes)
    if labelled and len(classes) > 10:
        size = 5.2
    with drawing(name, size, size) as (figure, axes):
        strength = (share / share.max().clamp_min(FULL)).sqrt()
        _shade(axes, strength)
        axes.set_xlabel("answer" if labelled else f"answer (class 0 to {len(classes) - 1})")
        axes.set_ylabel("true class" if labelled else f"true class (0 to {len(classes) - 1})")
        if labelled:
            _name_cells(axes, [_short(c) for c in classes], size)
            _write_cells(
                axes,
                [[str(int(n)) if n else "" for n in row] for row in matrix],
                strength,
                8 if matrix.max() < 1000 else 7,
            )
        else:
            axes.plot([0, len(classes) - 1], [0, len(classes) - 1], color=INK, alpha=0.3, linewidth=0.6)
            _whole_ticks(axes)
        return to_svg(figure, name, description, cells=None if labelled else Cells(matrix, classes))


def agreement_matrix(name: str, matrix: Tensor, predictors: Sequence[str], *, description: str) -> Html:
    """How often predictors give the same answer, in percent; the stronger the colour, the less often."""
    size = max(2.6, 1.4 + 0.55 * len(predictors))
    with drawing(name, size, size) as (figure, axes):
        difference = 1 - matrix
        strength = difference / difference.max().clamp_min(FULL)
        _shade(axes, strength)
        _name_cells(axes, predictors, size)
        cells = [[f"{100 * v:.1f}" if i != j else "" for j, v in enumerate(row)] for i, row in enumerate(matrix)]
        _write_cells(axes, cells, strength, 9)
        return to_svg(figure, name, description)


def reliability_diagram(
    name: str, bins: Mapping[str, Reliability], styles: Mapping[str, Style], *, least: int, description: str
) -> Html:
    """How often predictors are right against how sure they are, in bins of at least ``least`` images."""
    points: list[Point] = []
    with drawing(name, 4.2, 3.6) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=INK, alpha=0.35, linewidth=0.8)
        for label, r in bins.items():
            full = r.count >= least
            x, y = (100 * r.confidence[full]).tolist(), (100 * r.accuracy[full]).tolist()
            style = styles[label]
            (line,) = axes.plot(x, y, color=style.colour, linestyle=style.dash, marker="o", markersize=3)
            mark(line, list(styles).index(label))
            points += [
                Point(
                    sure,
                    right,
                    list(styles).index(label),
                    (label, f"{right:.1f} % right", f"at {sure:.1f} % confidence", plural(int(count), "image")),
                )
                for sure, right, count in zip(x, y, r.count[full].tolist(), strict=True)
            ]
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("right answers (%)")
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        return to_svg(figure, name, description, points=points)


def _shade(axes: "Axes", strength: Tensor) -> None:
    """Cells of one colour, from clear at 0 to full at 1, so that they suit a light page and a dark one."""
    import numpy as np
    from matplotlib.colors import to_rgb

    pixels = np.empty((*strength.shape, 4))
    pixels[..., :3] = to_rgb(ACCENT)
    pixels[..., 3] = 0.85 * strength.numpy()
    axes.imshow(pixels, interpolation="none")
    axes.spines[["top", "right"]].set_visible(True)


def _name_cells(axes: "Axes", names: Sequence[str], size: float) -> None:
    """Names beside and below the cells of a figure of ``size`` inches."""
    room = 72 * size / (len(names) + 1) / 6  # letters below a column, about
    turned = max(len(n) for n in names) > room
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90 if turned else 0)
    axes.set_yticks(places, names)
    axes.tick_params(length=0)


def _write_cells(axes: "Axes", cells: Sequence[Sequence[str]], strength: Tensor, size: float) -> None:
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if cell:
                colour = "white" if strength[i, j] > 0.65 else INK
                axes.text(j, i, cell, ha="center", va="center", fontsize=size, color=colour)


def _short(name: str) -> str:
    # Names of classes often differ at their ends.
    return name if len(name) <= 18 else name[:10] + "…" + name[-7:]
