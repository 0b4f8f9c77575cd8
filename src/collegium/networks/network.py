"""What every peer is: stages one after another, then a classifier."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from collegium.errors import UsageError


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


class Network(nn.Module):
    """Named stages, each fed with the map of the one before, and a classifier on the last map.

    The stage structure is what lets a cohort cut the network anywhere into a shared trunk and branches.

    Args:
        stages: name -> module, in order; each maps (B, D, H, W) to (B, D', H', W').
        classifier: maps the last stage's output to logits (B, C).
        in_channels: channels of the images, checked on every call.
        name: how the network is called in messages and files.
    """

    def __init__(self, stages: Mapping[str, nn.Module], classifier: nn.Module, *, in_channels: int, name: str) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.classifier = classifier
        self.in_channels = in_channels
        self.name = name

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(self.stages.keys())

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The map after every stage, each (B, D, H, W)."""
        features = []
        for stage in self.stages.values():
            x = stage(x)
            features.append(x)
        return tuple(features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits: (B, in_channels, H, W) -> (B, C)."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise UsageError(
                f"{self.name} takes images of shape (batch, {self.in_channels}, height, width), "
                f"got {tuple(images.shape)}"
            )
        return cast(Tensor, self.classifier(self.forward_features(images)[-1]))

    def split_after(self, stage: str) -> tuple[dict[str, nn.Module], "Network"]:
        """The stages up to and with ``stage``, and a network of the rest. The modules are shared with this one."""
        names = self.stage_names
        if stage not in names[:-1]:
            cuts = ", ".join(names[:-1])
            raise UsageError(f"{self.name} cannot be cut after {stage!r}; it can be cut after: {cuts}")
        cut = names.index(stage) + 1
        low = {name: self.stages[name] for name in names[:cut]}
        high = {name: self.stages[name] for name in names[cut:]}
        return low, Network(high, self.classifier, in_channels=self.in_channels, name=self.name)
