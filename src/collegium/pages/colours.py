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
    """Predictor -> style, in the order peers, ensemble, own. Averaged weights have their peer's colour, dotted.

    Args:
        peers: their names.
        own: the method's own predictors, and those with averaged weights.
    """
    result = {name: _pick(PEERS, k) for k, name in enumerate(peers)}
    result["ensemble"] = Style(INK, "dashed")
    averaged = {name: result[name.removesuffix(AVERAGED)].colour for name in own if name.endswith(AVERAGED)}
    result |= {name: _pick(OWN, k) for k, name in enumerate(name for name in own if name not in averaged)}
    return result | {name: Style(colour, "dotted") for name, colour in averaged.items()}


def _pick(colours: Sequence[str], index: int) -> Style:
    return Style(colours[index % len(colours)], DASHES[index // len(colours) % len(DASHES)])
