"""Parts of image files, of which no more is decoded than they need."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from collegium.data.decoding import pixels as module
from collegium.data.decoding.pixels import read_image, read_parts
from collegium.data.views import Part, Views, cut
from collegium.errors import DataError

CHINA, FLOWER = (Image.fromarray(image) for image in load_sample_images().images)  # 640 x 427
WHOLE = Part(0, 0, 427, 640, (50, 75))


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}), **options)
    return file


def both(file: io.BytesIO, part: Part, channels: int | None = 3) -> tuple[Tensor, Tensor]:
    """The part read by itself, and cut out of the whole image."""
    (found,) = read_parts(file, lambda height, width: [part], channels)
    return found, cut(read_image(file, channels), part)


@pytest.mark.parametrize("image", [CHINA, FLOWER])
@pytest.mark.parametrize(
    ("part", "reduced", "mean", "most"),
    [
        (Part(100, 50, 200, 240, (224, 224)), 1, 0.0, 0),
        (Part(0, 0, 427, 640, (213, 320)), 1, 0.0, 0),
        (Part(10, 30, 400, 480, (130, 160)), 2, 3.0, 60),
        (Part(0, 0, 427, 640, (71, 106)), 4, 3.0, 60),
        (Part(0, 0, 427, 640, (35, 53)), 8, 3.0, 60),
        (Part(33, 77, 300, 301, (50, 50)), 4, 8.0, 120),  # it begins between two pixels of the reduced image
    ],
)
def test_a_part_of_a_reduced_image_is_nearly_that_of_the_whole(
    image: Image.Image, part: Part, reduced: int, mean: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(module, "cut", lambda pixels, part, by=1: taken.append(by) or cut(pixels, part, by))
    found, expected = both(saved(image), part)
    assert taken == [reduced] and found.shape == (3, *part.size) and found.dtype == torch.uint8
    difference = (found.int() - expected.int()).abs().float()
    assert float(difference.mean()) <= mean and float(difference.max()) <= most


@pytest.mark.parametrize("turn", range(1, 9))
def test_parts_are_of_the_upright_image(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = saved(CHINA, exif=exif)
    sizes: list[tuple[int, int]] = []

    def plan(height: int, width: int) -> list[Part]:
        sizes.append((height, width))
        return [Part(0, 0, height, width, (height // 8, width // 8)), Part(20, 10, 100, 90, (100, 90))]

    for parts in (slice(0, 2), slice(0, 1)):  # the second part needs the whole image
        found = read_parts(file, lambda height, width, parts=parts: plan(height, width)[parts])
        whole = read_image(file)
        assert sizes[-1] == tuple(whole.shape[1:]) == ((640, 427) if turn >= 5 else (427, 640))
        for one, part in zip(found, plan(*whole.shape[1:]), strict=False):
            assert float((one.int() - cut(whole, part).int()).abs().float().mean()) <= 3


@pytest.mark.parametrize("size", [(640, 427), (40, 30)])
def test_an_orientation_that_xmp_data_tell_is_obeyed(size: tuple[int, int]) -> None:
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    file, seen = saved(CHINA, xmp=xmp), []

    def plan(height: int, width: int) -> list[Part]:
        seen.append((height, width))
        return [Part(0, 0, height, width, size)]

    (found,) = read_parts(file, plan)
    assert seen == [(640, 427)]
    difference = (found.int() - cut(read_image(file), Part(0, 0, 640, 427, size)).int()).abs().float()
    assert float(difference.mean()) <= 8  # it may begin within a pixel of the reduced image


@pytest.mark.parametrize("exif", [b"Exif\0\0nothing", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
@pytest.mark.parametrize("size", [(50, 75), (427, 640)])
def test_damaged_exif_data_are_passed_over(exif: bytes, size: tuple[int, int]) -> None:
    file = saved(CHINA, exif=exif)
    found, expected = both(file, WHOLE._replace(size=size))
    assert float((found.int() - expected.int()).abs().float().mean()) <= 4


def test_other_kinds_are_read_whole() -> None:
    deep = Image.fromarray(np.arange(427 * 640, dtype=np.uint16).reshape(427, 640) % 60000)
    files = [saved(CHINA, "PNG"), saved(CHINA.convert("CMYK")), saved(deep, "PNG"), saved(CHINA.convert("P"), "GIF")]
    for file in files:
        for channels in (1, 3):
            found, expected = both(file, WHOLE, channels)
            assert torch.equal(found, expected) and len(found) == channels


@pytest.mark.parametrize("size", [(50, 75), (300, 400)])
def test_grey_and_colour_are_converted(size: tuple[int, int]) -> None:
    for image in (CHINA, CHINA.convert("L")):
        for channels in (1, 3, None):
            found, expected = both(saved(image), WHOLE._replace(size=size), channels)
            assert found.shape == expected.shape
            assert float((found.int() - expected.int()).abs().float().mean()) <= 3


@pytest.mark.parametrize("size", [(50, 75), (427, 640)])
def test_damaged_files_are_told(size: tuple[int, int], tmp_path: Path) -> None:
    whole = saved(CHINA).getvalue()
    for content in (whole[: len(whole) // 2], whole[:300]):
        (tmp_path / "half.jpg").write_bytes(content)
        with pytest.raises(DataError, match="(?i)truncated|broken|no image of a known kind"):
            read_parts(tmp_path / "half.jpg", lambda height, width: [WHOLE._replace(size=size)])


def test_what_is_read_can_be_written_to() -> None:
    for part in (WHOLE, WHOLE._replace(size=(427, 640)), Part(0, 0, 200, 200, (200, 200))):
        for file in (saved(CHINA), saved(CHINA, "PNG")):
            (found,) = read_parts(file, lambda height, width, part=part: [part])
            found += 1


def test_views_of_files_are_nearly_those_of_images_in_memory() -> None:
    file, views = saved(FLOWER), Views((64, 64))
    for view in (views.scoring(), views.training((0.5,) * 3)):
        torch.manual_seed(3)
        (part,) = read_parts(file, lambda height, width, view=view: [view.part(height, width)])
        found = view.finish(part)
        torch.manual_seed(3)
        expected = view(read_image(file))
        assert found.shape == (3, 64, 64)
        assert float((found.int() - expected.int()).abs().float().mean()) <= 4
