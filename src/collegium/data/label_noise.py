"""Wrong training labels, made on purpose or given by people."""

from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from collegium.errors import UsageError
from collegium.seeds import generator

from .interface import ClassificationData

NoiseKind: TypeAlias = Literal["symmetric", "pair"]


def with_label_noise(
    data: ClassificationData[Any], share: float, *, kind: NoiseKind = "symmetric", seed: int = 0
) -> ClassificationData[Any]:
    """The same data with wrong labels on a share of the training images of each class.

    The images are drawn by class. With the same seed, the images with wrong labels for a smaller share are among
    those for a larger one. Labels for validation and test stay as they are.

    Args:
        data: any classification data.
        share: the share of each class's training images that get a wrong label, from 0 up to, but not, 1, rounded to
            whole images.
        kind: "symmetric" draws each wrong label uniformly from all other classes; "pair" takes the next class, and
            the first after the last.
        seed: which images get a wrong label, and which one.

    Raises:
        UsageError: `share` or `kind` is none of these.
    """
    if not 0 <= share < 1:
        raise UsageError(f"the share of wrong labels is {share}: give a number from 0 up to, but not, 1")
    if kind not in ("symmetric", "pair"):
        raise UsageError(f"the kind of label noise is {kind!r}: give 'symmetric' or 'pair'")
    split = data.train
    if share == 0:
        return data
    given: Tensor = split.targets
    targets = given.cpu().clone()
    for label in range(data.num_classes):
        members = (given.cpu() == label).nonzero()[:, 0]
        # A path of its own: which labels are wrong is unrelated to which images were taken.
        random = generator(seed, 2, label)
        chosen = members[torch.randperm(len(members), generator=random)[: int(share * len(members) + 0.5)]]
        if kind == "pair":
            shift = torch.ones(len(chosen), dtype=torch.int64)
        else:
            shift = torch.randint(1, data.num_classes, (len(members),), generator=random)[: len(chosen)]
        targets[chosen] = (label + shift) % data.num_classes
    truth = given if split.true_targets is None else split.true_targets
    return replace(data, train=replace(split, targets=targets.to(given.device), true_targets=truth))


def wrong_labels(data: ClassificationData[Any]) -> float | None:
    """The share of training labels that are wrong; None where that is not known."""
    truth = data.train.true_targets
    return None if truth is None else float((data.train.targets != truth).double().mean())


def with_note(data: ClassificationData[Any]) -> ClassificationData[Any]:
    """The same data with a note on how many training labels are wrong, where that is known."""
    wrong = wrong_labels(data)
    if wrong is None:
        return data
    note = f"{100 * wrong:.1f} % of the {len(data.train)} training labels are wrong; test labels are the right ones."
    if data.validation is not None and data.validation.true_targets is not None:
        note += " Validation labels are wrong as often."
    return replace(data, notes=(*data.notes, note))
