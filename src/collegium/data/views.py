"""How pictures of any size become pictures of one size: with chance for training, without it for scoring."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from collegium.errors import DataError, UsageError

_MOST_RESIZED = 50_000_000  # pixels

Policy: TypeAlias = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]


class Part(NamedTuple):
    """A rectangle of an image, in pixels, and the size (H, W) that it is resized to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]


Plan: TypeAlias = Callable[[int, int], Sequence[Part]]
"""From an image's height and width to the parts that are read of it."""


def cut(pixels: Tensor, part: Part, reduced: int = 1) -> Tensor:
    """A part of an image (C, H, W) uint8 in its size, resized bilinearly with antialiasing.

    Args:
        pixels: the image.
        part: in pixels of the whole image.
        reduced: how many times larger the whole image's sides are than those of `pixels`.
    """
    from torchvision.transforms.v2 import functional

    top, left = part.top // reduced, part.left // reduced
    height, width = max(1, round(part.height / reduced)), max(1, round(part.width / reduced))
    inside = pixels[:, top : top + height, left : left + width]
    resized: Tensor = functional.resize(inside, list(part.size), antialias=True)  # nothing where the size is right
    return resized


class View(abc.ABC):
    """What becomes of an image of any size. It is said first which part of it is read, so that no more is decoded."""

    @abc.abstractmethod
    def part(self, height: int, width: int) -> Part:
        """What is read of an image; a random part is drawn from torch's global generator."""

    @abc.abstractmethod
    def finish(self, pixels: Tensor) -> Tensor:
        """From that part in its size, (C, H, W) uint8, to the view, likewise; draws as well."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """The view of an image (C, H, W) uint8 that has been read."""
        height, width = pixels.shape[1:]
        return self.finish(cut(pixels, self.part(height, width)))


@dataclass(frozen=True)
class Views:
    """The training view and the scoring view of images that are decoded one by one.

    For training a part of the image, of random area and shape, is resized; it is mirrored half of the time, changed
    by `augment`, and a part of it may be erased. For scoring the image is resized so that its shorter side is
    image_size / crop_ratio, and its centre is cut out.

    Attributes:
        image_size: (H, W) of what the networks are given.
        scale: least and largest share of the image's area that the random part has.
        ratio: least and largest ratio of its width to its height.
        flip: mirror left and right half of the time.
        augment: RandAugment (Cubuk et al., 2020, https://arxiv.org/abs/1909.13719), TrivialAugment Wide (Mueller and
            Hutter, 2021, https://arxiv.org/abs/2103.10158), AutoAugment's policy for ImageNet (Cubuk et al., 2019,
            https://arxiv.org/abs/1805.09501) or AugMix (Hendrycks et al., 2020, https://arxiv.org/abs/1912.02781),
            with torchvision's defaults.
        erasing: the share of images of which a random rectangle becomes the mean colour (Zhong et al., 2020,
            https://arxiv.org/abs/1708.04896).
        crop_ratio: the share of the scoring image's side that is cut out.
        ready: images come in their final size, augmented by the data set itself, and are left as they are.

    Raises:
        UsageError: a value is out of its range.
    """

    image_size: tuple[int, int]
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    flip: bool = True
    augment: Policy = "none"
    erasing: float = 0.0
    crop_ratio: float = 0.875
    ready: bool = False

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise UsageError(f"image_size is {min(self.image_size)}: give a number of pixels, 1 or more")
        if not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1):
            raise UsageError(f"scale is {list(self.scale)}: give two shares of the area, 0 < least <= largest <= 1")
        if not (len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1]):
            raise UsageError(f"ratio is {list(self.ratio)}: give two ratios of width to height, 0 < least <= largest")
        if not 0 <= self.erasing <= 1:
            raise UsageError(f"erasing is {self.erasing}: give a share of the images, from 0 to 1")
        if not 0 < self.crop_ratio <= 1:
            raise UsageError(f"crop_ratio is {self.crop_ratio}: give a share of the side, above 0 and at most 1")

    @property
    def resize(self) -> int | list[int]:
        """What scoring resizes to: the shorter side, or (H, W) where the networks are not given squares."""
        height, width = (round(side / self.crop_ratio) for side in self.image_size)
        return height if height == width else [height, width]

    def described(self) -> dict[str, Any]:
        """What scoring does to an image's size, for whoever asks a trained peer."""
        if self.ready:
            return {}
        return {"resize": self.resize, "center_crop": list(self.image_size), "interpolation": "bilinear"}

    def training(self, mean: tuple[float, ...]) -> View:
        """The training view; `mean` is the colour that is erased with, in [0, 1]."""
        from torchvision.transforms import v2

        if self.ready:
            return Ready(self.image_size)
        steps: list[Any] = []
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        policies = {
            "randaugment": v2.RandAugment,
            "trivialaugment": v2.TrivialAugmentWide,
            "autoaugment": v2.AutoAugment,
            "augmix": v2.AugMix,
        }
        if self.augment != "none":
            steps.append(policies[self.augment]())
        if self.erasing:
            # The mean colour is 0 after normalisation.
            steps.append(v2.RandomErasing(self.erasing, value=[round(255 * m) for m in mean]))
        return RandomPart(self.image_size, self.scale, self.ratio, v2.Compose(steps) if steps else None)

    def scoring(self) -> View:
        """The scoring view."""
        return Ready(self.image_size) if self.ready else Centre(self.resize, self.image_size)


def described_view(preprocessing: Mapping[str, Any]) -> View:
    """The scoring view of what a peer's config.json says; where that is nothing, the image's centre, in the right size.

    Args:
        preprocessing: has "image_size" (H, W), and perhaps what :meth:`Views.described` says.
    """
    height, width = preprocessing["image_size"]
    if "resize" not in preprocessing:
        return Views((height, width), crop_ratio=1.0).scoring()
    return Centre(preprocessing["resize"], (height, width))


class RandomPart(View):
    """A part of random area and shape, resized and then changed by ``steps``."""

    def __init__(
        self, size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float], steps: Callable[[Any], Any] | None
    ) -> None:
        self.size, self.scale, self.ratio, self.steps = size, list(scale), list(ratio), steps

    def part(self, height: int, width: int) -> Part:
        from torchvision.transforms import RandomResizedCrop

        blank = torch.empty(1, height, width, device="meta")
        top, left, part_height, part_width = RandomResizedCrop.get_params(blank, self.scale, self.ratio)
        return Part(top, left, part_height, part_width, self.size)

    def finish(self, pixels: Tensor) -> Tensor:
        result: Tensor = pixels if self.steps is None else self.steps(pixels)
        return result


class Centre(View):
    """The whole image, resized so that its shorter side, or both (H, W), are ``resize``; of it the centre.

    ``part`` raises DataError where that takes more than 50 million pixels, as a long and narrow image does.
    """

    def __init__(self, resize: int | Sequence[int], size: tuple[int, int]) -> None:
        self.resize, self.size = resize, size

    def part(self, height: int, width: int) -> Part:
        if isinstance(self.resize, int):
            short = min(height, width)
            size = self.resize * height // short, self.resize * width // short
        else:
            size = self.resize[0], self.resize[1]
        if size[0] * size[1] > _MOST_RESIZED:
            here, there = (f"{w:,} x {h:,}" for h, w in ((height, width), size))
            raise DataError(f"it has {here} pixels, and would be resized to {there}: cut it")
        return Part(0, 0, height, width, size)

    def finish(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        centre: Tensor = functional.center_crop(pixels, list(self.size))
        return centre


class Ready(View):
    """The view of an image that its source has already made."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def part(self, height: int, width: int) -> Part:
        return Part(0, 0, height, width, (height, width))

    def finish(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1:] != self.size:
            raise UsageError(
                f"an image is {pixels.shape[1]} x {pixels.shape[2]} pixels, others {self.size[0]} x "
                f"{self.size[1]}: a data set that augments its images itself must give all of them one size"
            )
        return pixels
