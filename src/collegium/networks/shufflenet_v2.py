"""ShuffleNetV2 for small images.

Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164, table 5, in the form that the distillation tables after Tian et al., "Contrastive
Representation Distillation", ICLR 2020, https://arxiv.org/abs/1910.10699, take for CIFAR: the stem is a 1x1
convolution without stride or pooling, so that the map of a 32x32 image ends as 4x4.
"""

import re

import torch
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier, convolution
from collegium.networks.names import MOST_WIDTH, bounded
from collegium.networks.network import Network, Task

# width -> channels of stages 1 to 4. The code behind the distillation tables has 224 for 244, against the paper.
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
BLOCKS = (4, 8, 4)


def pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [convolution(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [convolution(channels, channels, 3, stride, channels), nn.BatchNorm2d(channels)]


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """The paper's channel shuffle of two halves: a map of the left, one of the right, and so on."""
    return torch.stack((left, right), 2).flatten(1, 2)


class Unit(nn.Module):
    """Half of the channels pass, half are convolved: (B, D, H, W) -> (B, D, H, W)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.right = nn.Sequential(*pointwise(half, half), *depthwise(half, 1), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return interleave(left, self.right(right))


class DownUnit(nn.Module):
    """Two paths over all channels, both of stride 2: (B, D, H, W) -> (B, D', H/2, W/2)"""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.left = nn.Sequential(*depthwise(in_channels, 2), *pointwise(in_channels, half))
        self.right = nn.Sequential(*pointwise(in_channels, half), *depthwise(half, 2), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return interleave(self.left(x), self.right(x))


def shufflenet_v2(width: float, num_classes: int, *, in_channels: int = 3) -> Network:
    """A ShuffleNetV2: stem of 24 channels, three stages of 4, 8 and 4 units, and stage4, a 1x1 convolution.

    Args:
        width: 0.5, 1, 1.5 or 2, as the paper's 0.5x, 1x, 1.5x and 2x.
        num_classes: number of logits.
        in_channels: channels of the images.

    Raises:
        UsageError: the width is not one of the four.
    """
    if width not in WIDTHS:
        raise UsageError(f"a ShuffleNetV2 has one of the widths {', '.join(map(str, WIDTHS))}, not {width}")
    *widths, last = WIDTHS[width]
    channels = 24
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(*pointwise(in_channels, channels))}
    for number, (wide, count) in enumerate(zip(widths, BLOCKS, strict=True), start=1):
        stages[f"stage{number}"] = nn.Sequential(DownUnit(channels, wide), *(Unit(wide) for _ in range(count - 1)))
        channels = wide
    stages["stage4"] = nn.Sequential(*pointwise(channels, last))
    name = f"shufflenet_v2_x{float(width)}".replace(".", "_")
    return Network(stages, GlobalPoolClassifier(last, num_classes), in_channels=in_channels, name=name)


FORMS = {
    "shufflenet_v2_x{width}": "the paper's four widths: "
    "shufflenet_v2_x0_5, shufflenet_v2_x1_0, shufflenet_v2_x1_5, shufflenet_v2_x2_0"
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"shufflenet_v2_x(\d+_\d+)", name)
    if match is None:
        return None
    whole, _, part = match[1].partition("_")
    width = float(f"{bounded(whole, f'the width of {name[:40]}', MOST_WIDTH)}.{part[:9]}")
    return shufflenet_v2(width, task.num_classes, in_channels=task.in_channels)
