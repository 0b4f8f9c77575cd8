"""Classification maps of a hyperspectral scene: what every predictor says of every pixel.

One colour a class, the same in every map. Pixels without a class are clear, so that maps suit a light page and a dark
one.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from collegium.data import SceneData

# Kelly's colours of largest contrast (Color Engineering 3(6), 1965), without white and black.
KELLY = (
    *("#f3c300", "#875692", "#f38400", "#a1caf1", "#be0032", "#c2b280", "#848482", "#008856", "#e68fac", "#0067a5"),
    *("#f99379", "#604e97", "#f6a600", "#b3446c", "#dcd300", "#882d17", "#8db600", "#654522", "#e25822", "#2b3d26"),
)
MARK = (0, 0, 0, 255)  # a training pixel
COLUMN = 2.6  # inches
LEGEND_COLUMNS = 4
LONG = 2  # a scene so many times as wide as high has its maps one below the other


@dataclass(frozen=True)
class Panel:
    """One map.

    Attributes:
        title: whose it is.
        pixels: (H, W, 4) uint8, red, green, blue and opacity.
    """

    title: str
    pixels: Tensor


def class_colours(count: int) -> list[str]:
    """One colour a class; from the 21st on, the same ones darker."""
    return [_darker(KELLY[k % len(KELLY)], k // len(KELLY)) for k in range(count)]


def paint(labels: Tensor, colours: Sequence[str]) -> Tensor:
    """Classes (H, W), -1 for none, in their colours: (H, W, 4) uint8, clear where there is none."""
    table = torch.tensor([[*_channels(colour), 255] for colour in colours] + [[0, 0, 0, 0]], dtype=torch.uint8)
    return table[labels]  # -1 is the last row


def scene_panels(data: SceneData) -> list[Panel]:
    """The scene in false colour, and its classes with the training pixels in black."""
    height, width = data.ground_truth.shape
    shown = torch.full((height, width, 4), 255, dtype=torch.uint8)
    shown[..., :3] = data.false_colour().permute(1, 2, 0)
    truth = paint(data.ground_truth, class_colours(data.num_classes))
    truth[data.train.positions // width, data.train.positions % width] = torch.tensor(MARK, dtype=torch.uint8)
    return [Panel("false colour", shown), Panel("classes, training pixels black", truth)]


def predictor_panels(data: SceneData, maps: Mapping[str, Tensor], *, labelled: bool = False) -> list[Panel]:
    """Each predictor's classes (H, W), of all pixels with data or of those with a label."""
    colours = class_colours(data.num_classes)
    shown = torch.ones_like(data.ground_truth, dtype=torch.bool) if data.missing is None else ~data.missing
    if labelled:
        shown = data.ground_truth >= 0
    return [Panel(name, paint(torch.where(shown, answer, -1), colours)) for name, answer in maps.items()]


def map_file(data: SceneData, maps: Mapping[str, Tensor], title: str) -> bytes:
    """All maps in one picture, with a legend, as PNG: predictors on all pixels above, on labelled ones below.

    Args:
        data: the scene.
        maps: predictor -> (H, W) int64, its class for every pixel.
        title: what stands above.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    scene, truth = scene_panels(data)
    rows = [[scene, *predictor_panels(data, maps)], [truth, *predictor_panels(data, maps, labelled=True)]]
    height, width = data.ground_truth.shape
    column = COLUMN
    if width > LONG * height:
        rows, column = [list(pair) for pair in zip(*rows, strict=True)], 2.5 * COLUMN
    columns = len(rows[0])
    legend_rows = -(-(data.num_classes + 1) // LEGEND_COLUMNS)
    size = columns * column, len(rows) * (column * height / width + 0.3) + 0.25 * legend_rows + 0.6
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11)
    for axes_row, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axes, panel in zip(axes_row, row, strict=True):
            axes.imshow(panel.pixels.numpy(), interpolation="nearest")
            axes.set_title(panel.title, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    handles = [
        Patch(color=colour, label=name)
        for colour, name in zip(class_colours(data.num_classes), data.class_names, strict=True)
    ]
    handles.append(Patch(color="black", label="training pixel"))
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _darker(colour: str, times: int) -> str:
    return "#" + "".join(f"{round(channel * 0.6**times):02x}" for channel in _channels(colour))
