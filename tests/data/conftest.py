"""Small image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="session")
def write_images() -> Callable[..., list[Path]]:
    """write_images(folder, count, size=(W, H), seed=0, mode="RGB", ending="png"): noise, each image another."""

    def write(
        folder: Path,
        count: int,
        size: tuple[int, int] = (9, 8),
        *,
        seed: int = 0,
        mode: str = "RGB",
        ending: str = "png",
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{k:02}.{ending}" for k in range(count)]
        for k, file in enumerate(files):
            picture(1000 * seed + k, *size, mode).save(file)
        return files

    return write
