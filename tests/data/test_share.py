"""Several processes make of a batch what one would."""

import re

import pytest
import torch

from collegium.data import Augmentation, Batches, Share, Split, StreamedSplit, Views
from collegium.data.batches import Normalisation
from collegium.data.decoding.source import Source
from collegium.data.decoding.streamed import StreamedBatches
from collegium.data.hyperspectral.patches import PatchBatches, Pixels
from collegium.data.interface import BatchSource
from collegium.errors import UsageError

CPU = torch.device("cpu")
IMAGES = torch.randint(256, (27, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(27)


class Stored(Source):
    """Images that are asked for one by one."""

    def __len__(self) -> int:
        return len(IMAGES)

    def pixels(self, index: int) -> torch.Tensor:
        return IMAGES[index]

    def fingerprint(self, indices: torch.Tensor) -> str:
        return ""


def images(share: Share, views: int) -> BatchSource:
    return Batches(
        Split(IMAGES, TARGETS),
        batch_size=12,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        augmentation=Augmentation(),
        views=views,
        share=share,
    )


def streamed(share: Share, views: int) -> BatchSource:
    mean = (0.5,) * 3
    view = Views(image_size=(6, 6)).training(mean)
    normalise = Normalisation(mean, (0.2,) * 3, 6, CPU)
    split = StreamedSplit.of(Stored(), TARGETS)
    return StreamedBatches(split, view, normalise, batch_size=12, device=CPU, workers=0, views=views, share=share)


def patches(share: Share, views: int) -> BatchSource:
    scene = torch.randn(6, 6, 4, generator=torch.Generator().manual_seed(0))
    pixels = Pixels(torch.arange(27), TARGETS)
    return PatchBatches(
        scene, pixels, patch=3, batch_size=12, turn=True, shuffle=True, drop_last=True, views=views, share=share
    )


@pytest.mark.parametrize("made", [images, streamed, patches])
@pytest.mark.parametrize("views", [1, 2])
def test_parts_put_together_are_the_batch(made, views: int) -> None:
    whole = list(made(Share(), views).epoch(1, 1))
    parts = [list(made(Share(rank, 3), views).epoch(1, 1)) for rank in range(3)]
    assert len(whole) == 1 and all(len(part) == 1 for part in parts)
    for k, (expected, targets) in enumerate(whole):
        assert torch.equal(torch.cat([part[k][0] for part in parts], dim=-4), expected)
        assert torch.equal(torch.cat([part[k][1] for part in parts]), targets)


def test_a_part_begins_with_the_image_before_it() -> None:
    for (_, targets), (_, first), (_, last) in zip(
        images(Share(), 1).epoch(0),
        images(Share(0, 2, before=1), 1).epoch(0),
        images(Share(1, 2, before=1), 1).epoch(0),
        strict=True,
    ):
        assert first.tolist() == [int(targets[-1]), *targets[:6].tolist()]
        assert last.tolist() == targets[5:].tolist()


@pytest.mark.parametrize(("ranks", "batch", "fit"), [(5, 12, "10 or 15"), (16, 12, "16"), (8, 27, "24 or 32")])
def test_parts_that_would_differ_are_refused(ranks: int, batch: int, fit: str) -> None:
    message = f"{ranks} processes cannot share batches of {batch} images equally; take a batch size of {fit}"
    with pytest.raises(UsageError, match=re.escape(message)):
        Share(0, ranks).size(batch)
