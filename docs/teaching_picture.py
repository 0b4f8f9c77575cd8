"""The picture of who teaches whom: peers in a row, what the method adds above them, the labels below."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from teaching import Edge, Kind, Node, Teaching

COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 204.0, 118.0, 136.0, 46.0, 28.0
LEGEND: dict[Kind, str] = {  # the kinds of edges, the strongest first, and what they are called
    "teaches": "teaches",
    "trains": "its loss trains",
    "is read by": "is read by",
    "is followed by": "is followed by",
}
STYLE = """
    .paper { fill: #ffffff; stroke: #d8dee4 }
    .box { stroke-width: 1.5 }
    .peer { fill: #ddf0ff; stroke: #2f7fc1 }
    .teacher { fill: #dcf5e3; stroke: #2d8a4b }
    .copy { fill: #eef6fd; stroke: #2f7fc1; stroke-dasharray: 4 3 }
    .predictor { fill: #fff0d2; stroke: #c08a1e }
    .module { fill: #f3e8fd; stroke: #8a55c7 }
    .labels { fill: #eef0f2; stroke: #8c959f }
    text { font: 600 14px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328;
        text-anchor: middle }
    .part { font-weight: 400; font-size: 11px; fill: #59636e }
    .legend { font-weight: 400; font-size: 12px; fill: #59636e; text-anchor: start }
    .edge { fill: none; stroke: #1f2328; stroke-width: 2 }
    .trains { stroke-dasharray: 7 4 }
    .from-labels { stroke: #57606a; stroke-width: 1.2 }
    .read { stroke: #afb8c1; stroke-width: 1.5 }
    .followed { stroke: #2f7fc1; stroke-width: 1.5; stroke-dasharray: 2 4 }
    .tip { fill: #1f2328; stroke: none }
    .tip.from-labels { fill: #57606a }
    .tip.read { fill: #afb8c1 }
    .tip.followed { fill: #2f7fc1 }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #30363d }
      .peer { fill: #10304d; stroke: #58a6e8 }
      .teacher { fill: #12361f; stroke: #4fb36f }
      .copy { fill: #0f2133; stroke: #58a6e8 }
      .predictor { fill: #3d2e0c; stroke: #d6a843 }
      .module { fill: #2d1e43; stroke: #b18ae0 }
      .labels { fill: #21262d; stroke: #7d8590 }
      text { fill: #e6edf3 }
      .part, .legend { fill: #9198a1 }
      .edge { stroke: #e6edf3 }
      .from-labels { stroke: #adb7c2 }
      .read { stroke: #545d68 }
      .followed { stroke: #58a6e8 }
      .tip { fill: #e6edf3 }
      .tip.from-labels { fill: #adb7c2 }
      .tip.read { fill: #545d68 }
      .tip.followed { fill: #58a6e8 }
    }
"""
CLASSES: dict[Kind, str] = {  # their names in the style
    "teaches": "teaches",
    "trains": "trains",
    "is read by": "read",
    "is followed by": "followed",
}


class Box(NamedTuple):
    """A node's place: its middle, and how large it is."""

    x: float
    y: float
    width: float = WIDTH
    height: float = HEIGHT

    def holds(self, point: tuple[float, float], margin: float = 0.0) -> bool:
        """Whether a point lies inside, or no further outside than the margin."""
        x, y = point
        return abs(x - self.x) <= self.width / 2 + margin and abs(y - self.y) <= self.height / 2 + margin


Curve = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # a quadratic Bezier curve


def drawn(teaching: Teaching) -> list[Edge]:
    """The edges that the picture shows: between two nodes and in one direction the strongest alone."""
    shown: dict[tuple[str, str], Edge] = {}
    for edge in sorted(teaching.edges, key=lambda e: list(LEGEND).index(e.kind)):
        shown.setdefault((edge.source, edge.target), edge)
    return list(shown.values())


def draw(title: str, description: str, teaching: Teaching) -> str:
    """The picture as SVG, readable in light and in dark, with a title and a description for screen readers."""
    edges = drawn(teaching)
    boxes, (left, right, bottom) = _layout(teaching, edges)
    curves = _route(edges, boxes, (left - 0.7 * MARGIN, right + 0.7 * MARGIN))
    kinds = [kind for kind in LEGEND if any(edge.kind == kind for edge in edges)]
    width = max(right - left, 40 + 130 * len(kinds)) + 2 * MARGIN
    start = (left + right) / 2 - width / 2
    top = min(box.y for box in boxes.values()) - HEIGHT / 2 - MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title description" '
        f'viewBox="{_n(start)} {_n(top)} {_n(width)} {_n(bottom - top + 44)}" width="{_n(width)}">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="description">{escape(description)}</desc>',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="paper" x="{_n(start + 1)}" y="{_n(top + 1)}" width="{_n(width - 2)}" '
        f'height="{_n(bottom - top + 42)}" rx="10"/>',
    ]
    for edge, curve in sorted(zip(edges, curves, strict=True), key=lambda pair: -list(LEGEND).index(pair[0].kind)):
        name = CLASSES[edge.kind] + (" from-labels" if edge.source == "labels" else "")
        parts += _arrow(curve, name)
    for node in teaching.nodes.values():
        parts += _box(node, boxes[node.name])
    x = start + MARGIN
    for kind in kinds:
        y = bottom + 22
        parts += _arrow(((x, y), (x + 15, y), (x + 30, y)), CLASSES[kind])
        parts.append(f'  <text class="legend" x="{_n(x + 38)}" y="{_n(y + 4)}">{LEGEND[kind]}</text>')
        x += 60 + 7.0 * len(LEGEND[kind])
    return "\n".join([*parts, "</svg>", ""])


def _layout(teaching: Teaching, edges: Sequence[Edge]) -> tuple[dict[str, Box], tuple[float, float, float]]:
    """Where every node lies, and the left, right and lower end of it all."""
    peers = [name for name, node in teaching.nodes.items() if node.kind == "peer"]
    column = {name: float(k) for k, name in enumerate(peers)}
    above = [node for node in teaching.nodes.values() if node.kind not in ("peer", "labels")]
    taught = {
        n.name: [e.target for e in edges if e.source == n.name and e.kind in ("teaches", "trains")] for n in above
    }
    heard = {n.name: [e.source for e in edges if e.target == n.name] for n in above}

    def place(node: Node) -> tuple[float, int]:
        """Column and level above the peers: what belongs to one peer is near it, what learns is above what does not."""
        towards = [column[n] for n in taught[node.name] if n in column]
        back = [column[n] for n in heard[node.name] if n in column]
        if node.kind == "copy" and len(back) == 1:
            aside = 0.35 if any(n.kind == "predictor" for n in above) else 0.0  # leaves room for what is above
            return back[0] + math.copysign(aside, back[0] - (len(peers) - 1) / 2), 1
        if len(towards) == 1 and node.kind == "module":
            return towards[0], 1
        means = [sum(c) / len(c) for c in (towards, back) if c]
        learns = "labels" in heard[node.name] or node.kind == "module"
        return sum(means) / len(means), 2 if learns else 1

    places = {node.name: place(node) for node in above}
    used = sorted({level for _, level in places.values()})
    boxes = {name: Box(COLUMN * k, 0.0) for name, k in column.items()}
    for rank, level in enumerate(used, start=1):
        row = sorted((x, name) for name, (x, at) in places.items() if at == level)
        xs = [COLUMN * x for x, _ in row]
        for k in range(1, len(xs)):
            xs[k] = max(xs[k], xs[k - 1] + WIDTH + 24)
        shift = (sum(COLUMN * x for x, _ in row) - sum(xs)) / len(row)
        boxes |= {name: Box(x + shift, -ROW * rank) for x, (_, name) in zip(xs, row, strict=True)}
    left, right = (min(b.x for b in boxes.values()) - WIDTH / 2, max(b.x for b in boxes.values()) + WIDTH / 2)
    low = 0.85 * ROW
    boxes["labels"] = Box((left + right) / 2, low, right - left, 0.7 * HEIGHT)
    return boxes, (left, right, low + HEIGHT / 2)


def _route(edges: Sequence[Edge], boxes: dict[str, Box], frame: tuple[float, float]) -> list[Curve]:
    """A curve for each edge, bent as little as it must be to keep clear of other nodes, other curves and the frame."""
    together = {
        frozenset(edge[::2]): sum(frozenset(other[::2]) == frozenset(edge[::2]) for other in edges) for edge in edges
    }
    taken: list[list[tuple[float, float]]] = []
    curves = []
    for edge in edges:
        others = [box for name, box in boxes.items() if name not in (edge.source, edge.target, "labels")]
        single = together[frozenset(edge[::2])] == 1

        def cost(curve: Curve, bend: float, single: bool = single, others: list[Box] = others) -> tuple[float, float]:
            points = _points(curve)
            hits = sum(box.holds(point, 9) for box in others for point in points)
            close = sum(min(math.dist(p, q) for q in line) < 9 for line in taken for p in points[5:-5])
            outside = sum(not frame[0] < x < frame[1] for x, _ in points)
            step = math.dist(curve[0], curve[2]) / len(points)
            left = 15.0 if bend < 0 and not single else 0.0  # edges there and back do not cross if both keep right
            return step * (4.0 * hits + 4.0 * outside + close) + abs(bend) + left, bend

        found = []
        for start, end in _ends(edge, boxes):
            for bend in (0, 16, -16, 30, -30, 50, -50, 80, -80, 110, -110, 150, -150):
                if bend or single:
                    curve = _clipped(_bent(start, end, bend), boxes[edge.source], boxes[edge.target])
                    found.append((*cost(curve, bend), curve))
        best = min(found, key=lambda item: (round(item[0], 3), item[1]))[2]
        taken.append(_points(best))
        curves.append(best)
    return curves


def _ends(edge: Edge, boxes: dict[str, Box]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """From where to where an edge may go; out of the labels it may start anywhere below its end."""
    source, target = boxes[edge.source], boxes[edge.target]
    if edge.source != "labels":
        return [((source.x, source.y), (target.x, target.y))]
    shifts = (0.0, -20.0, 20.0, -40.0, 40.0) if target.y == 0 else [k * COLUMN / 4 for k in (0, -1, 1, -2, 2, -3, 3)]
    inside = [target.x + shift for shift in shifts if abs(target.x + shift - source.x) < source.width / 2 - 10]
    ends = (0.0, -24.0, 24.0) if target.y == 0 else (0.0, -40.0, 40.0)
    return [((x, source.y), (target.x + end, target.y)) for x in inside for end in ends]


def _bent(start: tuple[float, float], end: tuple[float, float], bend: float) -> Curve:
    """The straight line, its middle moved to the side; so are its ends where it is bent, up to a third of a box."""
    (x0, y0), (x1, y1) = start, end
    length = math.dist(start, end)
    # To the right of the direction in which it goes: edges there and back keep to sides of their own.
    across = (-(y1 - y0) / length, (x1 - x0) / length)
    aside = max(-9.0, min(9.0, bend / 2))
    ends = [(x + aside * across[0], y + aside * across[1]) for x, y in (start, end)]
    middle = ((x0 + x1) / 2 + bend * across[0], (y0 + y1) / 2 + bend * across[1])
    return ends[0], middle, ends[1]


def _clipped(curve: Curve, source: Box, target: Box) -> Curve:
    """The part of a curve between two boxes."""
    steps = 400
    inside = [k / steps for k in range(steps + 1)]
    first = max((t for t in inside if source.holds(_at(curve, t, t), 3)), default=0.0)
    last = min((t for t in inside if t > first and target.holds(_at(curve, t, t), 4)), default=1.0)
    return _at(curve, first, first), _at(curve, first, last), _at(curve, last, last)


def _at(curve: Curve, s: float, t: float) -> tuple[float, float]:
    """The curve's blossom: with s = t its point there, with two values the middle of the part between them."""
    (x0, y0), (x1, y1), (x2, y2) = curve
    a, b, c = (1 - s) * (1 - t), s * (1 - t) + t * (1 - s), s * t
    return a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2


def _points(curve: Curve) -> list[tuple[float, float]]:
    return [_at(curve, k / 40, k / 40) for k in range(41)]


def _arrow(curve: Curve, name: str) -> list[str]:
    (x0, y0), (x1, y1), (x2, y2) = curve
    size = 9.0 if name.startswith(("teaches", "trains")) else 7.0
    length = math.dist((x1, y1), (x2, y2)) or 1.0
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    back = (x2 - size * dx, y2 - size * dy)
    tip = [(x2, y2), *((back[0] - s * dy * size * 0.45, back[1] + s * dx * size * 0.45) for s in (1, -1))]
    end = (x2 - size * dx * 0.8, y2 - size * dy * 0.8)
    return [
        f'  <path class="edge {name}" d="M{_xy((x0, y0))} Q{_xy((x1, y1))} {_xy(end)}"/>',
        f'  <path class="tip {name}" d="M{_xy(tip[0])} L{_xy(tip[1])} L{_xy(tip[2])} Z"/>',
    ]


def _box(node: Node, box: Box) -> list[str]:
    name = node.name.replace(".", " ").replace("discriminators", "discriminator").replace("decoders", "decoder")
    lines = [
        f'  <rect class="box {node.kind}" x="{_n(box.x - box.width / 2)}" y="{_n(box.y - box.height / 2)}" '
        f'width="{_n(box.width)}" height="{_n(box.height)}" rx="8"/>',
        f'  <text x="{_n(box.x)}" y="{_n(box.y + (-2 if node.parts else 5))}">{escape(name)}</text>',
    ]
    if node.parts:
        parts = escape(", ".join(node.parts))
        lines.append(f'  <text class="part" x="{_n(box.x)}" y="{_n(box.y + 14)}">{parts}</text>')
    return lines


def _xy(point: tuple[float, float]) -> str:
    return f"{_n(point[0])} {_n(point[1])}"


def _n(number: float) -> str:
    """One decimal at most, and never -0."""
    return f"{round(number, 1) + 0:g}"
