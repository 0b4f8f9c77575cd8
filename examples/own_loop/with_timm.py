"""timm's optimizer, schedule and moving average of weights: one network alone, then two that teach each other."""

import torch
from digits import accuracy, small_network, training_batches
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.functional import cross_entropy

from collegium import Distiller

EPOCHS = 10


def train(student: nn.Module, kd: Distiller | None = None) -> nn.Module:
    batches = training_batches()
    parameters = student.parameters() if kd is None else kd.parameter_groups(lr=0.01, weight_decay=0.05)
    optimizer = create_optimizer_v2(parameters, opt="adamw", lr=0.01, weight_decay=0.05)
    schedule, average = CosineLRScheduler(optimizer, t_initial=EPOCHS), ModelEmaV3(student, decay=0.9)
    for epoch in range(EPOCHS):
        for step, (images, target) in enumerate(batches):
            done = (epoch + step / len(batches)) / EPOCHS
            loss = cross_entropy(student(images), target) if kd is None else kd(images, target, done).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if kd is not None:
                kd.after_step()
            average.update(student)
        schedule.step(epoch + 1)
    return average.module


if __name__ == "__main__":
    torch.manual_seed(0)
    peers = [small_network(), small_network()]
    kd = Distiller("ffl", peers, image_shape=(1, 8, 8), num_classes=10, epochs=EPOCHS)
    print(f"alone {accuracy(train(small_network())):.3f}, together {accuracy(train(kd.peer(0), kd)):.3f}")
