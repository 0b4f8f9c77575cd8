"""A residual network over the bands of one pixel, whose weights fit any number of bands.

The network of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385,
section 4.2, in one dimension, as Hu et al., "Deep Convolutional Neural Networks for Hyperspectral Image
Classification", Journal of Sensors 2015, https://doi.org/10.1155/2015/258619, convolve spectra in one dimension.

Of a patch it takes the spectrum in the centre, which is the one that has the label: a mean over the patch would mix in
the neighbours' classes at the border of every field. The mean over what is left of the bands comes last, so that no
weight depends on their number, and a network trained on one sensor can start on another.
"""

import re

import torch.nn.functional as F
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier
from collegium.networks.names import MOST_LAYERS, bounded
from collegium.networks.network import Network, Task

STEM_KERNEL = 7


class CentreSpectrum(nn.Module):
    """The bands of the centre pixel as rows: (B, S, H, W) -> (B, 1, S, 1)"""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return images[:, None, :, height // 2, width // 2, None].contiguous()


def along_bands(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution over rows alone, without bias, padded, He-initialised: (B, D, S, 1) -> (B, D', S / stride, 1)"""
    layer = nn.Conv2d(in_channels, out_channels, (kernel, 1), stride=(stride, 1), padding=(kernel // 2, 0), bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class SpectralBlock(nn.Module):
    """Two convolutions over 3 bands beside a shortcut; the last ReLU comes after the sum."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = along_bands(in_channels, width, 3, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = along_bands(width, width, 3)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and in_channels == width
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(along_bands(in_channels, width, 1, stride), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(y)).add_(self.shortcut(x)))


def spectral_resnet(depth: int, num_classes: int, *, in_channels: int) -> Network:
    """A residual network of stem and three stages of 16, 32 and 64 channels, each map (B, D, bands left, 1).

    Args:
        depth: 6n + 2.
        num_classes: number of logits.
        in_channels: bands of the images.

    Raises:
        UsageError: the depth is not 6n + 2.
    """
    if depth <= 2 or (depth - 2) % 6:
        raise UsageError(f"a spectral ResNet has 6n + 2 layers (8, 14, 20, ...), not {depth}")
    channels = 16
    stem = (CentreSpectrum(), along_bands(1, channels, STEM_KERNEL), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
    for number, width in enumerate((16, 32, 64), start=1):
        blocks = []
        for index in range((depth - 2) // 6):
            blocks.append(SpectralBlock(channels, width, stride=2 if number > 1 and index == 0 else 1))
            channels = width
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    classifier = GlobalPoolClassifier(channels, num_classes)
    return Network(stages, classifier, in_channels=in_channels, name=f"spectral_resnet{depth}")


FORMS = {
    "spectral_resnet{depth}": "over the bands of one pixel, any number of them, depth 6n + 2: "
    "spectral_resnet8, spectral_resnet14",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"spectral_resnet(\d+)", name)
    if match is None:
        return None
    depth = bounded(match[1], f"layers of {name[:40]}", MOST_LAYERS)
    return spectral_resnet(depth, task.num_classes, in_channels=task.in_channels)
