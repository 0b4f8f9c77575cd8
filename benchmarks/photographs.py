"""How fast photographs are read: by Collegium, by timm's loader, and by torchvision's transforms in torch's DataLoader.

python benchmarks/photographs.py [--megapixels 0.1 0.5 2 12] [--workers 1 2] [--rounds 5] [--out results/speed]

JPEG files of each size are made of scikit-learn's two photographs: random parts, enlarged, with a camera's grain. All
read the same files in batches of 64 at 224 x 224 pixels, and give normalised float32: for training a random part,
resized, mirrored half of the time; for scoring the centre, resized. They take turns, and start their workers anew each
time; numbers are medians over the rounds. CPU seconds are those of the process and of its workers, which tell more than
the clock on a machine that does other things meanwhile.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measuring import described, table
from speed import write_page
from torch.utils.data import DataLoader

from collegium import data

BATCH, SIDE = 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Epoch = Callable[[], Iterable[Any]]


def make_folder(root: Path, megapixels: float, count: int) -> None:
    """train/ and test/, each of two classes, of ``count`` images together."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % 2]
        ratio = random.choice([4 / 3, 3 / 4, 3 / 2])
        size = round((megapixels * 1e6 * ratio) ** 0.5), round((megapixels * 1e6 / ratio) ** 0.5)
        share = random.uniform(0.6, 0.95) * min(photograph.width / size[0], photograph.height / size[1])
        width, height = size[0] * share, size[1] * share
        left, top = random.uniform(0, photograph.width - width), random.uniform(0, photograph.height - height)
        enlarged = photograph.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        grain = random.normal(0, 4, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(enlarged) + grain, 0, 255).astype(np.uint8)
        for split in ("train", "test"):
            folder = root / split / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)


def collegium_loader(root: Path, workers: int, *, training: bool) -> Epoch:
    found = data.load(f"folder:{root}", image_size=SIDE, workers=workers, memory=False, mean=MEAN, std=STD)
    device = torch.device("cpu")

    def epoch() -> Iterable[Any]:
        if training:
            return found.training_batches(batch_size=BATCH, seed=0, device=device).epoch(0)
        return found.scoring_batches(found.test, batch_size=BATCH, device=device).epoch(0)

    return epoch


def timm_loader(root: Path, workers: int, *, training: bool) -> Epoch:
    from timm.data import create_dataset, create_loader

    split = create_dataset("", root=str(root), split="train" if training else "test")

    def epoch() -> Iterable[Any]:
        given: dict[str, Any] = dict(input_size=(3, SIDE, SIDE), batch_size=BATCH, is_training=training)
        given |= dict(interpolation="bilinear", mean=MEAN, std=STD, num_workers=workers, crop_pct=0.875)
        given |= dict(color_jitter=None, use_prefetcher=False, persistent_workers=False, pin_memory=False)
        return create_loader(split, **given)  # type: ignore[no-any-return]

    return epoch


def torchvision_loader(root: Path, workers: int, *, training: bool) -> Epoch:
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    size = (
        [v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip()] if training else [v2.Resize(256), v2.CenterCrop(SIDE)]
    )
    transform = v2.Compose([*size, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def decoded(path: str) -> torch.Tensor:
        return decode_image(path, ImageReadMode.RGB)

    split = ImageFolder(str(root / ("train" if training else "test")), transform, loader=decoded)

    def epoch() -> Iterable[Any]:
        return DataLoader(split, BATCH, shuffle=training, drop_last=training, num_workers=workers)

    return epoch


LOADERS = {"collegium": collegium_loader, "timm": timm_loader, "torchvision": torchvision_loader}


def _cpu() -> float:
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime


def measure(root: Path, count: int, workers: int, rounds: int, *, training: bool) -> dict[str, dict[str, float]]:
    """Loader -> images a second, and CPU seconds for 1,000 images."""
    epochs = {name: make(root, workers, training=training) for name, make in LOADERS.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for turn in range(rounds + 1):
        for name, epoch in epochs.items():
            begun, used = time.perf_counter(), _cpu()
            images = sum(len(batch[0]) for batch in epoch())
            assert images == count, (name, images)
            if turn:
                taken[name].append((time.perf_counter() - begun, _cpu() - used))
    return {
        name: {
            "images_per_second": count / median(seconds for seconds, _ in found),
            "cpu_seconds_per_1000": 1000 / count * median(cpu for _, cpu in found),
        }
        for name, found in taken.items()
    }


def line(row: Mapping[str, Any]) -> list[str]:
    found = row["found"]
    cells = [row["task"], f"{row['megapixels']:g}", str(row["workers"])]
    for unit, digits in (("images_per_second", 0), ("cpu_seconds_per_1000", 1)):
        cells += [f"{found[name][unit]:.{digits}f}" for name in LOADERS]
    fastest = max(found[name]["images_per_second"] for name in LOADERS if name != "collegium")
    least = min(found[name]["cpu_seconds_per_1000"] for name in LOADERS if name != "collegium")
    own = found["collegium"]
    return [*cells, f"{own['images_per_second'] / fastest:.2f}", f"{least / own['cpu_seconds_per_1000']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.1, 0.5, 2, 12])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["task", "megapixels", "workers"]
    for unit in ("images/s", "CPU s for 1,000"):
        heads += [f"{name}, {unit}" for name in LOADERS]
    heads += ["images/s over the faster of the two", "the lesser CPU time of the two over ours"]
    rows = []
    for megapixels in options.megapixels:
        count = BATCH * max(1, round(4 / max(1, megapixels)))
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder), megapixels, count)
            for workers in options.workers:
                for task in ("training", "scoring"):
                    found = measure(Path(folder), count, workers, options.rounds, training=task == "training")
                    rows.append({"task": task, "megapixels": megapixels, "workers": workers, "found": found})
                    print(" | ".join(line(rows[-1])), flush=True)
    print("\n".join(table(heads, map(line, rows))))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "photographs.json").write_text(json.dumps({"rows": rows, **described()}, indent=2) + "\n")
        write_page(options.out)


if __name__ == "__main__":
    main()
