"""How fast a whole hyperspectral scene is scored: as tiles, of which patches share what they can, and patch by patch.

python benchmarks/scenes.py [--networks hybridsn_8:25:30 ssrn_24:7:200] [--rounds 3] [--out results/speed]

A network is named with the side of its patches and the number of its channels. The scene is as large as Indian Pines,
145 x 145 pixels of random numbers; both ways take turns on the same pixels, and their logits are compared.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from measuring import described, median_seconds
from speed import write_page
from torch import Tensor

from collegium import networks
from collegium.data import SceneData, from_scene
from collegium.networks.overlap import outputs_of_patches, shared_stages
from collegium.tiles import Tile
from collegium.training.evaluation import EVALUATION_BATCH

SIDE, CLASSES = 145, 16


def scene(patch: int, channels: int) -> SceneData:
    random = np.random.default_rng(0)
    truth = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % CLASSES
    cube = random.normal(size=(SIDE, SIDE, channels)).astype(np.float32)
    return from_scene(cube, truth + 1, patch=patch, split="random", per_class=10)


def measured(name: str, patch: int, channels: int, rounds: int) -> dict[str, object]:
    """Seconds for all pixels in both ways, how many stages were shared, and the largest difference of a logit."""
    data = scene(patch, channels)
    torch.manual_seed(0)
    task = dict(num_classes=CLASSES, in_channels=channels, image_size=(patch, patch))
    network = networks.build(name, **task, mean=data.mean, std=data.std).eval()
    source = data.scene_tiles(batch_size=EVALUATION_BATCH, device=torch.device("cpu"))
    tiles = [tile for tile, _ in source.epoch(0)]
    if not all(isinstance(tile, Tile) for tile in tiles):
        raise SystemExit(f"patches of {patch} x {patch} pixels overlap too little for tiles: give larger ones")
    answers: dict[str, Tensor] = {}

    def together() -> None:
        answers["tiles"] = torch.cat([outputs_of_patches(network, tile)[1] for tile in tiles])

    def apart() -> None:
        answers["patches"] = torch.cat([network(t.cut(t.pixels)) for t in tiles])

    with torch.inference_mode():
        seconds = median_seconds({"tiles": together, "patches": apart}, rounds, torch.device("cpu"))
        shared = shared_stages(network, tiles[0])
    difference = float((answers["tiles"] - answers["patches"]).abs().max() / answers["patches"].abs().max())
    found = {"network": name, "patch": patch, "channels": channels, "seconds": seconds, "difference": difference}
    print(
        f"{name}, patches of {patch} x {patch} x {channels}: {seconds['tiles']:.1f} s as tiles, of which {shared} of "
        f"{len(network.stages)} stages see the whole, {seconds['patches']:.1f} s patch by patch: "
        f"{seconds['patches'] / seconds['tiles']:.1f} x; the logits differ by {difference:.0e} of the largest"
    )
    return found | {"shared": shared, "stages": len(network.stages)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["hybridsn_8:25:30", "ssrn_24:7:200"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for text in options.networks:
        name, patch, channels = text.split(":")
        rows.append(measured(name, int(patch), int(channels), options.rounds))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "scenes.json").write_text(json.dumps({"rows": rows, **described()}, indent=2) + "\n")
        write_page(options.out)


if __name__ == "__main__":
    main()
