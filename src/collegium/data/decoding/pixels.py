"""Any picture, file or array, as pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collegium.errors import DataError, UsageError

from ..interface import describe

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL converts


def read_image(file: Path | str | Any, channels: int | None = 3) -> Tensor:
    """The pixels of an image file, upright, as (C, H, W) uint8; `channels` as for :func:`to_pixels`.

    Args:
        file: its path, or an open binary file.

    Raises:
        DataError: it cannot be decoded to its end.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return to_pixels(image, channels)
    except UsageError:
        raise
    except UnidentifiedImageError:
        raise DataError("no image of a known kind") from None
    except Exception as error:  # PIL's readers raise several kinds
        raise DataError(str(error) or type(error).__name__) from error


def to_pixels(image: Any, channels: int | None = None) -> Tensor:
    """A picture as uint8 (C, H, W).

    Args:
        image: a PIL image (turned upright as its EXIF data say); a tensor (H, W) or (C, H, W), or an array (H, W) or
            (H, W, C), of uint8, of uint16 (divided by 257), or of floating point in [0, 1]. Of transparency only the
            colours are kept.
        channels: 1 for grey or 3 for colour, converted where needed; None for as many as there are, of a PIL image
            1 or 3.

    Raises:
        UsageError: it is none of these.
    """
    pixels = _from_array(image) if isinstance(image, Tensor | np.ndarray) else _from_pil(image)
    have = len(pixels)
    if channels is None or have == channels:
        return pixels
    if have not in (1, 3):
        raise UsageError(f"an image has {have} channels, which cannot be converted to {channels}")
    if channels == 3:
        return pixels.expand(3, -1, -1)
    weights = torch.tensor(_LUMINANCE).view(3, 1, 1)
    return (pixels * weights).sum(0, keepdim=True).round().to(torch.uint8)


def _from_pil(image: Any) -> Tensor:
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise UsageError(f"an image is {describe(image)}: expected a PIL image, a tensor or a NumPy array")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise UsageError("an image has floating point pixels (PIL's mode F), whose black and white are unknown")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # PIL would clip all that is above 255.
        array = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
    elif image.mode in ("1", "L", "LA", "La"):
        array = np.asarray(image.convert("L"))
    else:
        if "transparency" in image.info:
            image = image.convert("RGBA")
        array = np.asarray(image.convert("RGB"))
    return torch.from_numpy(array.astype(np.uint8)).view(*array.shape[:2], -1).permute(2, 0, 1)


def _from_array(given: Any) -> Tensor:
    image = given.detach().cpu() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, order="C"))
    if image.ndim not in (2, 3):
        raise UsageError(f"an image is {describe(given)}: expected (H, W), a tensor (C, H, W) or an array (H, W, C)")
    if image.ndim == 2:
        image = image.unsqueeze(0)
    elif not isinstance(given, Tensor):
        image = image.permute(2, 0, 1)
    if image.is_floating_point():
        if not ((image >= 0) & (image <= 1)).all():  # NaN fails both
            raise UsageError(
                "an image has floating point values outside [0, 1]: leave the normalisation out of the data set's "
                "transform (Collegium normalises, see mean and std), or give uint8"
            )
        return (image * 255).round().to(torch.uint8)
    if image.dtype == torch.uint16:
        return (image.to(torch.int32) // 257).to(torch.uint8)
    if image.dtype != torch.uint8:
        raise UsageError(f"an image is {describe(given)}: expected uint8, uint16, or floating point in [0, 1]")
    return image
