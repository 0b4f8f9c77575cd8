"""Test images as PNG in the page, plain and with attention laid over them."""

import base64
import io

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.pages.html import Html, element
from collegium.results.examples import enlarge

SIDE = 128  # pixels of the longer side


def plain(image: Tensor, description: str, side: int = SIDE) -> Html:
    """(C, H, W) uint8 -> an ``img`` of about ``side`` pixels; the browser enlarges a small image."""
    pixels = _shown(image, side)
    return as_png(pixels, description, enlarged=side // max(pixels.shape[:2]))


def overlaid(image: Tensor, attention: Tensor, description: str) -> Html:
    """The image in grey under its attention map: (C, H, W) uint8, (h, w) in [0, 1] -> an ``img``."""
    from matplotlib import colormaps

    shown = _shown(image, SIDE)
    times = SIDE // max(shown.shape[:2])
    shown = shown.repeat_interleave(times, 0).repeat_interleave(times, 1)
    height, width = shown.shape[:2]
    grey = shown.mean(-1, keepdim=True)
    heat = torch.from_numpy(colormaps["inferno"](enlarge(attention, (height, width)).numpy())[..., :3]).float()
    return as_png(0.4 * grey + 0.6 * heat, description)


def _shown(image: Tensor, side: int) -> Tensor:
    """As red, green and blue in [0, 1], at most ``side`` pixels long: (C, H, W) uint8 -> (H, W, 3).

    Of more than three channels three evenly spaced ones are shown; of one or two, the first as grey.
    """
    channels = len(image)
    picked = [0, 0, 0] if channels < 3 else [round(k * (channels - 1) / 2) for k in range(3)]
    colour = image[picked].float()[None] / 255
    longest = max(colour.shape[2:])
    if longest > side:
        scale = side / longest
        size = (max(1, round(colour.shape[2] * scale)), max(1, round(colour.shape[3] * scale)))
        colour = F.interpolate(colour, size, mode="area")
    return colour[0].permute(1, 2, 0)


def as_png(pixels: Tensor, description: str, enlarged: int = 1) -> Html:
    """(H, W, 3), or with opacity (H, W, 4), in [0, 1] -> an ``img`` of that size, or shown so many times as large."""
    from PIL import Image

    data = io.BytesIO()
    levels = (255 * pixels.clamp(0, 1)).round().to(torch.uint8)
    grey = levels.shape[2] == 3 and bool((levels == levels[..., :1]).all())
    Image.fromarray((levels[..., 0] if grey else levels).numpy()).save(data, "png", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    height, width = pixels.shape[:2]
    return element("img", src=source, alt=description, width=enlarged * width, height=enlarged * height)
