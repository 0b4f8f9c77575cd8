"""SSRN, the spectral-spatial residual network for hyperspectral patches.

Zhong, Li, Luo and Chapman, "Spectral-Spatial Residual Network for Hyperspectral Image Classification: A 3-D Deep
Learning Framework", IEEE TGRS 2018, https://doi.org/10.1109/TGRS.2017.2755542, sections II-B to II-D: residual blocks
along the bands, one convolution over all that is left of them, then residual blocks over space. The order within a
block (norm, ReLU, convolution), the norm and ReLU after the blocks, and dropout of 0.5 before the last layer are those
of the authors' code, https://github.com/zilongzhong/SSRN.

The paper gives it all bands of 7 x 7 pixels. A first convolution over 7 bands, and one over 3 x 3 pixels, are not
padded, except where images have fewer bands, rows or columns than that.
"""

import re
from typing import cast

from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.networks.cubes import AsCube, MergeBands, convolution3d
from collegium.networks.names import MOST_WIDTH, bounded
from collegium.networks.network import Network, Task

KERNEL = 7  # of the convolutions along the bands


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, each after norm and ReLU; the first's may have come before the block."""

    def __init__(self, channels: int, kernel: tuple[int, int], *, activated: bool) -> None:
        super().__init__()
        before = [] if activated else [nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]
        self.residue = nn.Sequential(
            *before,
            convolution3d(channels, channels, kernel, padded=(True, True)),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            convolution3d(channels, channels, kernel, padded=(True, True)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.residue(x)).add_(x)


def residual_blocks(channels: int, kernel: tuple[int, int]) -> list[nn.Module]:
    """Two blocks after an activation, and norm and ReLU after them."""
    return [
        ResidualBlock(channels, kernel, activated=True),
        ResidualBlock(channels, kernel, activated=False),
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
    ]


def ssrn(width: int, num_classes: int, *, in_channels: int, image_size: tuple[int, int]) -> Network:
    """An SSRN: stem and stage1 along the bands, stage2 sums them up, stage3 over space.

    Args:
        width: kernels of the residual blocks; the paper's are 24. stage2 has 128 for 24, and in proportion.
        num_classes: number of logits.
        in_channels: bands of the images.
        image_size: (H, W) of the images.

    Raises:
        UsageError: the width is below 1.
    """
    if width < 1:
        raise UsageError(f"the blocks of an SSRN have 1 kernel or more, not {width}")
    padded = in_channels < KERNEL, min(image_size) < 3
    bands = (in_channels - (1 if padded[0] else KERNEL)) // 2 + 1
    summary = max(1, round(128 * width / 24))
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            AsCube(),
            convolution3d(1, width, (KERNEL, 1), padded=padded, stride=2),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        ),
        "stage1": nn.Sequential(*residual_blocks(width, (KERNEL, 1))),
        "stage2": nn.Sequential(
            convolution3d(width, summary, (bands, 1), padded=(False, False)),
            nn.BatchNorm3d(summary),
            nn.ReLU(inplace=True),
        ),
        "stage3": nn.Sequential(
            convolution3d(summary, width, (1, 3), padded=padded),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            *residual_blocks(width, (1, 3)),
            MergeBands(),
        ),
    }
    classifier = nn.Sequential(MeanOverPatch(), nn.Dropout(0.5), nn.Linear(width, num_classes))
    network = Network(stages, classifier, in_channels=in_channels, name=f"ssrn_{width}")
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):  # as in the authors' code
            nn.init.kaiming_normal_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


class MeanOverPatch(nn.Module):
    """(B, D, H, W) -> (B, D)"""

    def forward(self, feature: Tensor) -> Tensor:
        return feature.mean((2, 3))


FORMS = {
    "ssrn_{width}": "residual blocks along the bands, then over space, the paper's of 24 kernels: ssrn_24, ssrn_12"
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"ssrn_(\d+)", name)
    if match is None:
        return None
    width = bounded(match[1], f"the width of {name[:40]}", MOST_WIDTH)
    return ssrn(
        width,
        task.num_classes,
        in_channels=task.in_channels,
        image_size=task.image_size,
    )
