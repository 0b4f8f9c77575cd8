"""How pictures of any size become pictures of one size: with chance for training, without it for scoring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from collegium.errors import UsageError

Policy: TypeAlias = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]
View: TypeAlias = Callable[[Tensor], Tensor]


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
        """From (C, H, W) uint8 of any size to uint8 of `image_size`, drawing from torch's global generator."""
        from torchvision.transforms import v2

        if self.ready:
            return Ready(self.image_size)
        steps: list[Any] = [v2.RandomResizedCrop(self.image_size, self.scale, self.ratio, antialias=True)]
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
        view: View = v2.Compose(steps)
        return view

    def scoring(self) -> View:
        """From (C, H, W) uint8 of any size to uint8 of `image_size`."""
        from torchvision.transforms import v2

        if self.ready:
            return Ready(self.image_size)
        view: View = v2.Compose([v2.Resize(self.resize, antialias=True), v2.CenterCrop(self.image_size)])
        return view


def described_view(preprocessing: Mapping[str, Any]) -> View:
    """The scoring view of what a peer's config.json says; where that is nothing, the image's centre, in the right size.

    Args:
        preprocessing: has "image_size" (H, W), and perhaps what :meth:`Views.described` says.
    """
    from torchvision.transforms import v2

    height, width = preprocessing["image_size"]
    if "resize" not in preprocessing:
        return Views((height, width), crop_ratio=1.0).scoring()
    size = preprocessing["resize"]
    view: View = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop((height, width))])
    return view


class Ready:
    """The view of an image that its source has already made."""

    def __init__(self, image_size: tuple[int, int]) -> None:
        self.image_size = image_size

    def __call__(self, image: Tensor) -> Tensor:
        if image.shape[1:] != self.image_size:
            raise UsageError(
                f"an image is {image.shape[1]} x {image.shape[2]} pixels, others {self.image_size[0]} x "
                f"{self.image_size[1]}: a data set that augments its images itself must give all of them one size"
            )
        return image
