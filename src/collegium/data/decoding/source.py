"""Where images come from that are not in memory."""

import abc

from torch import Tensor

from ..views import Plan, cut


class Source(abc.ABC):
    """Images that are read one by one, wherever they lie."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def pixels(self, index: int) -> Tensor:
        """An image as (C, H, W) uint8, of the same C always."""

    @abc.abstractmethod
    def fingerprint(self, indices: Tensor) -> str:
        """A short text that differs where the images at `indices` (K,) do."""

    def parts(self, index: int, plan: Plan) -> list[Tensor]:
        """Parts of an image, each resized, (C, H, W) uint8. A source that can reads no more of it than they need."""
        pixels = self.pixels(index)
        height, width = pixels.shape[1:]
        return [cut(pixels, part) for part in plan(height, width)]
