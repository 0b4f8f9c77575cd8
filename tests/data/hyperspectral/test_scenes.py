import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io

import collegium.data as data
from collegium.data.download import data_root
from collegium.data.hyperspectral import scenes
from collegium.errors import DataError

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


@pytest.mark.hyperspectral
def test_the_real_salinas_a_is_as_published():
    if not os.environ.get("COLLEGIUM_DATA") or not (data_root(None) / "hyperspectral" / "SalinasA_gt.mat").is_file():
        pytest.skip("needs SalinasA_corrected.mat and SalinasA_gt.mat in COLLEGIUM_DATA/hyperspectral")
    loaded = data.load("salinas_a", per_class=10, block=16, download=False)
    assert loaded.image_shape == (204, 9, 9) and loaded.num_classes == 6
    assert loaded.train.targets.bincount().tolist() == [10] * 6
    assert "0 of 2,229 test pixels lie inside a training patch" in loaded.notes[0]
