"""Test images worth looking at, chosen by rule, with the predictors' answers and the peers' attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from collegium.cohort import is_peer
from collegium.formatting import printable


@dataclass(frozen=True)
class Choice:
    """An image to show, and why."""

    index: int
    story: str


class Answer(NamedTuple):
    """What a predictor says."""

    label: int
    confidence: float


@dataclass(frozen=True)
class Example:
    """One test image and what is known of it."""

    index: int
    file: str | None  # the path of its file, where there is one
    story: str
    image: Tensor  # (C, H, W) uint8
    target: int
    answers: dict[str, Answer]
    maps: dict[str, Tensor] = field(default_factory=dict)  # where each is active: (H, W) of the map, in [0, 1]

    @property
    def name(self) -> str:
        """That of its file, or its place among the test images."""
        return f"test image {self.index}" if self.file is None else printable(Path(self.file).name)


@dataclass(frozen=True)
class Changes:
    """What a network answers that was trained together with others, beside the same one trained alone.

    Attributes:
        counts: (2, 2) int64, test images by whether the network alone is right, and the one trained together.
        gained: some of those that the network alone gets wrong, and the other one right.
        lost: some of the reverse.
    """

    counts: Tensor
    gained: tuple[Example, ...]
    lost: tuple[Example, ...]


def evenly(indices: Tensor, count: int) -> list[int]:
    """At most ``count`` of the indices (N,), the first, the last, and others at even steps between them."""
    if len(indices) <= count:
        return [int(index) for index in indices]
    return [int(indices[k * (len(indices) - 1) // (count - 1)]) for k in range(count)]


def choose(logits: Mapping[str, Tensor], target: Tensor, own: Sequence[str], count: int = 9) -> list[Choice]:
    """The most instructive images, at most two for each story, the same ones at every call.

    Stories are told about the peers and one predictor that joins them: the method's own, or the ensemble. Within
    a story the predictors' mean confidence decides, then the order of the images; a class is shown once where
    there is a choice.

    Args:
        logits: predictor -> (N, C); the peers are those called peer0, peer1, ...
        target: (N,)
        own: the method's own predictors.
        count: how many images at most.
    """
    peers = [name for name in logits if is_peer(name)]
    joint = own[0] if own else "ensemble"
    answers = torch.stack([logits[name].argmax(-1) for name in peers])  # (M, N)
    right, joint_right = answers == target, logits[joint].argmax(-1) == target
    sure = torch.stack([z.softmax(-1).amax(-1) for z in logits.values()]).mean(0)  # (N,)
    some, every = right.any(0), right.all(0)
    alike = (answers == answers[0]).all(0)
    one = "the peer" if len(peers) == 1 else "every peer"
    stories = [
        (f"{one} wrong, {joint} right", ~some & joint_right, sure),
        (f"peers disagree, {joint} right", some & ~every & joint_right, -sure),
        (f"peers disagree, {joint} wrong", some & ~every & ~joint_right, sure),
        (f"{one} right, {joint} wrong", every & ~joint_right, sure),
        ("all wrong, with the same answer" if len(peers) > 1 else "wrong", ~some & ~joint_right & alike, sure),
        ("all wrong, with different answers", ~some & ~joint_right & ~alike, sure),
        ("all right, but unsure", every & joint_right, -sure),
        ("all right and sure", every & joint_right, sure),
    ]
    picked: list[list[Choice]] = []
    shown: set[int] = set()
    for story, fits, score in stories:
        candidates = fits.nonzero().flatten()
        ranked = candidates[torch.sort(score[candidates], descending=True, stable=True).indices].tolist()
        two: list[int] = []
        while ranked and len(two) < 2:
            best = next((i for i in ranked if int(target[i]) not in shown), ranked[0])
            ranked.remove(best)
            two.append(best)
            shown.add(int(target[best]))
        picked.append([Choice(i, story) for i in two])
    chosen: list[Choice] = []
    for turn in range(2):  # one of each story before a second of any
        for choices in picked:
            if len(choices) > turn and choices[turn].index not in {c.index for c in chosen}:
                chosen.append(choices[turn])
    chosen = chosen[:count]
    order = [story for story, _, _ in stories]
    return sorted(chosen, key=lambda choice: order.index(choice.story))


def unit_range(attention: Tensor) -> Tensor:
    """Each map scaled to run from 0 to 1, a flat one to 0: (B, H, W) -> (B, H, W)."""
    low = attention.amin((1, 2), keepdim=True)
    span = attention.amax((1, 2), keepdim=True) - low
    return torch.where(span > 0, (attention - low) / span.clamp_min(1e-12), torch.zeros_like(attention))


def enlarge(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (H, W) bilinearly brought to an image's size."""
    return F.interpolate(attention[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)
