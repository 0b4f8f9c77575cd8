import io
import logging
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from collegium.data.decoding.pixels import read_image, to_pixels
from collegium.errors import DataError, UsageError

COLOUR = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
GREY = np.arange(8, dtype=np.uint8).reshape(2, 4) * 30
PLANES = torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(COLOUR),
        Image.fromarray(COLOUR).convert("RGBA"),
        COLOUR,
        PLANES,
        COLOUR / np.float32(255),
        PLANES.float() / 255,
        PLANES.to(torch.uint16) * 257,
        COLOUR.astype(np.uint16) * 257,
    ],
)
def test_colour(image):
    assert torch.equal(to_pixels(image), PLANES)
    assert torch.equal(to_pixels(image, 3), PLANES)
    grey = np.asarray(Image.fromarray(COLOUR).convert("L"), dtype=int)
    assert to_pixels(image, 1).shape == (1, 2, 4)
    assert abs(to_pixels(image, 1)[0].numpy().astype(int) - grey).max() <= 1


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("LA"),
        GREY,
        torch.from_numpy(GREY),
        torch.from_numpy(GREY)[None],
        GREY[:, :, None],
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32) * 257),
    ],
)
def test_grey(image):
    assert torch.equal(to_pixels(image), torch.from_numpy(GREY)[None])
    assert torch.equal(to_pixels(image, 3), torch.from_numpy(GREY).expand(3, 2, 4))


def test_black_and_white():
    assert to_pixels(Image.fromarray(GREY > 100)).unique().tolist() == [0, 255]


@pytest.mark.parametrize("transparent", [None, 0, b"\x00\x80\xff\xff"])
def test_palette(transparent):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    file = io.BytesIO()
    image.save(file, "PNG", **({} if transparent is None else {"transparency": transparent}))
    assert read_image(file)[:, 1, 1].tolist() == [9, 9, 9]
    assert read_image(file)[:, 0, 1].tolist() == [0, 255, 0]


def test_an_image_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG", exif=exif)
    assert torch.equal(read_image(file), PLANES.rot90(-1, (1, 2)))


def test_a_16_bit_file_keeps_its_levels():
    file = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 257).save(file, "PNG")
    assert torch.equal(read_image(file, channels=1), torch.from_numpy(GREY)[None])


@pytest.mark.parametrize("cut", [0, 30, -20])
def test_a_broken_file(cut):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "JPEG")
    with pytest.raises(DataError):
        read_image(io.BytesIO(file.getvalue()[: cut or 3]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PLANES.float(), r"outside \[0, 1\]: leave the normalisation out"),
        (torch.full((3, 2, 2), float("nan")), "outside"),
        (PLANES.long(), "int64 of shape"),
        (PLANES[None], r"expected \(H, W\)"),
        (torch.zeros(5, 2, 2, dtype=torch.uint8), "5 channels, which cannot be converted to 3"),
        ("text", "a str: expected a PIL image"),
        (Image.fromarray(GREY.astype(np.float32)), "floating point"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(UsageError, match=message):
        to_pixels(image, 3)


def test_other_numbers_of_channels_are_kept_where_none_is_asked_for():
    assert to_pixels(torch.zeros(5, 2, 2, dtype=torch.uint8)).shape == (5, 2, 2)


def test_what_pil_logs_of_a_damaged_file_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that has set up none
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 2**32 - 1, 278: 16, 279: 256}
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + listed + bytes(4)
    with pytest.raises(DataError, match="no image of a known kind"):
        read_image(io.BytesIO(content))
    assert capsys.readouterr().err == ""
