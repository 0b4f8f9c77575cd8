"""Lightning's Trainer: one network alone, then two that teach each other."""

import torch
from digits import accuracy, small_network, training_batches
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from collegium import Distiller

EPOCHS = 10


class Training(LightningModule):
    def __init__(self, student: nn.Module, kd: Distiller | None = None) -> None:
        super().__init__()
        self.student, self.kd = student, kd

    def training_step(self, batch: list[Tensor]) -> Tensor:
        if self.kd is None:
            return nn.functional.cross_entropy(self.student(batch[0]), batch[1])
        return self.kd(*batch, self.global_step / self.trainer.estimated_stepping_batches).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = self.student.parameters() if self.kd is None else self.kd.parameter_groups(lr=0.1)
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def optimizer_step(self, *args: object) -> None:
        super().optimizer_step(*args)
        if self.kd is not None:
            self.kd.after_step()


if __name__ == "__main__":
    torch.manual_seed(0)
    kd = Distiller("dml", [small_network(), small_network()], image_shape=(1, 8, 8), num_classes=10, epochs=EPOCHS)
    alone, together = Training(small_network()), Training(kd.peer(0), kd)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    for training in (alone, together):
        Trainer(max_epochs=EPOCHS, **quiet).fit(training, training_batches())
    print(f"alone {accuracy(alone.student):.3f}, together {accuracy(together.student):.3f}")
