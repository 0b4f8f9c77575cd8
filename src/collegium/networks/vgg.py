"""VGG networks for small images, with and without batch norm.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556. The paper's three wide fully connected layers, made for ImageNet, give way to what
the distillation papers take for CIFAR. They mean two networks by one name, and this module has both:

- ``vgg16_bn`` and kin: one linear layer on the mean of a map that is pooled three times (32x32 ends as 4x4), as in
  the tables that follow Tian et al., "Contrastive Representation Distillation", ICLR 2020,
  https://arxiv.org/abs/1910.10699. (Their code pools a fourth time where images are 64 high; here the size of the
  images changes nothing.)
- ``vgg16_bn_fc3`` and kin: each of the five stages ends with pooling (32x32 ends as 1x1) and three linear layers
  follow. This is "VGG-16" in the authors' code of OKDDip (Chen et al., AAAI 2020, https://arxiv.org/abs/1912.00350)
  for one network, and in the public reproduction of PCL.
"""

import re
from typing import Literal

from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier
from collegium.networks.names import MOST_LAYERS, bounded
from collegium.networks.network import Network, Task

Head = Literal["linear", "fc3"]
WIDTHS = (64, 128, 256, 512, 512)
COUNTS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def convolutions(in_channels: int, width: int, count: int, batch_norm: bool) -> list[nn.Module]:
    """``count`` times a 3x3 convolution with bias, batch norm if wanted, and ReLU. He-initialised by fan-out."""
    layers: list[nn.Module] = []
    for channels in (in_channels, *[width] * (count - 1)):
        layer = nn.Conv2d(channels, width, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layers += [layer, *([nn.BatchNorm2d(width)] if batch_norm else []), nn.ReLU(inplace=True)]
    return layers


class ThreeLayerClassifier(nn.Module):
    """Average over the whole map, then three linear layers, drawn from N(0, 0.01^2). (B, D, H, W) -> (B, C)"""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        linears = [nn.Linear(channels, channels), nn.Linear(channels, channels), nn.Linear(channels, num_classes)]
        for linear in linears:
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
        self.layers = nn.Sequential(linears[0], nn.ReLU(inplace=True), linears[1], nn.ReLU(inplace=True), linears[2])

    def forward(self, feature: Tensor) -> Tensor:
        return self.layers(feature.mean((2, 3)))  # type: ignore[no-any-return]


def vgg(
    depth: int, num_classes: int, *, in_channels: int = 3, batch_norm: bool = True, head: Head = "linear"
) -> Network:
    """A VGG: the stem and stages 1 to 4 are its five groups of convolutions, of 64, 128, 256, 512 and 512 channels.

    Args:
        depth: 8, 11, 13, 16 or 19, by the paper's count of three fully connected layers.
        num_classes: number of logits.
        in_channels: channels of the images.
        batch_norm: whether a batch norm follows every convolution.
        head: "linear": stages 1, 2 and 3 begin with pooling, so that a stage's map is what its convolutions say;
            "fc3": every stage, the stem too, ends with pooling.

    Raises:
        UsageError: the depth is not one of the five.
    """
    if depth not in COUNTS:
        raise UsageError(f"a VGG has 8, 11, 13, 16 or 19 layers, not {depth}")
    stages: dict[str, nn.Module] = {}
    channels = in_channels
    for number, (width, count) in enumerate(zip(WIDTHS, COUNTS[depth], strict=True)):
        layers = convolutions(channels, width, count, batch_norm)
        pool = nn.MaxPool2d(2, ceil_mode=True)  # rounding up, no map is too small for it
        if head == "fc3":
            layers.append(pool)
        elif number in (1, 2, 3):
            layers.insert(0, pool)
        stages[f"stage{number}" if number else "stem"] = nn.Sequential(*layers)
        channels = width
    classifier = (GlobalPoolClassifier if head == "linear" else ThreeLayerClassifier)(channels, num_classes)
    name = f"vgg{depth}" + ("_bn" if batch_norm else "") + ("" if head == "linear" else "_fc3")
    return Network(stages, classifier, in_channels=in_channels, name=name)


FORMS = {
    "vgg{depth}": "no batch norm, one linear layer: vgg8, vgg11, vgg13, vgg16, vgg19",
    "vgg{depth}_bn": "batch norm, one linear layer: vgg8_bn, vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn",
    "vgg{depth}_bn_fc3": "batch norm, three linear layers, as OKDDip and PCL have it: vgg16_bn_fc3, vgg19_bn_fc3",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"vgg(\d+)(?:(_bn)(_fc3)?)?", name)
    if match is None:
        return None
    depth = bounded(match[1], f"layers of {name[:40]}", MOST_LAYERS)
    head: Head = "fc3" if match[3] else "linear"
    return vgg(
        depth,
        task.num_classes,
        in_channels=task.in_channels,
        batch_norm=match[2] is not None,
        head=head,
    )
