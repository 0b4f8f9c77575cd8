"""The Trainer of Transformers: one network alone, then two that teach each other."""

from tempfile import TemporaryDirectory

import torch
from digits import accuracy, small_network, splits
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from collegium import Distiller

EPOCHS = 10


class Training(Trainer):
    def compute_loss(self, model: nn.Module, inputs: list[Tensor], **_: object) -> Tensor:
        if not isinstance(self.model, Distiller):
            return nn.functional.cross_entropy(model(inputs[0]), inputs[1])
        return model(*inputs, self.state.global_step / self.state.max_steps).loss


class AfterStep(TrainerCallback):
    def on_optimizer_step(self, *_: object, model: nn.Module, **__: object) -> None:
        if isinstance(model, Distiller):
            model.after_step()


if __name__ == "__main__":
    torch.manual_seed(0)
    alone, peers = small_network(), [small_network(), small_network()]
    kd = Distiller("dml", peers, image_shape=(1, 8, 8), num_classes=10, epochs=EPOCHS)
    quiet = dict(disable_tqdm=True, report_to="none", save_strategy="no", dataloader_pin_memory=False)
    for model, groups in ((alone, alone.parameters()), (kd, kd.parameter_groups(lr=0.1))):
        with TemporaryDirectory() as folder:
            settings = TrainingArguments(folder, num_train_epochs=EPOCHS, per_device_train_batch_size=50, **quiet)
            given = dict(callbacks=[AfterStep], optimizers=(torch.optim.SGD(groups, lr=0.1, momentum=0.9), None))
            trainer = Training(model, settings, torch.utils.data.default_collate, splits()[0], **given)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    print(f"alone {accuracy(alone):.3f}, together {accuracy(kd.peer(0)):.3f}")
