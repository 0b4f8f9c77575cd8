"""MobileNetV2 for small images.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381, table 2, in the form that the distillation tables after Tian et al., "Contrastive
Representation Distillation", ICLR 2020, https://arxiv.org/abs/1910.10699, take for CIFAR, there at half width. It
differs from the paper in this: the stem's stride remains but the next is 1, so that the map of a 32x32 image ends as
2x2; the first block, of expansion 1, has its 1x1 convolution too; ReLU instead of ReLU6; widths are rounded down, not
to multiples of 8; no dropout.
"""

import re
from typing import cast

from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier, convolution
from collegium.networks.names import MOST_WIDTH, bounded
from collegium.networks.network import Network, Task

# stage -> its groups of blocks: (expansion, channels, number of blocks, stride of the first)
STAGES = {
    "stage1": [(1, 16, 1, 1), (6, 24, 2, 1)],
    "stage2": [(6, 32, 3, 2)],
    "stage3": [(6, 64, 4, 2), (6, 96, 3, 1)],
    "stage4": [(6, 160, 3, 2), (6, 320, 1, 1)],
}


def normed(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = convolution(in_channels, out_channels, kernel_size, stride, groups)
    return [layer, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """1x1 convolution to a wide map, 3x3 depth-wise, 1x1 back without ReLU; beside a shortcut if the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * in_channels
        self.residue = nn.Sequential(
            *normed(in_channels, wide, 1),
            nn.ReLU(inplace=True),
            *normed(wide, wide, 3, stride, groups=wide),
            nn.ReLU(inplace=True),
            *normed(wide, out_channels, 1),
        )
        self.same = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        residue = cast(Tensor, self.residue(x))
        return residue.add_(x) if self.same else residue


def mobilenet_v2(width: float, num_classes: int, *, in_channels: int = 3) -> Network:
    """A MobileNetV2: stem of stride 2, four stages of inverted residuals, and stage5, a 1x1 convolution to 1280 maps.

    Args:
        width: multiplies the channels of stem and stages; those of stage5 only if it is above 1.
        num_classes: number of logits.
        in_channels: channels of the images.

    Raises:
        UsageError: the width leaves a stage without channels.
    """
    if int(16 * width) < 1:
        raise UsageError(f"a MobileNetV2 has a width of 1/16 or more, not {width}")
    channels = int(32 * width)
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(*normed(in_channels, channels, 3, stride=2), nn.ReLU(inplace=True))
    }
    for stage, groups in STAGES.items():
        blocks = []
        for expansion, base, count, stride in groups:
            for index in range(count):
                blocks.append(InvertedResidual(channels, int(base * width), 1 if index else stride, expansion))
                channels = int(base * width)
        stages[stage] = nn.Sequential(*blocks)
    last = int(1280 * max(width, 1))
    stages["stage5"] = nn.Sequential(*normed(channels, last, 1), nn.ReLU(inplace=True))
    name = f"mobilenet_v2_x{float(width)}".replace(".", "_")
    return Network(stages, GlobalPoolClassifier(last, num_classes), in_channels=in_channels, name=name)


FORMS = {"mobilenet_v2_x{width}": "x0_5 for half the paper's width: mobilenet_v2_x0_5, mobilenet_v2_x1_0"}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"mobilenet_v2_x(\d+_\d+)", name)
    if match is None:
        return None
    whole, _, part = match[1].partition("_")
    width = float(f"{bounded(whole, f'the width of {name[:40]}', MOST_WIDTH)}.{part[:9]}")
    return mobilenet_v2(width, task.num_classes, in_channels=task.in_channels)
