"""Any picture, file or array, as pixels."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collegium.errors import CollegiumError, DataError, UsageError
from collegium.files import read_bounded

from ..interface import check_order, describe
from ..views import Part, Plan, cut

Shape: TypeAlias = tuple[int, int, int]

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL converts


MOST_PIXELS = 100_000_000  # of an image file: a few bytes can stand for more than memory holds
_TOO_LARGE = f"it has more than {MOST_PIXELS // 10**6} million pixels"
MOST_BYTES = 256 << 20  # of an image file

# What the endings that torchvision knows can stand for. PIL tells a file's kind by its content, and would start another
# program for some others, such as PostScript.
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

TRANSPARENT, CMYK, FRAMES = 1, 2, 4

# Without a handler, what PIL logs of a damaged file is written to stderr, beside the sentence that says the same.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_ORIENTATION = 0x0112  # of EXIF data
_ON_ITS_SIDE = (5, 6, 7, 8)
_MARGIN = 1.5


class Found(NamedTuple):
    """What an image file holds.

    Attributes:
        shape: (C, H, W), upright; C is 1 or 3.
        peak: the largest value where the file has 16 bits a channel, else 0.
        traits: the sum of TRANSPARENT (parts of the image are), CMYK and FRAMES (it has more than one).
    """

    shape: Shape
    peak: int
    traits: int


def read_image(file: Path | str | Any, channels: int | None = 3, bit_depth: int | None = None) -> Tensor:
    """The pixels of an image file, upright, as (C, H, W) uint8; `channels` and `bit_depth` as for :func:`to_pixels`.

    Of an animation, or a file of several pages, the first one.

    Args:
        file: its path, or an open binary file.

    Raises:
        DataError: it is no plain file, has more than 256 MiB or 100 million pixels, or cannot be decoded to its end.
        UsageError: it has larger values than `bit_depth` allows.
    """
    with _opened(file) as (image, raw):
        return _whole(image, raw, channels, bit_depth)


def _whole(image: Any, raw: bytes, channels: int | None, bit_depth: int | None) -> Tensor:
    """All pixels of an open file."""
    if bit_depth not in (None, 16) and _deep_colour(image):
        return _converted(_from_16_bit_colour(raw, image.format, bit_depth), channels)
    return to_pixels(image, channels, bit_depth)


def read_parts(
    file: Path | str | Any, plan: Plan, channels: int | None = 3, bit_depth: int | None = None
) -> list[Tensor]:
    """Parts of an image file, each resized, as (C, H, W) uint8; other arguments and errors as for :func:`read_image`.

    Of a JPEG file no more is decoded than the parts need: at a half, a quarter or an eighth of its size where each is
    then still half as large again as it is to become. libjpeg takes that from the lower frequencies; it is sharper than
    what resizing all pixels gives, on average by 1 to 3 of 255 grey levels. A part then begins at a pixel of the
    reduced image.

    Args:
        plan: is called with the image's height and width, upright.
    """
    with _opened(file) as (image, raw):
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            return _jpeg_parts(image, raw, plan, channels)
        pixels = _whole(image, raw, channels, bit_depth)
    height, width = pixels.shape[1:]
    return [cut(pixels, part) for part in plan(height, width)]


def _jpeg_parts(image: Any, raw: bytes, plan: Plan, channels: int | None) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_image

    turn = _orientation(image)
    height, width = (image.width, image.height) if turn in _ON_ITS_SIDE else (image.height, image.width)
    parts = plan(height, width)
    reduced = min(_reduction(part) for part in parts)
    if reduced == 1 and turn == 1 and channels in (None, len(image.getbands())):
        mode = ImageReadMode.GRAY if image.mode == "L" else ImageReadMode.RGB
        try:
            pixels = decode_image(torch.frombuffer(raw, dtype=torch.uint8), mode)  # faster than PIL, and the same
            return [cut(pixels, part).clone() for part in parts]
        except RuntimeError:  # a damaged file, of which PIL says what is wrong
            pass
    image.draft(None, (image.width // reduced, image.height // reduced))
    pixels = _converted(_from_pil(image, 16), channels)
    return [cut(pixels, part, reduced).clone() for part in parts]


def _orientation(image: Any) -> int:
    """1 for upright to 8, of EXIF or XMP data; 1 where they are damaged, as the pixels are whole."""
    if "exif" not in image.info and "xmp" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _reduction(part: Part) -> int:
    """By what the sides of an image may be divided so that a part is still larger than it is to become."""
    height, width = (_MARGIN * side for side in part.size)
    return next((by for by in (8, 4, 2) if part.height >= by * height and part.width >= by * width), 1)


def examine_image(file: Path | str | Any) -> Found:
    """What an image file holds, which is decoded to its end.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(file) as (image, _):
        deep_colour, frames = _deep_colour(image), bool(getattr(image, "is_animated", False))
        image.load()
        traits = TRANSPARENT * _transparent(image) + CMYK * (image.mode == "CMYK") + FRAMES * frames
        peak = 0
        if deep_colour:  # PIL reads the upper byte of each value
            peak = max(high for _, high in _extrema(image.convert("RGB"))) << 8 | 255
        elif _deep_grey(image):
            peak = int(np.asarray(image).max())
        channels, height, width = to_pixels(image).shape
        return Found((channels, height, width), peak, traits)


