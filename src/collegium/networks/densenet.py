"""Densely connected networks for small images, with basic or bottleneck layers.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017,
https://arxiv.org/abs/1608.06993, sections 3 and 4.2, without dropout.

"DenseNet-40-12" is the paper's name of the basic network of 1.0 M parameters. The authors' code of OKDDip (Chen et
al., AAAI 2020, https://arxiv.org/abs/1912.00350) and the public reproduction of PCL have under this name the paper's
DenseNet-BC of depth 40, with 0.19 M; here that is ``densenet_40_12_bc``.
"""

import re

import torch
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier, convolution
from collegium.networks.names import MOST_LAYERS, MOST_WIDTH, bounded
from collegium.networks.network import Network, Task


def activated(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    """The paper's composite function: batch norm, ReLU, convolution."""
    return [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), convolution(in_channels, out_channels, kernel_size)]


class DenseLayer(nn.Module):
    """Its input with ``growth`` new maps behind. (B, D, H, W) -> (B, D + growth, H, W)"""

    def __init__(self, in_channels: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            self.new = nn.Sequential(*activated(in_channels, 4 * growth, 1), *activated(4 * growth, growth, 3))
        else:
            self.new = nn.Sequential(*activated(in_channels, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.new(x)), 1)


def densenet(depth: int, growth: int, num_classes: int, *, in_channels: int = 3, bottleneck: bool = False) -> Network:
    """A DenseNet: stem, then three stages of equally many dense layers.

    Stages 1 and 2 end with the transition that halves the map, so that a trunk cut there hands on small maps, as
    OKDDip's branched networks do.

    Args:
        depth: 3n + 4, with bottlenecks 6n + 4.
        growth: maps that each dense layer adds.
        num_classes: number of logits.
        in_channels: channels of the images.
        bottleneck: the paper's DenseNet-BC: a 1x1 convolution to 4 x growth maps in each dense layer, transitions
            that halve the maps' number, and a stem of 2 x growth maps instead of 16.

    Raises:
        UsageError: depth or growth is not legal.
    """
    kind, layers = ("DenseNet-BC", 6) if bottleneck else ("DenseNet", 3)
    if depth <= 4 or (depth - 4) % layers:
        examples = ", ".join(str(layers * n + 4) for n in (1, 2, 6, 12, 16, 32))
        raise UsageError(f"a {kind} has {layers}n + 4 layers ({examples}, ...), not {depth}")
    if growth < 1:
        raise UsageError(f"a {kind} grows by 1 or more maps in each layer, not {growth}")
    channels = 2 * growth if bottleneck else 16
    stages: dict[str, nn.Module] = {"stem": convolution(in_channels, channels, 3)}
    for number in (1, 2, 3):
        stage: list[nn.Module] = []
        for _ in range((depth - 4) // layers):
            stage.append(DenseLayer(channels, growth, bottleneck))
            channels += growth
        if number < 3:
            narrow = channels // 2 if bottleneck else channels
            stage += [*activated(channels, narrow, 1), nn.AvgPool2d(2, ceil_mode=True)]
            channels = narrow
        else:
            stage += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        stages[f"stage{number}"] = nn.Sequential(*stage)
    name = f"densenet_{depth}_{growth}" + ("_bc" if bottleneck else "")
    return Network(stages, GlobalPoolClassifier(channels, num_classes), in_channels=in_channels, name=name)


FORMS = {
    "densenet_{depth}_{growth}": "basic layers, depth 3n + 4: densenet_40_12, densenet_100_12, densenet_100_24",
    "densenet_{depth}_{growth}_bc": "bottlenecks, compression, depth 6n + 4: densenet_40_12_bc, densenet_100_12_bc",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"densenet_(\d+)_(\d+)(_bc)?", name)
    if match is None:
        return None
    depth = bounded(match[1], f"layers of {name[:40]}", MOST_LAYERS)
    growth = bounded(match[2], f"the growth of {name[:40]}", MOST_WIDTH)
    bottleneck = match[3] is not None
    return densenet(
        depth,
        growth,
        task.num_classes,
        in_channels=task.in_channels,
        bottleneck=bottleneck,
    )
