"""Residual networks for small images, with basic or bottleneck blocks.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2,
with the projection shortcut (1x1 convolution and batch norm) that the online distillation papers use where
the shape changes, instead of the paper's zero padding. The form "x4" is that of Tian et al., "Contrastive
Representation Distillation", ICLR 2020, https://arxiv.org/abs/1910.10699: stages four times, stem twice as wide.

Sums and ReLUs are made in place, here and in the other families: no backward pass reads what a norm, a convolution or a
linear layer gave.
"""

import re
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import BasicBlock, GlobalPoolClassifier, convolution, shortcut
from collegium.networks.names import MOST_LAYERS, bounded
from collegium.networks.network import Network, Task

Block = Literal["basic", "bottleneck"]


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the block ends four times as wide as it works."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = convolution(in_channels, width, 1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels, 1)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.norm1(self.conv1(x)))
        y = F.relu_(self.norm2(self.conv2(y)))
        return F.relu_(self.norm3(self.conv3(y)).add_(self.shortcut(x)))


def cifar_resnet(
    depth: int, num_classes: int, *, in_channels: int = 3, block: Block = "basic", widen: Literal[1, 4] = 1
) -> Network:
    """A residual network for small images: stem, then three stages of 16, 32 and 64 channels.

    Args:
        depth: 6n + 2 for basic blocks (two layers each), 9n + 2 for bottleneck blocks (three layers each).
        num_classes: number of logits.
        in_channels: channels of the images.
        block: the papers mean different things by one name: ONE's "ResNet-110" is made of bottleneck blocks
            and has 164 layers, FFL's of basic blocks. Here the name always tells the block.
        widen: 4 for stages of 64, 128 and 256 channels after a stem of 32.

    Raises:
        UsageError: the depth is not one that the block allows.
    """
    kind: type[BasicBlock | BottleneckBlock] = BasicBlock if block == "basic" else BottleneckBlock
    layers = {"basic": 6, "bottleneck": 9}[block]
    if depth <= 2 or (depth - 2) % layers:
        examples = ", ".join(str(layers * n + 2) for n in (1, 2, 3, 5, 9, 18))
        raise UsageError(f"a CIFAR ResNet of {block} blocks has {layers}n + 2 layers ({examples}, ...), not {depth}")
    channels = {1: 16, 4: 32}[widen]
    stem = nn.Sequential(convolution(in_channels, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {"stem": stem}
    for number, width in enumerate((16, 32, 64), start=1):
        blocks = []
        for index in range((depth - 2) // layers):
            blocks.append(kind(channels, widen * width, stride=2 if number > 1 and index == 0 else 1))
            channels = widen * width * kind.expansion
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    name = f"resnet{depth}" + ("" if widen == 1 else f"x{widen}") + ("" if block == "basic" else "_bottleneck")
    return Network(stages, GlobalPoolClassifier(channels, num_classes), in_channels=in_channels, name=name)


FORMS = {
    "resnet{depth}": "basic blocks, depth 6n + 2: resnet8, resnet20, resnet32, resnet56, resnet110",
    "resnet{depth}x4": "the same with a stem of 32 and stages of 64 to 256 channels: resnet8x4, resnet32x4",
    "resnet{depth}_bottleneck": "bottleneck blocks, depth 9n + 2: resnet29_bottleneck, resnet164_bottleneck",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"resnet(\d+)(x4)?(?:_(bottleneck))?", name)
    if match is None:
        return None
    depth = bounded(match[1], f"layers of {name[:40]}", MOST_LAYERS)
    block = cast(Block, match[3] or "basic")
    return cifar_resnet(
        depth,
        task.num_classes,
        in_channels=task.in_channels,
        block=block,
        widen=4 if match[2] else 1,
    )
