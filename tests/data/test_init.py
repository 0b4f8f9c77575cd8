import subprocess
import sys
from typing import get_type_hints

import pytest
import torch

import collegium.data as data
from collegium.data import Augmentation, Split, from_arrays
from collegium.errors import DataError, UsageError
from collegium.options import check_kind, described_in


def test_names_and_loaders_agree():
    assert {"cifar10", "cifar100", "cinic10", "digits", "imagenet", "tiny_imagenet"} <= set(data.names())
    assert {"folder:PATH", "huggingface:NAME", "torchvision:NAME"} <= set(data.names())
    assert [data.loader(name).__name__ for name in data.names()] == [name.partition(":")[0] for name in data.names()]
    assert data.names() == sorted(data.names())


def test_every_option_is_typed_and_told():
    kinds = ("folder:x", "huggingface:x", "scene:x", "spectra:x", "torchvision:x")
    for name in (*kinds, *(name for name in data.names() if ":" not in name)):
        function = data.loader(name)
        told = "".join(described.__doc__ or "" for described in described_in(function))
        for option, default in data.own_options(name).items():
            check_kind(option, default, get_type_hints(function)[option])
            assert f"\n        {option}: " in told, f"{name} does not tell of {option}"


def test_a_kind_of_data_set_needs_what_follows_the_colon():
    for name in ("folder", "folder:", "cifar10:x"):
        with pytest.raises(UsageError, match=f"no data set '{name}'; write "):
            data.loader(name)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="no data set 'cifar1000'; did you mean 'cifar100'"):
        data.loader("cifar1000")


def test_an_unknown_option_is_refused_with_the_options_there_are():
    with pytest.raises(UsageError, match="cifar10 has no option 'rot'; its options are: root, download"):
        data.load("cifar10", rot="here")
    with pytest.raises(UsageError, match="digits has no option 'root'; it has none of its own"):
        data.load("digits", root="here")


def test_options_reach_the_loader(tmp_path):
    with pytest.raises(DataError, match=f"cifar10 is not at {tmp_path}"):
        data.load("cifar10", root=str(tmp_path), download=False)


def test_the_subset_is_taken_after_validation_images_are_held_out():
    held = data.load("digits", validation=0.2)
    small = data.load("digits", validation=0.2, per_class=10)
    assert held.validation is not None and small.validation is not None
    assert torch.equal(small.validation.images, held.validation.images)
    assert len(held.train) + len(held.validation) == 1347
    assert small.train.targets.bincount().tolist() == [10] * 10
    assert len(small.test) == 450

    def rows(split: Split) -> set[bytes]:
        return {image.numpy().tobytes() for image in split.images}

    assert rows(small.train) <= rows(held.train)
    assert not rows(small.train) & rows(small.validation)
    assert (small.mean, small.std) == (held.mean, held.std)


def test_the_split_seed_chooses_the_images():
    images = [data.load("digits", per_class=10, split_seed=seed).train.images for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_augmentation_fields_are_overridden_one_by_one():
    assert data.load("digits").augmentation == Augmentation(1, "zeros", False)
    assert data.load("digits", padding=0).augmentation == Augmentation(0, "zeros", False)
    assert data.load("digits", padding_mode="reflect").augmentation == Augmentation(1, "reflect", False)
    assert data.load("digits", flip=True).augmentation == Augmentation(1, "zeros", True)
    with pytest.raises(UsageError, match="padding 16 is too much for images of 16 x 16"):
        data.load("digits", padding=16, padding_mode="reflect")


def test_values_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="fraction between 0 and 1"):
        data.load("digits", validation=1.0)
    with pytest.raises(UsageError, match=r"class \d has 13\d images"):
        data.load("digits", per_class=135)


def test_a_data_set_with_its_own_validation_images_keeps_them(monkeypatch):
    pair = (torch.randint(0, 256, (4, 3, 3), dtype=torch.uint8), torch.arange(4) % 2)
    toy = from_arrays(pair, pair, validation=pair)
    monkeypatch.setitem(data._LOADERS, "toy", lambda: toy)
    assert data.load("toy").validation is toy.validation
    with pytest.raises(UsageError, match="validation images of its own"):
        data.load("toy", validation=0.5)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torchvision", "sklearn", "matplotlib", "rich", "datasets", "PIL"}
    code = f"import sys, collegium.data; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar100", {"labels": "fine", "label_noise": 0.0}, "cifar100"),
        ("cifar100", {"labels": "human_coarse"}, "cifar100 (human_coarse labels)"),
        ("digits", {"label_noise": 0.2, "noise_kind": "symmetric"}, "digits (20 % wrong labels)"),
        (
            "cifar100",
            {"labels": "coarse", "label_noise": 0.25, "noise_kind": "pair"},
            "cifar100 (coarse labels, 25 % wrong labels, each the next class)",
        ),
    ],
)
def test_a_title_tells_which_labels_train(name, options, said):
    assert data.title(name, options) == said