def read_image_file(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        DataError: it is no regular file, cannot be read, or has more than 256 MiB; only why is said.
    """
    try:
        return read_bounded(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise DataError(str(error.strerror)) from error
    except DataError as error:
        raise DataError(str(error).rpartition(": ")[2]) from error


@contextmanager
def _opened(file: Path | str | Any) -> Iterator[tuple[Any, bytes]]:
    """A PIL image and the file's content."""
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(file, Path | str):
            raw = read_image_file(Path(file))
        else:
            file.seek(0)
            raw = file.read()
        Image.init()  # else PIL does not know all of the formats yet
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of harmless flaws
            with Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                yield image, raw
    except (CollegiumError, MemoryError, ImportError):
        raise
    except UnidentifiedImageError:
        raise DataError("no image of a known kind") from None
    except Image.DecompressionBombError:
        raise DataError(_TOO_LARGE) from None
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    except Exception as error:  # PIL's readers raise several kinds
        raise DataError(str(error) or type(error).__name__) from error


def to_pixels(image: Any, channels: int | None = None, bit_depth: int | None = None) -> Tensor:
    """A picture as uint8 (C, H, W).

    Args:
        image: a PIL image (turned upright as its EXIF data say); a tensor (H, W) or (C, H, W), or an array (H, W) or
            (H, W, C), of uint8, of uint16, or of floating point in [0, 1]. Of transparency only the colours are kept,
            and CMYK is converted without a colour profile.
        channels: 1 for grey or 3 for colour, converted where needed; None for as many as there are, of a PIL image
            1 or 3.
        bit_depth: how many bits the values of 16-bit images have, so that 2^bit_depth - 1 is white; None for 16.

    Raises:
        UsageError: it is none of these, or has larger values than `bit_depth` allows.
    """
    depth = bit_depth or 16
    pixels = _from_array(image, depth) if isinstance(image, Tensor | np.ndarray) else _from_pil(image, depth)
    return _converted(pixels, channels)


def peak(image: Any) -> int:
    """The largest value of a PIL image, a tensor or an array where it has 16 bits a channel, else 0."""
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return int(image.max()) if image.dtype == np.uint16 and image.size else 0
    return int(np.asarray(image).max()) if _deep_grey(image) else 0


def _converted(pixels: Tensor, channels: int | None) -> Tensor:
    have = len(pixels)
    if channels is None or have == channels:
        return pixels
    if have not in (1, 3):
        raise UsageError(f"an image has {have} channels, which cannot be converted to {channels}")
    if channels == 3:
        return pixels.expand(3, -1, -1)
    weights = torch.tensor(_LUMINANCE).view(3, 1, 1)
    return (pixels * weights).sum(0, keepdim=True).round().to(torch.uint8)


def _deep_grey(image: Any) -> bool:
    return str(image.mode) == "I" or str(image.mode).startswith("I;16")


def _deep_colour(image: Any) -> bool:
    """Whether a file that has been opened, and not loaded, has 16 bits a channel of which PIL will keep 8."""
    return ";16" in str(image.tile) and not _deep_grey(image)


def _extrema(image: Any) -> list[tuple[int, int]]:
    """(smallest, largest) of each channel"""
    found = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]


def _transparent(image: Any) -> bool:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return int(_extrema(image)[-1][0]) < 255
    return "transparency" in image.info


def _scaled(values: Any, bits: int) -> NDArray[np.uint8]:
    """Integers up to 2^bits - 1 as bytes."""
    values = np.asarray(values, dtype=np.int64)
    for value in (values.min(initial=0), values.max(initial=0)):
        if not 0 <= value < 1 << bits:
            do = "give another bit_depth" if bits < 16 else "convert it to 16 bits"
            raise UsageError(f"an image has the value {value}, outside 0 to {(1 << bits) - 1}: {do}")
    scaled: NDArray[np.uint8] = (values * 255 // ((1 << bits) - 1)).astype(np.uint8)
    return scaled


def _from_16_bit_colour(raw: bytes, kind: str, bits: int) -> Tensor:
    if kind != "PNG":
        raise DataError(f"16-bit colour is read with a bit_depth from PNG files alone, not from {kind}: convert it")
    from torchvision.io import ImageReadMode, decode_image

    values = decode_image(torch.frombuffer(bytearray(raw), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    colours = values[: 3 if len(values) > 2 else 1]  # without transparency
    return torch.from_numpy(_scaled(colours.numpy(), bits))


def _from_pil(image: Any, bits: int) -> Tensor:
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise UsageError(f"an image is {describe(image)}: expected a PIL image, a tensor or a NumPy array")
    if image.width * image.height > MOST_PIXELS:  # that it has been opened does not mean that it fits into memory
        raise DataError(_TOO_LARGE)
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: the pixels are whole
        pass
    if image.mode == "F":
        raise UsageError("an image has floating point pixels (PIL's mode F), whose black and white are unknown")
    if _deep_grey(image):
        array = _scaled(image, bits)  # PIL would clip all that is above 255
    elif image.mode in ("1", "L", "LA", "La"):
        array = np.asarray((image.convert("LA") if image.mode == "La" else image).convert("L"))
    else:
        if "transparency" in image.info:
            image = image.convert("RGBA")
        array = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(array.astype(np.uint8)).view(*array.shape[:2], -1).permute(2, 0, 1)


def _from_array(given: Any, bits: int) -> Tensor:
    image = given.detach().cpu() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, order="C"))
    if image.ndim not in (2, 3):
        raise UsageError(f"an image is {describe(given)}: expected (H, W), a tensor (C, H, W) or an array (H, W, C)")
    check_order("an image", given)
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
        return torch.from_numpy(_scaled(image.numpy(), bits))
    if image.dtype != torch.uint8:
        raise UsageError(f"an image is {describe(given)}: expected uint8, uint16, or floating point in [0, 1]")
    return image
