"""Layers that networks and methods are made of."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded to keep the size, He-initialised by its fan-out."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class GlobalPoolClassifier(nn.Module):
    """Average over the whole map, then a linear layer. (B, D, H, W) -> (B, C)"""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, feature: Tensor) -> Tensor:
        return cast(Tensor, self.linear(feature.mean((2, 3))))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the last ReLU comes after the sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(y)).add_(self.shortcut(x)))
