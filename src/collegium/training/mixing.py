"""Mixup and CutMix of batches."""

from typing import Any

import torch
from torch import Tensor


class Mixing:
    """Torchvision's mixup and CutMix on whole batches, with random numbers from torch's global generator.

    Zhang et al., "mixup", ICLR 2018, https://arxiv.org/abs/1710.09412; Yun et al., "CutMix", ICCV 2019,
    https://arxiv.org/abs/1905.04899. Where both are on, each batch gets one of them.

    Args:
        num_classes: length of the targets.
        mixup: alpha of the Beta distribution of the images' weights; 0 for no mixup.
        cutmix: alpha of the Beta distribution of the pasted area's share; 0 for no CutMix.
        before: number of images at the start of a batch that the result leaves out. An image is mixed with the one
            before it (the first with the last), so with one of them a part of a batch is mixed as in the whole batch.
    """

    def __init__(self, num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0, before: int = 0) -> None:
        self.num_classes = num_classes
        self.before = before
        self.mixers: list[Any] = []
        if mixup or cutmix:
            from torchvision.transforms import v2

            self.mixers += [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
            self.mixers += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,) class indices or (B, classes) probabilities -> mixed images and (B, classes).

        All views (V, B, C, H, W) of an image are mixed with the same weights, as they share a target.
        """
        if not self.mixers:
            return images, target
        chosen = int(torch.randint(len(self.mixers), ())) if len(self.mixers) > 1 else 0
        if images.ndim == 4:
            mixed, soft = self.mixers[chosen](images, target)
            last = images.is_contiguous(memory_format=torch.channels_last)  # which mixing on a GPU does not keep
            mixed = mixed.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
            return mixed[self.before :], soft[self.before :]
        views, batch, channels, height, width = images.shape
        stacked = images.transpose(0, 1).reshape(batch, views * channels, height, width)
        mixed, soft = self.mixers[chosen](stacked, target)
        mixed, soft = mixed[self.before :], soft[self.before :]
        return mixed.reshape(len(mixed), views, channels, height, width).transpose(0, 1), soft
