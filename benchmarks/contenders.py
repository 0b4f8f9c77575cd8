"""What is measured: Collegium's training, the peers alone, and the loop that paper repositories have."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from collegium import networks
from collegium.cohort import Cohort
from collegium.data import ImageData, from_arrays
from collegium.data.batches import Augmentation
from collegium.method import Progress
from collegium.training.engine import make_fabric
from collegium.training.experiment import Experiment, build
from collegium.training.loop import Run
from collegium.training.optimizers import make_optimizer
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

SHARED = {"ffl": "stage2", "one": "stage2", "cl_ilr": "stage2", "okddip": "stage2", "pcl": "stage2"}


def random_images(count: int, classes: int = 100) -> ImageData:
    """Noise in the shape of CIFAR, with its augmentation."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = generator.permutation(np.arange(count) % classes)
    test = images[:1].repeat(classes, 0), np.arange(classes)
    return from_arrays((images, labels), test, name="noise", augmentation=Augmentation())


def batch(
    size: int, device: torch.device, *, views: int = 1, channels_last: bool = True, classes: int = 100
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32), or (views, B, 3, 32, 32), and labels."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(views * size, 3, 32, 32).contiguous(memory_format=layout).to(device)
    target = torch.randint(classes, (size,), device=device)
    return (images.view(views, size, *images.shape[1:]) if views > 1 else images), target


def training(recipe: Recipe, data: ImageData, teacher: nn.Module | None = None) -> Run:
    """Collegium's run of a recipe, ready to make steps; it leaves no folder."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(build(recipe, data=data, teacher=teacher), RunFolder(folder), make_fabric(recipe), quiet=True)
    run.learner.train()
    return run


@dataclass(frozen=True)
class Floor:
    """The least that training some peers takes; calling it makes a step."""

    cohort: Cohort
    optimizer: Optimizer
    step: Callable[[], None]

    def __call__(self) -> None:
        self.step()


def peers_alone(recipe: Recipe, images: Tensor, target: Tensor, classes: int = 100) -> Floor:
    """One step of the recipe's peers on cross-entropy: forward, backward, update. Nothing of the library's training."""
    fabric = make_fabric(recipe)
    names = networks.parse_peers(recipe.peers)
    cohort = Cohort([networks.build(name, num_classes=classes) for name in names], share_until=recipe.share_until)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    cohort = cohort.to(fabric.device).to(memory_format=layout)
    mode = "reduce-overhead" if recipe.cuda_graphs else "default"
    forward = torch.compile(cohort, mode=mode) if recipe.compile else cohort
    optimizer = make_optimizer(recipe, [{"params": list(cohort.parameters())}])
    if images.ndim == 5:
        images = images[0]

    def step() -> None:
        with fabric.autocast():
            logits = forward(images).logits
        loss = torch.stack([F.cross_entropy(z, target) for z in logits]).sum()
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    return Floor(cohort, optimizer, step)


class ObviousLoop:
    """An epoch as paper repositories write it.

    Pictures are cropped, flipped and normalised one by one by torchvision's transforms in four processes; float32 in
    the default layout; optimizers as torch makes them; every loss and accuracy is read after every step. The method's
    equations are the library's own.

    Args:
        experiment: what to train.
        device: where.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        from torch.utils.data import DataLoader
        from torchvision import transforms

        data, recipe = experiment.data, experiment.recipe
        self.learner, self.device = experiment.learner.to(device), device
        kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.players: dict[str, list[Tensor]] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for player, groups in self.learner.method.players(self.learner.cohort).items():
            self.players[player] = [p for group in groups for p in group["params"]]
            kind = self.learner.method.optimizers.get(player)
            self.optimizers[player] = (
                kinds[kind](self.players[player], lr=1e-4)
                if kind
                else torch.optim.SGD(
                    self.players[player], recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4
                )
            )
        views = experiment.spec.num_peers if self.learner.method.own_views else 1
        transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )
        pictures = _Pictures(data.train.images, data.train.targets, transform, views)
        how: dict[str, Any] = {"num_workers": 4, "multiprocessing_context": "fork"}  # as a script has it on Linux
        warnings.filterwarnings("ignore", "This DataLoader will create")  # four is what the repositories say
        self.loader = DataLoader(pictures, recipe.batch_size, shuffle=True, drop_last=True, **how)

    def step_seconds(self) -> float:
        """Of an epoch, without its first step, before which the processes that read the pictures start."""
        times = []
        for _ in self.epoch():
            times.append(time.perf_counter())
        return (times[-1] - times[0]) / (len(times) - 1)

    def epoch(self) -> Iterator[dict[str, float]]:
        """Trains an epoch; yields what is read after every step."""
        self.learner.train()
        progress = Progress(*(torch.tensor(x, device=self.device) for x in (20.0, 30.0, 0.6)))
        for step, (images, target) in enumerate(self.loader):
            images, target = images.to(self.device), target.to(self.device)
            images = images.squeeze(1) if images.shape[1] == 1 else images.transpose(0, 1)
            terms, logits = self.learner(images, target, progress)
            read = {f"{player}/{name}": x.item() for player, named in terms.items() for name, x in named.items()}
            totals = {player: torch.stack(list(named.values())).sum() for player, named in terms.items()}
            gradients = {
                player: torch.autograd.grad(total, self.players[player], retain_graph=True, allow_unused=True)
                for player, total in totals.items()
            }
            for player, optimizer in self.optimizers.items():
                for parameter, gradient in zip(self.players[player], gradients.get(player, ()), strict=False):
                    parameter.grad = gradient
                optimizer.step()
                optimizer.zero_grad()
            self.learner.after_step(step + 1, len(self.loader))
            for k, z in enumerate(logits):
                read[f"accuracy{k}"] = float((z.argmax(1) == target).float().mean())
            yield read


class _Pictures(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Views (V, 3, 32, 32) of one image, and its label."""

    def __init__(self, images: Tensor, targets: Tensor, transform: Any, views: int) -> None:
        self.images, self.targets = images.permute(0, 2, 3, 1).numpy(), targets
        self.transform, self.views = transform, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        picture = Image.fromarray(self.images[index])
        return torch.stack([self.transform(picture) for _ in range(self.views)]), self.targets[index]
