"""A plain PyTorch loop: one network alone, then two that teach each other."""

import torch
from digits import accuracy, small_network, training_batches
from torch import nn
from torch.nn.functional import cross_entropy

from collegium import Distiller

EPOCHS = 10


def alone() -> nn.Module:
    network, batches = small_network(), training_batches()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(EPOCHS):
        for images, target in batches:
            cross_entropy(network(images), target).backward()
            optimizer.step()
            optimizer.zero_grad()
    return network


def together() -> nn.Module:
    batches = training_batches()
    kd = Distiller("dml", [small_network(), small_network()], image_shape=(1, 8, 8), num_classes=10, epochs=EPOCHS)
    optimizer = torch.optim.SGD(kd.parameter_groups(lr=0.1), momentum=0.9)
    for epoch in range(EPOCHS):
        for step, (images, target) in enumerate(batches):
            kd(images, target, (epoch + step / len(batches)) / EPOCHS).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            kd.after_step()
    return kd.peer(0)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"alone {accuracy(alone()):.3f}, together {accuracy(together()):.3f}")
