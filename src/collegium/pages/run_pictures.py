"""Test images as PNG in the page, plain and with attention laid over them."""

import base64
import io

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.pages.html import Html, element
from collegium.results.examples import enlarge

SIDE = 128  # pixels of the longer side


def plain(image: Tensor, description: str) -> Html:
    """(C, H, W) uint8 -> an ``img``."""
    return as_png(_shown(image), description)


def overlaid(image: Tensor, attention: Tensor, description: str) -> Html:
    """The image in grey under its attention map: (C, H, W) uint8, (h, w) in [0, 1] -> an ``img``."""
    from matplotlib import colormaps

    shown = _shown(image)
    height, width = shown.shape[:2]
    grey = shown.mean(-1, keepdim=True)
    heat = torch.from_numpy(colormaps["inferno"](enlarge(attention, (height, width)).numpy())[..., :3]).float()
    return as_png(0.4 * grey + 0.6 * heat, description)


def _shown(image: Tensor) -> Tensor:
    """As red, green and blue in [0, 1], SIDE pixels long: (C, H, W) uint8 -> (H, W, 3).

    Of more than three channels three evenly spaced ones are shown; of one or two, the first as grey.
    """
    channels = len(image)
    picked = [0, 0, 0] if channels < 3 else [round(k * (channels - 1) / 2) for k in range(3)]
    colour = image[picked].float()[None] / 255
    longest = max(colour.shape[2:])
    if longest > SIDE:
        scale = SIDE / longest
        size = (max(1, round(colour.shape[2] * scale)), max(1, round(colour.shape[3] * scale)))
        colour = F.interpolate(colour, size, mode="area")
    else:
        colour = F.interpolate(colour, scale_factor=SIDE // longest, mode="nearest")
    return colour[0].permute(1, 2, 0)


def as_png(pixels: Tensor, description: str) -> Html:
    """(H, W, 3), or with opacity (H, W, 4), in [0, 1] -> an ``img`` of that size."""
    from matplotlib.image import imsave

    data = io.BytesIO()
    imsave(data, pixels.clamp(0, 1).numpy(), format="png")
    source = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    height, width = pixels.shape[:2]
    return element("img", src=source, alt=description, width=width, height=height)
