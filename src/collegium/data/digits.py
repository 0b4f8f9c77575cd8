"""Handwritten digits that come with scikit-learn: a real data set that needs no download."""

import torch
import torch.nn.functional as F

from .batches import Augmentation, Split
from .images import ImageData, pixel_statistics

_TRAIN = 1347


def digits() -> ImageData:
    """1797 grey images of handwritten digits in 10 classes: 1347 to train on, 450 to score.

    The images (8 x 8 pixels of 17 levels) are enlarged to 16 x 16 by bilinear interpolation, so that a
    network of three stages, which halves the size twice, ends in a 4 x 4 map.

    They are the test set of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998),
    written by 13 people. Which image is by whom is not recorded. The last 450 of the file's own order are
    the test split, not a random quarter: should a writer's digits stand together in the file, then few
    writers, and not all of them, are on both sides.
    """
    from sklearn.datasets import load_digits

    file = load_digits()
    grey = torch.from_numpy(file.images).float().unsqueeze(1)  # (N, 1, 8, 8), 0..16
    enlarged = F.interpolate(grey, size=(16, 16), mode="bilinear", align_corners=False)
    images = (enlarged * (255 / 16)).round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(file.target).to(torch.int64)
    mean, std = pixel_statistics(images[:_TRAIN])
    return ImageData(
        name="digits",
        train=Split(images[:_TRAIN], targets[:_TRAIN]),
        test=Split(images[_TRAIN:], targets[_TRAIN:]),
        class_names=tuple(str(name) for name in file.target_names),
        mean=mean,
        std=std,
        augmentation=Augmentation(padding=1, padding_mode="zeros", flip=False),
    )
