"""Overlapping patches of a piece of a scene, for networks that can compute what these share only once."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tile:
    """Patches that lie in one piece of a scene.

    Attributes:
        pixels: (1, C, H, W), the piece.
        patch: p, side of the patches.
        corners: (2, B) int64, row and column of each patch's first pixel.
    """

    pixels: Tensor
    patch: int
    corners: Tensor

    @cached_property
    def patches(self) -> Tensor:
        """(B, C, p, p)"""
        return self.cut(self.pixels)

    def cut(self, state: Tensor) -> Tensor:
        """What belongs to each patch, where convolutions have taken the same rows and columns of piece and patches.

        (1, ..., H - r, W - r) -> (B, ..., p - r, p - r)
        """
        *_, height, width = state.shape
        reach = torch.arange(self.patch - (self.pixels.shape[-1] - width), device=state.device)
        rows, columns = self.corners[:, :, None, None]
        index = (rows + reach[:, None]) * width + columns + reach  # (B, q, q)
        # One gather of whole vectors, which lie together in memory.
        vectors = state.reshape(-1, height * width).T.contiguous().index_select(0, index.flatten())
        found = vectors.view(*index.shape, *state.shape[1:-2])
        return found.movedim((1, 2), (-2, -1))
