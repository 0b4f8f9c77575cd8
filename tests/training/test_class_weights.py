"""Classes of unequal size: weights in the cross-entropy, and balanced draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_same_run, killed, run, tiny
from PIL import Image

import collegium
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.networks import build as network
from collegium.training.experiment import build, weigh_classes


def skewed(counts: tuple[int, ...]) -> collegium.data.ImageData:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    images = random.integers(0, 256, (len(labels), 8, 8, 1), dtype=np.uint8)
    return collegium.from_arrays((images, labels), (images, labels), name="skewed")


def test_balanced_weights_by_hand() -> None:
    data = skewed((6, 3, 1))
    weights, notes = weigh_classes(tiny(class_weights="balanced"), data)
    assert weights == pytest.approx((10 / 18, 10 / 9, 10 / 3))  # N / (K n)
    assert notes == ["The cross-entropy with labels is weighted by class, from 0.556 for 0 to 3.33 for 2."]
    assert weigh_classes(tiny(), data) == (None, [])
    assert weigh_classes(tiny(class_weights=[1, 0, 2]), data)[0] == (1, 0, 2)
    _, (note,) = weigh_classes(tiny(sampling="balanced"), data)
    assert note.startswith("An epoch draws 10 training images with replacement, 3.33 of each class on average")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1.0, 2.0], "class_weights has 2 weights for 10 classes"),
        ([0.0] * 10, "class_weights must be 0 or more, and not all 0"),
        ([-1.0] + [1.0] * 9, "class_weights must be 0 or more"),
        ("some", "class_weights must be one of balanced or a list of numbers or nothing"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(tiny(class_weights=weights))


@pytest.mark.parametrize("method", ["independent", "dml", "ffl", "kdcl", "dualnet", "switokd"])
def test_the_weights_scale_the_labels_terms_and_no_others(method: str) -> None:
    """All weights alike scale every term of the cross-entropy by them."""
    torch.manual_seed(0)
    peers = [network("resnet8", num_classes=3, in_channels=1) for _ in range(2)]
    images, target = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    terms = []
    for weights in (None, [2.0, 2.0, 2.0]):
        torch.manual_seed(1)
        learner = Distiller(method, peers, image_shape=(1, 8, 8), num_classes=3, class_weights=weights)
        assert "class_weights" not in learner.state_dict()
        terms.append(learner.eval()(images, target, 0.9).terms)
    plain, weighted = terms
    assert any("ce" in name for name in plain)
    for name, value in plain.items():
        factor = 2 if name.rpartition("/")[2].startswith(("ce", "hard")) else 1
        torch.testing.assert_close(weighted[name], factor * value)


def test_a_compiled_step_has_the_weights_too() -> None:
    torch.manual_seed(0)
    peers = [network("resnet8", num_classes=3, in_channels=1) for _ in range(2)]
    weights = [0.5, 1.0, 4.0]
    learner = Distiller("dml", peers, image_shape=(1, 8, 8), num_classes=3, class_weights=weights).eval()
    images, target = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    compiled = torch.compile(learner, backend="eager", fullgraph=True)
    for _ in range(2):
        expected, found = (f(images, target, torch.tensor(0.5)).terms["ce"] for f in (learner, compiled))
        torch.testing.assert_close(found, expected)


OPTIONS = {"class_weights": "balanced", "sampling": "balanced"}


def test_a_weighted_and_balanced_run_that_is_stopped_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(tmp_path / "whole", **OPTIONS)
    assert any("weighted by class" in note for note in result["notes"])
    killed(tmp_path / "run", (1, 2), monkeypatch, **OPTIONS)
    run(tmp_path / "run", **OPTIONS)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def draw(folder: Path, counts: tuple[int, int], seed: int) -> None:
    """Noisy grey squares, those of the rare class a little brighter."""
    random = np.random.default_rng(seed)
    for name, count, level in (("often", counts[0], 110), ("rare", counts[1], 140)):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = np.clip(random.normal(level + random.normal(0, 18), 10, (12, 12, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{k}.png")


def test_in_a_skewed_folder_the_rare_class_is_found_more_often(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "train", (190, 10), seed=0)
    draw(tmp_path / "data" / "test", (60, 60), seed=1)
    recall = {}
    for name, options in {
        "plain": {},
        "weights": {"class_weights": "balanced"},
        "draws": {"sampling": "balanced"},
    }.items():
        result = collegium.train(
            method="independent",
            peers="resnet8",
            data=f"folder:{tmp_path / 'data'}",
            epochs=6,
            batch_size=20,
            learning_rate=0.02,
            quiet=True,
            device="cpu",
            run=tmp_path / name,
            **options,
        )
        recall[name] = result["class_accuracy"]["peer0"][1]
    assert recall["weights"] > recall["plain"] + 0.2
    assert recall["draws"] > recall["plain"] + 0.2
