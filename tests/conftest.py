"""What several test modules share: the losses written naively in NumPy, small random inputs, small image files."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from collegium.cohort import CohortSpec, PeerOutputs, TeacherOutputs
from collegium.layers import GlobalPoolClassifier
from collegium.method import Progress

pytest_plugins = ["finished_run"]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(z: np.ndarray, target: np.ndarray) -> float:
    """One peer: (B, C) logits; (B,) class indices or (B, C) probabilities."""
    p, total = softmax(z), 0.0
    for b in range(len(z)):
        weights = np.eye(z.shape[1])[target[b]] if target.ndim == 1 else target[b]
        total -= sum(weights[c] * np.log(p[b, c]) for c in range(z.shape[1]))
    return total / len(z)


def kd(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """One peer: T^2 KL(teacher || student), mean over the batch."""
    q, p, total = softmax(student / temperature), softmax(teacher / temperature), 0.0
    for b in range(len(p)):
        for c in range(p.shape[1]):
            total += p[b, c] * (np.log(p[b, c]) - np.log(q[b, c]))
    return temperature**2 * total / len(p)


@pytest.fixture(scope="session")
def naive() -> SimpleNamespace:
    """The losses that methods are sums of, in float64 and by loops."""
    return SimpleNamespace(softmax=softmax, cross_entropy=cross_entropy, kd=kd)


@pytest.fixture(scope="session")
def at() -> Callable[..., Progress]:
    """at(epoch, epochs): the progress at the start of an epoch."""

    def progress(epoch: int, epochs: int = 300) -> Progress:
        return Progress(*(torch.tensor(float(x)) for x in (epoch, epochs, epoch / epochs)))

    return progress


@pytest.fixture(scope="session")
def random_outputs() -> Callable[..., PeerOutputs]:
    """What M peers might say of a batch, all leaves that take gradients; the teacher's are constants."""

    def make(peers: int, batch: int = 6, classes: int = 5, *, channels: int = 4, size: int = 3, teacher: bool = False):
        g = torch.Generator().manual_seed(peers)

        def leaf(*shape: int) -> torch.Tensor:
            return (2 * torch.randn(*shape, generator=g)).requires_grad_()

        maps = tuple((leaf(batch, channels, size, size),) for _ in range(peers))
        trunk = leaf(batch, channels, size, size)
        logits = leaf(peers, batch, classes)
        told = TeacherOutputs(leaf(batch, classes).detach(), (leaf(batch, channels, size, size).detach(),))
        return PeerOutputs(logits, maps, trunk, told if teacher else None)

    return make


@pytest.fixture(scope="session")
def spec_of() -> Callable[[PeerOutputs], CohortSpec]:
    """The spec of a cohort with such outputs."""

    def make(out: PeerOutputs) -> CohortSpec:
        def shape(f: torch.Tensor) -> tuple[int, ...]:
            return tuple(f.shape[1:])

        teacher, classifier = None, None
        if out.teacher is not None:
            teacher = tuple(map(shape, out.teacher.features))
            classifier = GlobalPoolClassifier(teacher[-1][0], out.logits.shape[-1])
        return CohortSpec(
            names=("net",) * len(out.logits),
            num_classes=out.logits.shape[-1],
            feature_shapes=tuple(tuple(map(shape, stages)) for stages in out.features),
            trunk_shape=None if out.trunk is None else shape(out.trunk),
            teacher_shapes=teacher,
            teacher_classifier=classifier,
        )

    return make


@pytest.fixture
def labels() -> torch.Tensor:
    """Classes of the six images of ``random_outputs``."""
    return torch.tensor([0, 1, 2, 3, 4, 1])


@pytest.fixture(scope="session")
def array() -> Callable[[torch.Tensor], np.ndarray]:
    """A tensor as a float64 array; class indices stay integers."""

    def convert(x: torch.Tensor) -> np.ndarray:
        x = x.detach()
        return x.double().numpy() if x.is_floating_point() else x.numpy()

    return convert


def picture(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="session")
def write_images() -> Callable[..., list[Path]]:
    """write_images(folder, count, size=(W, H), seed=0, mode="RGB", ending="png"): noise, each image another."""

    def write(
        folder: Path,
        count: int,
        size: tuple[int, int] = (9, 8),
        *,
        seed: int = 0,
        mode: str = "RGB",
        ending: str = "png",
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{k:02}.{ending}" for k in range(count)]
        for k, file in enumerate(files):
            picture(1000 * seed + k, *size, mode).save(file)
        return files

    return write
