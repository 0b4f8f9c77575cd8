"""Modules that at least two methods own."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier, convolution

Shape = tuple[int, ...]  # (D, H, W)


MapMatching = Literal["learned", "pooled", "enlarged"]


class MatchSize(nn.Module):
    """Brings every peer's map to one height and width. A map that has them already passes unchanged.

    "learned" shrinks maps to the smallest height and width among them: a map larger by a factor of 2 or 3 goes through
    a 3x3 convolution of that stride, which then sees every cell; any other through adaptive average pooling and a 1x1
    convolution; norm and ReLU follow. "pooled" shrinks them by adaptive average pooling alone, and "enlarged" brings
    them to the largest height and width by bilinear interpolation. The FFL paper does not say how it matches maps:
    these are our choices.
    """

    def __init__(self, shapes: Sequence[Shape], matching: MapMatching = "learned") -> None:
        super().__init__()
        pick = max if matching == "enlarged" else min
        self.size = (pick(s[1] for s in shapes), pick(s[2] for s in shapes))
        make = {"learned": self._regressor, "pooled": self._pool, "enlarged": self._enlarge}[matching]
        self.regressors = nn.ModuleList(nn.Identity() if s[1:] == self.size else make(s) for s in shapes)

    def _regressor(self, shape: Shape) -> nn.Module:
        channels, height, width = shape
        stride = height // self.size[0]
        layers: list[nn.Module]
        if stride <= 3 and (height, width) == (stride * self.size[0], stride * self.size[1]):
            layers = [convolution(channels, channels, 3, stride)]
        else:
            layers = [nn.AdaptiveAvgPool2d(self.size), convolution(channels, channels, 1)]
        return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())

    def _pool(self, shape: Shape) -> nn.Module:
        return nn.AdaptiveAvgPool2d(self.size)

    def _enlarge(self, shape: Shape) -> nn.Module:
        return nn.Upsample(self.size, mode="bilinear", align_corners=False)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """M maps (B, D_k, H_k, W_k) -> M maps (B, D_k, H, W)."""
        return [regress(f) for regress, f in zip(self.regressors, features, strict=True)]


class FusionModule(nn.Module):
    """FFL's fusion module: concatenation, 3x3 depth-wise and 1x1 point-wise convolution, and a classifier.

    Kim et al., "Feature Fusion for Online Mutual Knowledge Distillation", https://arxiv.org/abs/1904.09058.

    Args:
        shapes: (D, H, W) of each peer's map.
        num_classes: number of logits.
        out_channels: width of the fused map; by default that of the widest peer (the paper's peers are equally
            wide, for unlike ones it does not say).
        matching: how maps of unlike sizes are matched, see :class:`MatchSize`.

    Raises:
        UsageError: out_channels is below 1.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        num_classes: int,
        out_channels: int | None = None,
        matching: MapMatching = "learned",
    ) -> None:
        super().__init__()
        total = sum(shape[0] for shape in shapes)
        width = max(shape[0] for shape in shapes) if out_channels is None else out_channels
        if width < 1:
            raise UsageError(f"a fused map needs 1 or more channels: fused_channels is {width}")
        self.match = MatchSize(shapes, matching)
        # The authors' initialisation: for the depth-wise layer it counts all channels as outputs.
        self.depthwise = nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False)
        nn.init.normal_(self.depthwise.weight, std=(2 / (9 * total)) ** 0.5)
        self.norm1 = nn.BatchNorm2d(total)
        self.pointwise = convolution(total, width, 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.classifier = GlobalPoolClassifier(width, num_classes)

    def fuse(self, features: Sequence[Tensor]) -> Tensor:
        """The fused map: M maps (B, D_k, H_k, W_k) -> (B, D, H, W)."""
        x = torch.cat(self.match(features), dim=1)
        x = F.relu(self.norm1(self.depthwise(x)))
        return F.relu(self.norm2(self.pointwise(x)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """M maps (B, D_k, H_k, W_k) -> logits (B, C)."""
        return cast(Tensor, self.classifier(self.fuse(features)).float())


class SumFusion(nn.Module):
    """DualNet's fusion: the mean of the maps and a classifier.

    Args:
        shapes: network's name and (D, H, W) of its map, for each map; the shapes must be equal.
        num_classes: number of logits.

    Raises:
        UsageError: the shapes differ.
    """

    def __init__(self, shapes: Sequence[tuple[str, Shape]], num_classes: int) -> None:
        super().__init__()
        if len({shape for _, shape in shapes}) > 1:
            listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes)
            raise UsageError(
                f"maps of different shapes cannot be summed ({listed}); take peers of one kind, or fuse them by "
                "convolution: --method ffl --method.fusion conv"
            )
        self.classifier: nn.Module = GlobalPoolClassifier(shapes[0][1][0], num_classes)

    def fuse(self, features: Sequence[Tensor]) -> Tensor:
        """The fused map: M maps (B, D, H, W) -> (B, D, H, W)."""
        return torch.stack(tuple(features)).mean(0)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """M maps (B, D, H, W) -> logits (B, C)."""
        return cast(Tensor, self.classifier(self.fuse(features)).float())


class Embedding(nn.Module):
    """Pooled map, linear, ReLU, linear, unit length. (B, D, H, W) -> (B, E), float32"""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, feature: Tensor) -> Tensor:
        return F.normalize(self.mlp(feature.mean((2, 3))).float())


def regressor(student: Shape, teacher: Shape) -> nn.Sequential:
    """A convolution and a norm that bring a student's map to the shape of a teacher's.

    Maps of one size need a 1x1 convolution, one twice as large a 3x3 one of stride 2, one half as large a transposed
    4x4 one of stride 2; in any other case adaptive average pooling comes before a 1x1 convolution.
    """
    (channels, *size), (width, *goal) = student, teacher
    layers: list[nn.Module]
    if size == goal:
        layers = [convolution(channels, width, 1)]
    elif size == [2 * side for side in goal]:
        layers = [convolution(channels, width, 3, stride=2)]
    elif [2 * side for side in size] == goal:
        layers = [nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)]
    else:
        layers = [nn.AdaptiveAvgPool2d((goal[0], goal[1])), convolution(channels, width, 1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(width))
