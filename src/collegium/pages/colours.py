"""One colour and one line style for each predictor, the same in every figure and table.

The colours are close to Okabe and Ito's, which colour-blind readers can tell apart; they suit light and dark pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from collegium.cohort import AVERAGED

PEERS = ("#1a80bb", "#009e73", "#cc79a7", "#56b4e9", "#8c6bb1", "#7f8c3f")
OWN = ("#d55e00", "#e69f00", "#a6611a")
ACCENT = "#1a80bb"
INK = "#010203"  # stands for the colour of the page's text; figures.to_svg replaces it
DASHES = ("solid", "dashed", "dotted", "dashdot")


@dataclass(frozen=True)
class Style:
    """How a predictor is drawn; INK follows the page's text colour."""

    colour: str
    dash: str

    @property
    def css(self) -> str:
        return "currentColor" if self.colour == INK else self.colour


def styles(peers: Sequence[str], own: Sequence[str]) -> dict[str, Style]:
    """Predictor -> style, in the order peers, ensemble, own; with averaged weights the same colours, dotted."""
    result = {name: _pick(PEERS, k) for k, name in enumerate(peers)}
    result["ensemble"] = Style(INK, "dashed")
    averaged = {name + AVERAGED: Style(style.colour, "dotted") for name, style in result.items()}
    return result | {name: _pick(OWN, k) for k, name in enumerate(own)} | averaged


def _pick(colours: Sequence[str], index: int) -> Style:
    return Style(colours[index % len(colours)], DASHES[index // len(colours) % len(DASHES)])
