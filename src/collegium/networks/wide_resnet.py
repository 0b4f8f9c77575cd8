"""Wide residual networks with pre-activation blocks.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146.
"""

import re
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier, convolution
from collegium.networks.names import MOST_LAYERS, MOST_WIDTH, bounded
from collegium.networks.network import Network, Task


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each 3x3 convolution. Where the shape changes, the shortcut starts after the first ReLU."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        same = stride == 1 and in_channels == width
        self.shortcut = None if same else convolution(in_channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.norm1(x))
        residue = cast(Tensor, self.conv2(F.relu_(self.norm2(self.conv1(y)))))
        return residue.add_(x if self.shortcut is None else self.shortcut(y))


def wide_resnet(
    depth: int,
    widen_factor: int,
    num_classes: int,
    *,
    in_channels: int = 3,
    feature_point: Literal["post", "pre"] = "post",
) -> Network:
    """A WRN: stem of 16 channels, then three stages of 16, 32 and 64 times the widening factor.

    Args:
        depth: 6n + 4.
        widen_factor: how much wider than a ResNet the stages are.
        num_classes: number of logits.
        in_channels: channels of the images.
        feature_point: whether the last stage's map, which feature methods use, is taken after the final
            norm and ReLU ("post", the map that the classifier pools) or before them ("pre").

    Raises:
        UsageError: depth or widening factor is not legal.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UsageError(f"a wide ResNet has 6n + 4 layers (10, 16, 22, 28, 40, ...), not {depth}")
    if widen_factor < 1:
        raise UsageError(f"a wide ResNet is widened by 1 or more, not {widen_factor}")
    channels = 16
    stages: dict[str, nn.Module] = {"stem": convolution(in_channels, channels, 3)}
    for number, base in enumerate((16, 32, 64), start=1):
        width = base * widen_factor
        blocks: list[nn.Module] = []
        for index in range((depth - 4) // 6):
            blocks.append(PreActivationBlock(channels, width, stride=2 if number > 1 and index == 0 else 1))
            channels = width
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    final = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    classifier: nn.Module = GlobalPoolClassifier(channels, num_classes)
    if feature_point == "post":
        stages["stage3"] = nn.Sequential(stages["stage3"], final)
    else:
        classifier = nn.Sequential(final, classifier)
    name = f"wrn_{depth}_{widen_factor}" + ("" if feature_point == "post" else "_pre")
    return Network(stages, classifier, in_channels=in_channels, name=name)


FORMS = {
    "wrn_{depth}_{width}": "pre-activation blocks, depth 6n + 4: wrn_10_1, wrn_16_2, wrn_40_2, wrn_28_10",
    "wrn_{depth}_{width}_pre": "the same; feature methods see the last map before its final norm and ReLU",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"wrn_(\d+)_(\d+)(_pre)?", name)
    if match is None:
        return None
    depth = bounded(match[1], f"layers of {name[:40]}", MOST_LAYERS)
    width = bounded(match[2], f"the width of {name[:40]}", MOST_WIDTH)
    point: Literal["post", "pre"] = "pre" if match[3] else "post"
    return wide_resnet(
        depth,
        width,
        task.num_classes,
        in_channels=task.in_channels,
        feature_point=point,
    )
