import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

import collegium.data as data
from collegium.data.download import data_root
from collegium.data.hyperspectral import scenes
from collegium.data.hyperspectral.scene_splits import overlap, split_pixels
from collegium.errors import DataError, UsageError

SMALL = scenes.Scene(
    title="Toy",
    cube=("Toy.mat", "toy"),
    truth=("Toy_gt.mat", "toy_gt"),
    shape=(20, 24, 5),
    classes={2: ("Corn", 160), 7: ("Oats", 160)},
    colours=(4, 2, 0),
    urls={},
    source="https://example.org",
)


def write(folder: Path, **changes: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    truth = np.repeat([[2, 0, 7]], 8, axis=1).repeat(20, axis=0).astype(np.uint8)
    cube = (truth[..., None] * 10 + np.random.default_rng(0).integers(0, 9, (20, 24, 5))).astype(np.int16)
    scipy.io.savemat(folder / "Toy.mat", {"toy": changes.get("cube", cube)})
    scipy.io.savemat(folder / "Toy_gt.mat", {"toy_gt": changes.get("truth", truth)})


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(scenes.SCENES, "toy", SMALL)
    monkeypatch.setitem(data._LOADERS, "toy", scenes._loader("toy"))


@pytest.mark.parametrize("folder", ["hyperspectral", "."])
def test_a_published_scene_is_found_and_checked(tmp_path, folder):
    write(tmp_path / folder)
    loaded = data.load("toy", root=str(tmp_path), patch=3, per_class=5)
    assert loaded.class_names == ("Corn", "Oats") and loaded.image_shape == (5, 3, 3)
    assert loaded.train.targets.bincount().tolist() == [5, 5]
    assert data.load("toy", root=str(tmp_path), per_class=3, split_seed=1, validation=0.1).validation is not None


def test_a_published_scene_has_its_own_least_number_of_pixels(tmp_path, monkeypatch):
    write(tmp_path)
    published = replace(SMALL, classes={**SMALL.classes, 9: ("Rye", 12)}, min_pixels=13)
    truth = np.repeat([[2, 0, 7]], 8, axis=1).repeat(20, axis=0)
    truth[:3, 10:14] = 9
    write(tmp_path, truth=truth)
    monkeypatch.setitem(scenes.SCENES, "toy", published)
    monkeypatch.setitem(data._LOADERS, "toy", scenes._loader("toy"))
    assert data.options("toy")["min_pixels"] == 13
    loaded = data.load("toy", root=str(tmp_path), patch=3, per_class=3)
    assert (
        loaded.class_names == ("Corn", "Oats")
        and "fewer than 13 labelled pixels (min_pixels): Rye (12)." in loaded.notes[1]
    )
    every = data.load("toy", root=str(tmp_path), patch=3, per_class=3, min_pixels=0)
    assert every.class_names == ("Corn", "Oats", "Rye") and len(every.notes) == 1


def test_a_scene_takes_its_split_seed_as_other_data_sets_do(tmp_path):
    write(tmp_path)
    assert data.options("toy")["split_seed"] == data.options("cifar100")["split_seed"] == 0
    prints = {
        data.load("toy", root=str(tmp_path), patch=3, per_class=3, split_seed=seed).fingerprint() for seed in (0, 1, 2)
    }
    assert len(prints) == 3
    default = data.load("toy", root=str(tmp_path), patch=3, per_class=3)
    assert (
        default.fingerprint() == data.load("toy", root=str(tmp_path), patch=3, per_class=3, split_seed=0).fingerprint()
    )
    with pytest.raises(UsageError, match="the data option split_seed"):
        data.load("toy", root=str(tmp_path), split_seed="first")
    with pytest.raises(UsageError, match="the seed is -1"):
        data.load("toy", root=str(tmp_path), split_seed=-1)


def test_pixels_without_data_are_masked_in_files_too(tmp_path):
    write(tmp_path)
    cube = scipy.io.loadmat(tmp_path / "Toy.mat")["toy"]
    cube[:, 8:10], cube[0, 0] = -9999, -9999
    write(tmp_path, cube=cube)
    for name, root in (("toy", str(tmp_path)), (f"scene:{tmp_path}", None)):
        loaded = data.load(name, root=root, patch=3, per_class=3)
        assert loaded.notes[-1].startswith(
            "41 of 480 pixels have no data (a value that is not finite or -9999): 1 labelled"
        )
        assert data.load(name, root=root, patch=3, per_class=3, no_data=None).missing is None


def test_copies_with_another_variable_name_are_read(tmp_path):
    write(tmp_path)
    cube = scipy.io.loadmat(tmp_path / "Toy.mat")["toy"]
    scipy.io.savemat(tmp_path / "Toy.mat", {"ori_data": cube})
    assert data.load("toy", root=str(tmp_path), patch=3, per_class=5).in_channels == 5


def test_files_that_hold_something_else_are_refused(tmp_path):
    truth = np.repeat([[2, 0, 7]], 8, axis=1).repeat(20, axis=0)
    for changes, message in (
        (
            {"cube": np.ones((20, 24, 4))},
            r"hold arrays of shape \(20, 24, 4\) and .*, toy is published as \(20, 24, 5\)",
        ),
        ({"truth": truth.T}, r"and \(24, 20\), toy is published"),
        ({"truth": np.where(np.arange(24) == 0, 7, truth)}, "has 140 pixels of class 2, toy is published with 160"),
        ({"truth": truth - 1}, "not whole numbers from 0"),
        ({"truth": truth * 2}, "has 0 pixels of class 2"),
    ):
        write(tmp_path, **changes)
        with pytest.raises(DataError, match=message):
            data.load("toy", root=str(tmp_path))


def test_a_missing_scene_says_where_to_get_it_or_to_allow_the_download(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="Toy.mat of toy is not under .*get the scene from https://example.org"):
        data.load("toy", root=str(tmp_path))
    monkeypatch.setitem(scenes.SCENES, "toy", replace(SMALL, urls={"Toy.mat": "x", "Toy_gt.mat": "y"}))
    with pytest.raises(DataError, match="Toy.mat of toy is not under .*allow the download"):
        data.load("toy", root=str(tmp_path), download=False)


def test_a_scene_is_downloaded_where_its_owner_offers_it(tmp_path, monkeypatch):
    write(tmp_path / "owner")
    urls = {file: (tmp_path / "owner" / file).as_uri() for file in ("Toy.mat", "Toy_gt.mat")}
    monkeypatch.setitem(scenes.SCENES, "toy", replace(SMALL, urls=urls))
    data.load("toy", root=str(tmp_path / "root"), patch=3, per_class=5)
    assert sorted(p.name for p in (tmp_path / "root" / "hyperspectral").iterdir()) == ["Toy.mat", "Toy_gt.mat"]


def test_the_table_is_consistent():
    totals = {"indian_pines": 10249, "pavia_university": 42776, "salinas": 54129, "salinas_a": 5348, "ksc": 5211}
    totals |= {"botswana": 3248, "houston2013": 15029}
    for name, total in totals.items():
        published = scenes.SCENES[name]
        assert sum(count for _, count in published.classes.values()) == total
        assert len({class_name for class_name, _ in published.classes.values()}) == len(published.classes)
        assert max(published.colours) < published.shape[2]
        assert set(published.urls) in (set(), {published.cube[0], published.truth[0]})
        assert data.loader(name).__name__ == name and published.source in data.loader(name).__doc__


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_scene_of_ones_own(tmp_path, place):
    write(tmp_path)
    path = tmp_path
    if place == "file":
        path = tmp_path / "both.mat"
        arrays = scipy.io.loadmat(tmp_path / "Toy.mat") | scipy.io.loadmat(tmp_path / "Toy_gt.mat")
        scipy.io.savemat(path, {name: arrays[name] for name in ("toy", "toy_gt")})
    loaded = data.load(f"scene:{path}", patch=3, per_class=5)
    assert loaded.class_names == ("2", "7") and loaded.name == (tmp_path.name if place == "folder" else "both")


def test_which_arrays_are_meant_can_be_said(tmp_path):
    write(tmp_path)
    scipy.io.savemat(tmp_path / "extra.mat", {"other": np.ones((20, 24)), "more": np.ones((2, 3, 4))})
    with pytest.raises(DataError, match="2 arrays with 3 axes, not one"):
        data.load(f"scene:{tmp_path}")
    named = {"cube_file": "Toy.mat", "truth_file": "Toy_gt.mat", "cube_variable": "toy", "truth_variable": "toy_gt"}
    assert data.load(f"scene:{tmp_path}", patch=3, per_class=5, **named).in_channels == 5
    with pytest.raises(DataError, match="no variable toi"):
        data.load(f"scene:{tmp_path}", cube_variable="toi")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere is neither there nor under"):
        data.load("scene:nowhere", root=str(tmp_path))
    with pytest.raises(DataError, match="holds no .mat file"):
        data.load(f"scene:{tmp_path}")


def need(*files: str) -> None:
    folder = data_root(None) / "hyperspectral"
    if not os.environ.get("COLLEGIUM_DATA") or not all((folder / file).is_file() for file in files):
        pytest.skip(f"needs {' and '.join(files)} in COLLEGIUM_DATA/hyperspectral")


@pytest.mark.hyperspectral
def test_the_real_salinas_a_is_as_published():
    need("SalinasA_corrected.mat", "SalinasA_gt.mat")
    loaded = data.load("salinas_a", per_class=10, block=16, download=False)
    assert loaded.image_shape == (204, 9, 9) and loaded.num_classes == 6
    assert loaded.train.targets.bincount().tolist() == [10] * 6
    assert "0 of 2,229 test pixels lie inside a training patch" in loaded.notes[0]


@pytest.mark.hyperspectral
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "28039a5326508ca8"),
        ({"per_class": 10, "patch": 7, "pca": 15, "block": 16}, "fd7ffd4aab03f0f7"),
        ({"per_class": 5, "patch": 7, "pca": 15, "block": 16, "split_seed": 9}, "2887196d02066740"),
        ({"per_class": 20, "patch": 1, "block": 16, "split_seed": 3}, "68d48e3464642641"),
    ],
)
def test_the_splits_that_results_were_measured_on_stay_as_they_were(options, expected):
    need("SalinasA_corrected.mat", "SalinasA_gt.mat")
    assert data.load("salinas_a", download=False, **options).fingerprint() == expected


