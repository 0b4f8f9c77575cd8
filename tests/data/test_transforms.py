"""The user's own change of training images."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import collegium
from collegium.data import (
    Augmentation,
    ClassificationData,
    Share,
    StreamedData,
    StreamedSplit,
    Views,
    from_arrays,
    load,
)
from collegium.data.decoding.source import Source
from collegium.data.transforms import named_transform, transform_name
from collegium.errors import UsageError
from collegium.user_code import Untrusted

CPU = torch.device("cpu")
LABELS = torch.arange(24) % 3


def noisy(image: Tensor) -> Tensor:
    """Draws from all three generators."""
    drawn = torch.randint(8, image.shape) + np.random.randint(8) + random.randrange(8)
    return (image // 2 + drawn).to(torch.uint8)


class Dark(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image // 4


def in_memory(**changes: object) -> ClassificationData:
    images = np.arange(24, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    settings = dict(augmentation=Augmentation(1), transform=noisy) | changes
    return from_arrays((images, LABELS.numpy()), (images, LABELS.numpy()), **settings)


class Grey(Source):
    def __len__(self) -> int:
        return 24

    def pixels(self, index: int) -> Tensor:
        return torch.full((3, 10, 10), index, dtype=torch.uint8)

    def fingerprint(self, indices: Tensor) -> str:
        return str(indices.tolist())


def streamed(**changes: object) -> ClassificationData:
    split, three = StreamedSplit.of(Grey(), LABELS), dict(class_names=("a", "b", "c"), mean=(0.0,) * 3, std=(1.0,) * 3)
    settings = dict(name="grey", train=split, test=split, channels=3, views=Views((8, 8)), transform=noisy, **three)
    return StreamedData(**(settings | {"workers": 0} | changes))


MAKERS = [in_memory, streamed]


def batches(data: ClassificationData, epoch: int = 0, first_step: int = 0, **plan: object) -> list[Tensor]:
    torch.manual_seed(first_step)  # what came before does not matter
    made = data.training_batches(batch_size=4, seed=0, device=CPU, **plan)
    return [images for images, _ in made.epoch(epoch, first_step)]


@pytest.mark.parametrize("make", MAKERS)
def test_training_images_are_changed_and_scored_ones_are_not(make) -> None:
    dark, plain = make(transform=Dark()), make(transform=None)
    for images, other in zip(batches(dark), batches(plain), strict=True):
        level = dark.std[0] * images[:, :1] + dark.mean[0]
        expected = ((plain.std[0] * other[:, :1] + plain.mean[0]) * 255).round() // 4 / 255
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=0)
    for data in (dark, plain):
        ((images, _),) = data.scoring_batches(data.test, batch_size=24, device=CPU).epoch(0)
        assert len(images.unique()) == 24
    assert "Training images are changed by module:" in dark.notes[-1] and dark.notes[-1].endswith(".Dark.")
    assert not any("not augmented" in note for note in in_memory(augmentation=None).notes)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("make", MAKERS)
def test_epochs_go_on_and_are_shared_bit_for_bit(make, views: int) -> None:
    data = make()
    whole = batches(data, 1, views=views)
    for images, again in zip(whole[3:], batches(data, 1, 3, views=views), strict=True):
        assert torch.equal(images, again)
    parts = [batches(data, 1, views=views, share=Share(k, 2)) for k in range(2)]
    for images, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat(halves, 0 if views == 1 else 1))
    assert not torch.equal(whole[0], batches(data, 2, views=views)[0])
    if views == 2:
        assert not any(torch.equal(images[0], images[1]) for images in whole)


def test_workers_make_the_same_images() -> None:
    data = streamed()
    for images, again in zip(batches(data), batches(replace(data, workers=2)), strict=True):
        assert torch.equal(images, again)


def test_the_training_process_keeps_its_own_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made = in_memory().training_batches(batch_size=4, seed=0, device=CPU)
    list(made.epoch(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("make", MAKERS)
def test_a_transform_is_part_of_the_fingerprint(make) -> None:
    assert len({make(transform=t).fingerprint() for t in (None, noisy, Dark())}) == 3


def fails(image: Tensor) -> Tensor:
    raise KeyError("my table")


def floats(image: Tensor) -> Tensor:
    return image / 255


def nothing(image: Tensor) -> None:
    pass


@pytest.mark.parametrize("workers", [None, 0, 1])
@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (fails, "fails raised KeyError: 'my table'"),
        (floats, r"floats made torch.float32 of shape \(3, 8, 8\) of an image uint8 of shape \(3, 8, 8\)"),
        (nothing, "nothing made a NoneType of an image"),
    ],
)
def test_what_a_transform_may_not_do_ends_in_one_sentence(workers, transform, sentence: str) -> None:
    data = in_memory(transform=transform) if workers is None else streamed(transform=transform, workers=workers)
    with pytest.raises(UsageError, match=sentence):
        batches(data)


def test_names() -> None:
    assert transform_name(noisy).endswith(".noisy") and transform_name(Dark()).endswith(".Dark")
    assert transform_name(partial(noisy)) == "module:functools.partial"
    with pytest.raises(UsageError, match="write module:package.function"):
        named_transform("noisy")


def test_patches_of_a_scene_have_none() -> None:
    cube = np.random.default_rng(0).normal(size=(20, 20, 4))
    scene = collegium.data.from_scene(cube, np.arange(400).reshape(20, 20) % 4, patch=3, split="random", per_class=20)
    with pytest.raises(UsageError, match="patches of a scene, which no transform changes"):
        replace(scene, transform=noisy)


def test_a_run_names_the_user_s_function_and_needs_trust_to_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "darkening_code.py").write_text("def dark(image):\n    return image // 2\n")
    monkeypatch.chdir(tmp_path)
    data = {"name": "digits", "per_class": 4, "transform": "module:darkening_code.dark"}
    result = collegium.train(
        method="independent", peers="resnet8", data=data, epochs=1, batch_size=8, quiet=True, device="cpu", run="run"
    )
    assert result["notes"] == ["Training images are changed by module:darkening_code.dark."]
    assert "transform: module:darkening_code.dark" in (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(Untrusted, match="darkening_code.dark is code that a file names"):
        collegium.evaluate("run")
    assert collegium.evaluate("run", trust=True)["peer0"] == result["predictors"]["peer0"]["last"]
    with pytest.raises(Untrusted):
        load("digits", transform="module:darkening_code.dark")
