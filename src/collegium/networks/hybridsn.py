"""HybridSN: three convolutions over bands and space, then one over space, for hyperspectral patches.

Roy, Krishna, Dubey and Chaudhuri, "HybridSN: Exploring 3-D-2-D CNN Feature Hierarchy for Hyperspectral Image
Classification", IEEE GRSL 2020, https://arxiv.org/abs/1902.06701, table I. The paper gives it 15 or 30 principal
components of 25 x 25 pixels. Its convolutions are not padded: together they take 12 bands and 8 rows and columns. Here,
images with fewer than 13 channels, or fewer than 9 rows or columns, get convolutions that are padded along that axis,
so that any patch and any number of bands will do; nothing else changes.

``hybridsn_8`` is the paper's network. ``hybridsn_8_bn`` is for small patches and few samples: batch norm after each
convolution, rows and columns always padded, and in place of the three dense layers, in which nine tenths of the
paper's weights lie, one on the mean over the patch.
"""

import re

from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier
from collegium.networks.cubes import AsCube, MergeBands, convolution3d
from collegium.networks.names import MOST_WIDTH, bounded
from collegium.networks.network import Network, Task

SPECTRAL_KERNELS = (7, 5, 3)
SPARE_BANDS = sum(kernel - 1 for kernel in SPECTRAL_KERNELS)
SPARE_SIDE = 4 * 2
MANY_BANDS = 60  # twice as many channels as the paper has at most


class DenseClassifier(nn.Module):
    """Two hidden layers on the whole map, with dropout of 0.4 after each. (B, D, H, W) -> (B, C)"""

    def __init__(self, features: int, hidden: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(features, first), nn.ReLU(inplace=True), nn.Dropout(0.4)),
            *(nn.Linear(first, second), nn.ReLU(inplace=True), nn.Dropout(0.4)),
            nn.Linear(second, num_classes),
        )

    def forward(self, feature: Tensor) -> Tensor:
        return self.layers(feature)  # type: ignore[no-any-return]


def hybridsn(
    width: int, num_classes: int, *, in_channels: int, image_size: tuple[int, int], batch_norm: bool = False
) -> Network:
    """A HybridSN: stem, stage1 and stage2 convolve over bands and space, stage3 over space.

    Args:
        width: channels of the stem; the paper's is 8. Stages have 2, 4 and 8 times as many, hidden layers 32 and 16
            times.
        num_classes: number of logits.
        in_channels: bands, or principal components, of the images.
        image_size: (H, W) of the images.
        batch_norm: the form for small patches, see above.

    Raises:
        UsageError: the width is below 1.
    """
    if width < 1:
        raise UsageError(f"the stem of a HybridSN has 1 channel or more, not {width}")
    padded = in_channels <= SPARE_BANDS, batch_norm or min(image_size) <= SPARE_SIDE
    stages: dict[str, nn.Module] = {}
    channels, bands = 1, in_channels
    for number, kernel in enumerate(SPECTRAL_KERNELS):
        wide = width * 2**number
        layer = convolution3d(channels, wide, (kernel, 3), padded=padded)
        norm = nn.BatchNorm3d(wide) if batch_norm else nn.Identity()
        first = nn.Identity() if number else AsCube()
        stages[f"stage{number}" if number else "stem"] = nn.Sequential(first, layer, norm, nn.ReLU(inplace=True))
        channels, bands = wide, bands if padded[0] else bands - kernel + 1
    last = nn.Conv2d(channels * bands, 8 * width, 3, padding=int(padded[1]))
    stages["stage3"] = nn.Sequential(
        MergeBands(), last, nn.BatchNorm2d(8 * width) if batch_norm else nn.Identity(), nn.ReLU(inplace=True)
    )
    height, breadth = (side if padded[1] else side - SPARE_SIDE for side in image_size)
    classifier: nn.Module = GlobalPoolClassifier(8 * width, num_classes)
    if not batch_norm:
        classifier = DenseClassifier(8 * width * height * breadth, (32 * width, 16 * width), num_classes)
    name = f"hybridsn_{width}" + ("_bn" if batch_norm else "")
    note = ""
    if in_channels > MANY_BANDS:
        note = (
            f"{name} convolves over {in_channels} bands, which takes many times as long as over the 15 or 30 principal "
            "components of its paper: --data.pca 15 trains on those."
        )
    network = Network(stages, classifier, in_channels=in_channels, name=name, note=note)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):  # as in the authors' code
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


FORMS = {
    "hybridsn_{width}": "3-D and 2-D convolutions over hyperspectral patches, the paper's of 8 channels: hybridsn_8",
    "hybridsn_{width}_bn": "the same for small patches and few samples, with batch norm: hybridsn_8_bn, hybridsn_4_bn",
}


def build(name: str, task: Task) -> Network | None:
    """The network called ``name``, or None where the name is not of this family."""
    match = re.fullmatch(r"hybridsn_(\d+)(_bn)?", name)
    if match is None:
        return None
    width = bounded(match[1], f"the width of {name[:40]}", MOST_WIDTH)
    return hybridsn(
        width,
        task.num_classes,
        in_channels=task.in_channels,
        image_size=task.image_size,
        batch_norm=match[2] is not None,
    )