RARE = ("Alfalfa", "Grass-pasture-mowed", "Oats", "Stone-Steel-Towers")


@pytest.mark.hyperspectral
def test_the_real_indian_pines_loads_by_default_and_says_what_is_left_out():
    need("Indian_pines_corrected.mat", "Indian_pines_gt.mat")
    loaded = data.load("indian_pines", download=False)
    assert loaded.image_shape == (200, 9, 9) and loaded.num_classes == 12
    assert not set(RARE) & set(loaded.class_names)
    assert loaded.notes[1] == (
        "4 of 16 classes are left out, as they have fewer than 100 labelled pixels (min_pixels): Alfalfa (46), "
        "Grass-pasture-mowed (28), Oats (20), Stone-Steel-Towers (93)."
    )


@pytest.mark.hyperspectral
@pytest.mark.parametrize("per_class", [5, 10, 20])
@pytest.mark.parametrize(("block", "patch"), [(None, 9), (2, 3), (3, 5), (4, 7), (5, 9), (6, 11), (8, 5), (8, 11)])
def test_every_seed_splits_the_real_indian_pines(block, patch, per_class):
    need("Indian_pines_gt.mat")
    truth = scipy.io.loadmat(data_root(None) / "hyperspectral" / "Indian_pines_gt.mat")["indian_pines_gt"]
    frequent = np.flatnonzero(np.bincount(truth.ravel())[1:] >= scenes.SCENES["indian_pines"].min_pixels) + 1
    lookup = np.full(17, -1)
    lookup[frequent] = np.arange(len(frequent))
    classes = torch.from_numpy(lookup[truth])
    settings = {"kind": "disjoint", "train_share": 0.1, "validation": 0.0, "patch": patch, "block": block}
    for seed in range(40 if per_class == 5 else 5):
        dealt = split_pixels(classes, per_class=per_class, seed=seed, **settings)
        assert classes.flatten()[dealt.train].bincount().tolist() == [per_class] * 12
        assert classes.flatten()[dealt.test].bincount(minlength=12).min() > 0
        assert overlap(dealt, truth.shape, patch)[0] == 0


@pytest.mark.hyperspectral
def test_all_classes_of_the_real_indian_pines_can_be_kept():
    need("Indian_pines_corrected.mat", "Indian_pines_gt.mat")
    loaded = data.load("indian_pines", download=False, min_pixels=0, per_class=5, patch=5, block=4)
    assert loaded.num_classes == 16 and loaded.train.targets.bincount().tolist() == [5] * 16
    assert loaded.test.targets.bincount(minlength=16).min() > 0
    with pytest.raises(UsageError, match="class Oats has .*, not 20: .*min_pixels of a scene"):
        data.load("indian_pines", download=False, min_pixels=0, per_class=20, patch=5, split="random")
