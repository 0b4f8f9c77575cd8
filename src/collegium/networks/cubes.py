"""What networks for hyperspectral patches share: the bands of an image as an axis of their own."""

from torch import Tensor, nn


class AsCube(nn.Module):
    """The channels become an axis to convolve over: (B, S, H, W) -> (B, 1, S, H, W)"""

    def forward(self, images: Tensor) -> Tensor:
        return images.unsqueeze(1)


class MergeBands(nn.Module):
    """What is left of the spectral axis becomes channels: (B, D, S, H, W) -> (B, D S, H, W)"""

    def forward(self, cube: Tensor) -> Tensor:
        return cube.flatten(1, 2)


def convolution3d(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    *,
    padded: tuple[bool, bool],
    stride: int = 1,
) -> nn.Conv3d:
    """A convolution with bias over bands, rows and columns.

    Args:
        in_channels: D of (B, D, S, H, W).
        out_channels: the same of the output.
        kernel: bands, and rows, which are as many as columns.
        padded: whether bands, and rows and columns, keep their size.
        stride: over the bands.
    """
    bands, side = kernel
    around = bands // 2 * padded[0], side // 2 * padded[1]
    return nn.Conv3d(
        in_channels,
        out_channels,
        (bands, side, side),
        stride=(stride, 1, 1),
        padding=(around[0], around[1], around[1]),
    )
