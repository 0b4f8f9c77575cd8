"""What the examples of this folder share: scanned digits, a network that knows nothing of Collegium, and its score."""

import logging

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

logging.disable(logging.INFO)  # each example prints one line, whatever its trainer has to tell


def small_network() -> nn.Module:
    def block(d: int, e: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(d, e, 3, padding=1), nn.BatchNorm2d(e), nn.ReLU(), nn.MaxPool2d(2))

    return nn.Sequential(block(1, 16), block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def splits() -> tuple[TensorDataset, TensorDataset]:
    pixels, classes = load_digits(return_X_y=True)
    images, target = torch.tensor(pixels).float().view(-1, 1, 8, 8) / 16, torch.tensor(classes)
    return TensorDataset(images[:400], target[:400]), TensorDataset(images[400:], target[400:])


def training_batches() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(splits()[0], batch_size=50, shuffle=True)


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    images, target = splits()[1].tensors
    return float((network.eval()(images).argmax(1) == target).float().mean())
