"""Accelerate's devices, precision and accumulated gradients: one network alone, then two that teach each other."""

import torch
from accelerate import Accelerator
from digits import accuracy, small_network, training_batches
from torch import nn
from torch.nn.functional import cross_entropy

from collegium import Distiller

EPOCHS = 10


def train(student: nn.Module, kd: Distiller | None = None) -> nn.Module:
    accelerator = Accelerator(gradient_accumulation_steps=2)
    parameters = student.parameters() if kd is None else kd.parameter_groups(lr=0.1)
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    model, optimizer, batches = accelerator.prepare(student if kd is None else kd, optimizer, training_batches())
    for epoch in range(EPOCHS):
        for step, (images, target) in enumerate(batches):
            with accelerator.accumulate(model):
                done = (epoch + step / len(batches)) / EPOCHS
                loss = cross_entropy(model(images), target) if kd is None else model(images, target, done).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), max_norm=5.0)
                optimizer.step()
                optimizer.zero_grad()
                if kd is not None and accelerator.sync_gradients:
                    kd.after_step()  # kd itself: model may be a wrapper around it
    return student


if __name__ == "__main__":
    torch.manual_seed(0)
    peers = [small_network(), small_network()]
    kd = Distiller("dml", peers, image_shape=(1, 8, 8), num_classes=10, epochs=EPOCHS)
    print(f"alone {accuracy(train(small_network())):.3f}, together {accuracy(train(kd.peer(0), kd)):.3f}")
