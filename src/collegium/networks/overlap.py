"""Networks on overlapping patches of a scene: what patches share is computed once, where a network allows it."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import overload

import torch
from torch import Tensor, nn

from collegium.networks.network import Network, read_map
from collegium.tiles import Tile

ROUNDING = 1e-4  # by which the same numbers may differ, computed in another order, over the largest


class LazyMaps(Sequence[Tensor]):
    """Maps that are made when they are asked for, once."""

    def __init__(self, makers: Sequence[Callable[[], Tensor]]) -> None:
        self._makers = [cache(maker) for maker in makers]

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(place, slice):
            return LazyMaps(self._makers[place])
        return self._makers[place]()


def outputs_of_patches(network: Network, tile: Tile) -> tuple[Sequence[Tensor], Tensor]:
    """What ``network.outputs`` says of the patches of a tile, up to rounding.

    The first stages see the tile as a whole, as many as :func:`shared_stages`; the others see the patches. Of patches
    of 25 x 25 pixels around neighbouring pixels, the tile has a few hundredths of the pixels.
    """
    count = shared_stages(network, tile)
    if not count:
        return network.outputs(network.fit(tile.patches))
    stages = list(network.stages.items())
    makers: list[Callable[[], Tensor]] = []
    x = network.fit(tile.pixels)
    for _, stage in stages[:count]:
        x = stage(x)
        makers.append(partial(_cut_map, stage, tile, x))
    above, logits = network.with_stages(dict(stages[count:])).outputs(tile.cut(x))
    return LazyMaps([*makers, *(partial(_same, f) for f in above)]), logits


@torch.no_grad()
def shared_stages(network: Network, tile: Tile) -> int:
    """How many of the first stages give the same for patches, whether they see each of them or the whole tile.

    Stages do that neither pad nor stride nor pool over space. It is tried on random pixels, with the weights of now.
    """
    if network.training or network.image_size is not None:
        return 0
    device, side = tile.pixels.device, tile.patch + 1
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, tile.pixels.shape[1], side, side, generator=random).to(device)
    trial = Tile(pixels, tile.patch, torch.tensor([[0, 1], [0, 1]], device=device))  # the first and the last patch
    whole, apart = network.fit(trial.pixels), network.fit(trial.patches)
    with torch.autocast(device.type, enabled=False):
        for count, stage in enumerate(network.stages.values()):
            try:
                whole, apart = stage(whole), stage(apart)
            except Exception:  # whatever a stranger's module says of an image of another size
                return count
            if not _agree(trial, whole, apart):
                return count
    return len(network.stages)


def _agree(tile: Tile, whole: Tensor, apart: Tensor) -> bool:
    """Whether what a stage gives for a tile holds what it gives for the patches."""
    if whole.ndim < 4 or apart.shape[-1] != apart.shape[-2]:
        return False
    side = apart.shape[-1] + tile.pixels.shape[-1] - tile.patch
    if whole.shape != (1, *apart.shape[1:-2], side, side):
        return False
    return bool((tile.cut(whole) - apart).abs().max() <= ROUNDING * apart.abs().max())


def _cut_map(stage: nn.Module, tile: Tile, state: Tensor) -> Tensor:
    return read_map(stage, tile.cut(state))


def _same(x: Tensor) -> Tensor:
    return x
