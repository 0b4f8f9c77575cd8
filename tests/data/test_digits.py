import numpy as np
import torch
from sklearn.datasets import load_digits

from collegium.data import Augmentation
from collegium.data.digits import digits


def test_counts_and_shapes():
    data = digits()
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, (16, 16))
    assert data.class_names == tuple("0123456789")
    assert data.augmentation == Augmentation(1, "zeros", flip=False)


def test_images_are_the_files_enlarged_in_its_order():
    file, data = load_digits(), digits()
    assert torch.cat([data.train.targets, data.test.targets]).tolist() == file.target.tolist()
    # Twofold bilinear enlargement keeps the mean of the inner pixels' 2 x 2 blocks near the original pixel.
    small = torch.cat([data.train.images, data.test.images]).double().unflatten(2, (8, 2)).unflatten(4, (8, 2))
    correlation = np.corrcoef(small.mean((3, 5)).flatten(), file.images.flatten())[0, 1]
    assert correlation > 0.97
    # The corners of an enlarged image are those of the original.
    corners = (file.images[:1347, 0, 0] * 255 / 16).round()
    assert data.train.images[:, 0, 0, 0].tolist() == corners.tolist()


def test_statistics_are_those_of_the_training_images():
    data = digits()
    scaled = data.train.images.double() / 255
    assert abs(data.mean[0] - scaled.mean().item()) < 1e-9
    assert abs(data.std[0] - scaled.std(correction=0).item()) < 1e-9
