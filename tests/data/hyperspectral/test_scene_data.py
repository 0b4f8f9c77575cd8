import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from collegium.data import from_scene
from collegium.data.hyperspectral.scene_data import SceneData
from collegium.errors import DataError, UsageError
from collegium.tiles import Tile

CPU = torch.device("cpu")


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A scene of 24 x 30 pixels and 6 bands with classes 3, 5 and 9 in stripes, and a stripe without."""
    truth = np.repeat([[0, 3, 5, 9, 3]], 6, axis=1).repeat(24, axis=0).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(size=(24, 30, 6))
    return (1000 + 100 * truth[..., None] * np.arange(6) + 50 * noise).astype(np.int16), truth


def make(**options: object) -> SceneData:
    cube, truth = options.pop("arrays", arrays())
    return from_scene(cube, truth, **({"patch": 5, "per_class": 4} | options))  # type: ignore[arg-type]


def test_classes_are_the_values_in_rising_order():
    data = make()
    assert data.class_names == ("3", "5", "9") and data.image_shape == (6, 5, 5)
    lookup = {0: -1, 3: 0, 5: 1, 9: 2}
    assert data.ground_truth.tolist() == [[lookup[v] for v in row] for row in arrays()[1].tolist()]
    for split in data.splits.values():
        assert torch.equal(split.targets, data.ground_truth.flatten()[split.positions])
    assert data.train.targets.bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize("split", ["disjoint", "random"])
@pytest.mark.parametrize("pca", [None, 3])
def test_statistics_and_components_see_training_pixels_alone(split, pca):
    data = make(split=split, pca=pca)
    cube, truth = arrays()
    other = np.random.default_rng(1).integers(-9999, 9999, cube.shape).astype(np.int16)
    kept = other.reshape(-1, 6)
    kept[data.train.positions] = cube.reshape(-1, 6)[data.train.positions]
    changed = make(split=split, pca=pca, arrays=(other, truth))
    assert torch.equal(changed.train.positions, data.train.positions)
    assert (changed.mean, changed.std) == (data.mean, data.std)
    if pca:
        assert torch.equal(changed.components.directions, data.components.directions)
        assert torch.equal(changed.components.centre, data.components.centre)
    kept[data.train.positions[0]] += 500
    assert make(split=split, pca=pca, arrays=(other, truth)).mean != data.mean


def test_training_pixels_are_normalised_to_mean_0_and_deviation_1():
    data = make(patch=1, per_class=20)
    ((patches, _),) = data.training_batches(batch_size=60, seed=0, device=CPU).epoch(0)
    spectra = patches[:, :, 0, 0].double()
    torch.testing.assert_close(spectra.mean(0), torch.zeros(6).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(spectra.var(0, correction=0), torch.ones(6).double(), atol=1e-4, rtol=0)


def test_what_the_config_says_gives_the_same_patch():
    data = make(bands="1-5", pca=2, normalise="scene")
    told = json.loads(json.dumps(data.preprocessing()))
    assert (told["patch"], told["image_size"], told["border"]) == (5, [5, 5], "mirrored")
    cube = arrays()[0][..., told["bands"]].astype(np.float64)
    channels = (cube - told["components"]["centre"]) @ np.array(told["components"]["directions"]).T
    channels = (channels - told["mean"]) / told["std"]
    padded = np.pad(channels, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    row, column = divmod(int(data.test.positions[0]), 30)
    expected = padded[row : row + 5, column : column + 5].transpose(2, 0, 1)
    patches, _ = next(data.scoring_batches(data.test, batch_size=3, device=CPU).epoch(0))
    np.testing.assert_allclose(patches[0], expected, rtol=1e-3, atol=1e-4)
    assert make().preprocessing()["components"] is None


def test_bands_are_picked():
    data = make(bands=[4, 1])
    assert data.bands == (4, 1) and data.in_channels == 2
    np.testing.assert_array_equal(data.cube.numpy(), arrays()[0][..., [4, 1]].astype(np.float32))


def test_training_patches_are_turned_and_test_patches_never():
    data = make()
    plain, turned = replace(data, turn=False), data
    first, second = (
        torch.cat([images for images, _ in d.training_batches(batch_size=6, seed=0, device=CPU).epoch(0)])
        for d in (plain, turned)
    )
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum((2, 3)), second.sum((2, 3)))
    one, two = (next(d.scoring_batches(d.test, batch_size=9, device=CPU).epoch(0))[0] for d in (plain, turned))
    assert torch.equal(one, two)


def test_the_whole_scene_comes_row_by_row():
    data = make()
    tiles, parts = zip(*data.scene_tiles(batch_size=100, device=CPU).epoch(0), strict=True)
    patches, targets = torch.cat([tile.patches for tile in tiles]), torch.cat(parts)
    assert torch.equal(targets.view(24, 30), data.ground_truth)
    torch.testing.assert_close(patches[:, :, 2, 2].view(24, 30, 6), data.normalised)


def test_large_patches_are_scored_in_smaller_batches(monkeypatch):
    monkeypatch.setattr("collegium.data.hyperspectral.patches.SCORING_BYTES", 7 * 4 * 6 * 25)
    data = make()
    sizes = [len(t) for _, t in data.scoring_batches(data.test, batch_size=500, device=CPU).epoch(0)]
    assert set(sizes[:-1]) == {7} and sum(sizes) == len(data.test)


@pytest.mark.parametrize("channels_last", [True, False])
def test_tiles_hold_the_patches_of_a_split_in_its_order(channels_last):
    data = make()
    split = data.test.subset(torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:200])
    given = {"batch_size": 70, "device": CPU, "channels_last": channels_last}
    tiles, apart = data.tiles(split, **given), data.scoring_batches(split, **given)
    assert len(tiles) == len(apart) == 3
    for first in (0, 1):
        for (tile, classes), (patches, targets) in zip(tiles.epoch(0, first), apart.epoch(0, first), strict=True):
            assert isinstance(tile, Tile) and tile.pixels.is_contiguous() is not channels_last
            assert torch.equal(tile.patches, patches) and torch.equal(classes, targets)


def test_patches_that_have_fewer_pixels_than_their_tile_come_one_by_one():
    data = make()
    far = data.test.subset(torch.tensor([0, len(data.test) - 1]))
    ((images, _),) = data.tiles(far, batch_size=9, device=CPU).epoch(0)
    ((patches, _),) = data.scoring_batches(far, batch_size=9, device=CPU).epoch(0)
    assert torch.equal(images, patches)
    spectra = make(patch=1)
    assert all(isinstance(images, torch.Tensor) for images, _ in spectra.scene_tiles(batch_size=9, device=CPU).epoch(0))


def test_pictures_are_false_colour_patches_in_order():
    data = make(colour_bands=(5, 3, 1))
    pictures = data.pictures(data.test.subset(torch.tensor([3, 1])))
    assert pictures.shape == (2, 3, 5, 5) and pictures.dtype == torch.uint8
    row, column = divmod(int(data.test.positions[1]), 30)
    assert torch.equal(pictures[1, :, 2, 2], data.false_colour()[:, row, column])
    red = data.false_colour()[0].float()
    assert red[:, :6].mean() < red[:, 18:24].mean()  # class 9 is the brightest


def test_the_split_table_has_every_pixel_that_is_used():
    data = make(validation=0.1)
    rows = list(csv.DictReader(io.StringIO(data.split_table())))
    for name, split in data.splits.items():
        of_split = [row for row in rows if row["split"] == name]
        assert [int(r["row"]) * 30 + int(r["column"]) for r in of_split] == split.positions.tolist()
        assert [r["class"] for r in of_split] == [data.class_names[t] for t in split.targets]
    assert len(rows) == sum(map(len, data.splits.values()))


def test_the_fingerprint_tells_scenes_splits_and_settings_apart():
    prints = [
        make().fingerprint(),
        make(split_seed=1).fingerprint(),
        make(patch=3).fingerprint(),
        make(turn=False).fingerprint(),
        make(arrays=arrays(1)).fingerprint(),
        make(pca=2).fingerprint(),
        make(normalise="scene").fingerprint(),
        make(bands="0-4").fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert make().fingerprint() == prints[0]


def test_the_note_says_how_far_patches_overlap():
    (note,) = make().notes
    assert "0 of" in note and "lie inside a training patch of 5 x 5 pixels" in note
    assert make(split="random").notes[0].startswith("Pixels were split at random")


def test_classes_with_few_pixels_are_left_out_where_that_is_asked_for():
    cube, truth = arrays()
    truth[:4, :6], truth[20:, :6] = 12, 13
    names = ("corn", "oats", "hay", "rye", "wheat")
    data = make(arrays=(cube, truth), class_names=names, min_pixels=25, patch=3)
    assert data.class_names == ("corn", "oats", "hay")
    assert not (data.ground_truth.numpy()[truth >= 12] >= 0).any()
    assert data.notes[1] == (
        "2 of 5 classes are left out, as they have fewer than 25 labelled pixels (min_pixels): rye (24), wheat (24)."
    )
    truth[truth >= 12] = 0
    assert make(arrays=(cube, truth), class_names=names[:3], patch=3).fingerprint() == data.fingerprint()
    assert len(make(min_pixels=144, patch=3).notes) == 1  # exactly so many are enough


def test_a_rare_class_is_kept_by_default():
    cube, truth = arrays()
    truth[10:14, :6] = 12
    assert make(arrays=(cube, truth), patch=3).class_names == ("3", "5", "9", "12")


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999])
def test_pixels_without_data_are_neither_trained_on_nor_tested_nor_measured(value):
    cube, truth = arrays()
    hole = np.zeros((24, 30), dtype=bool)
    hole[:, :2] = hole[3:9, 12:20] = True  # unlabelled and labelled ones
    torn = cube.astype(np.float32)
    torn[hole, 2] = value  # in one of the bands
    data = make(arrays=(torn, truth), pca=2)
    assert torch.equal(data.missing, torch.from_numpy(hole))
    assert (data.ground_truth[data.missing] == -1).all()
    for split in data.splits.values():
        assert not data.missing.flatten()[split.positions].any()
    expected = make(arrays=(cube.astype(np.float32), np.where(hole, 0, truth)), pca=2)
    assert (data.mean, data.std) == (expected.mean, expected.std)
    assert torch.equal(data.train.positions, expected.train.positions)
    torch.testing.assert_close(data.normalised[data.missing], torch.zeros(96, 2), atol=1e-5, rtol=0)
    assert torch.equal(data.normalised[~data.missing], expected.normalised[~data.missing])
    assert data.notes[-1] == (
        "96 of 720 pixels have no data (a value that is not finite or -9999): 48 labelled ones among them are left "
        "out, and patches hold the mean in their place."
    )


def test_what_stands_for_no_data_can_be_said():
    cube, truth = arrays()
    cube[:3, :3] = 0
    assert make(arrays=(cube, truth)).missing is None
    assert int(make(arrays=(cube, truth), no_data=0).missing.sum()) == 9
    cube[0, 0] = -9999
    assert make(arrays=(cube, truth), no_data=None).missing is None
    assert int(make(arrays=(cube, truth)).missing.sum()) == 1


def test_a_band_without_data_is_named_and_can_be_left_out():
    cube, truth = arrays()
    cube = cube.astype(np.float32)
    cube[..., 4] = np.nan
    with pytest.raises(DataError, match="band 4 has none anywhere, leave it out with bands"):
        make(arrays=(cube, truth))
    data = make(arrays=(cube, truth), bands="0-3,5", colour_bands=(4, 1, 0))
    assert data.missing is None and len(data.notes) == 1
    assert not data.false_colour().any()  # one of its bands has no data


def test_pixels_without_data_are_black_and_do_not_stretch_the_colours():
    cube, truth = arrays()
    torn = cube.copy()
    torn[:2] = -9999
    colours = make(arrays=(torn, truth)).false_colour()
    assert not colours[:, :2].any()
    assert torch.equal(colours[:, 2:], make(arrays=(cube[2:], truth[2:])).false_colour())


def test_a_class_without_any_data_is_left_out():
    cube, truth = arrays()
    cube = np.where((truth == 5)[..., None], np.nan, cube)
    data = make(arrays=(cube, truth))
    assert data.class_names == ("3", "9")
    assert "1 of 3 classes are left out, as they have fewer than 1 labelled pixels (min_pixels): 5 (0)." in data.notes


def test_another_networks_normalisation_can_be_taken_over():
    data = make().normalised_like((0.0,) * 6, (2.0,) * 6)
    torch.testing.assert_close(data.normalised, data.cube / 2)


@pytest.mark.parametrize(
    ("cube", "truth", "message"),
    [
        (np.ones((4, 5)), np.ones((4, 5)), r"expected \(H, W, bands\) and \(H, W\)"),
        (
            np.ones((4, 5, 2)),
            np.ones((6, 5)),
            "has 4 x 5 pixels, its ground truth 6 x 5: give two that belong together",
        ),
        (np.ones((4, 5, 2)), np.ones((5, 4)), "belong together; one of them is transposed"),
        (
            np.full((4, 5, 2), np.nan),
            np.eye(4, 5) + 1,
            "no pixel of scene has data in all of its bands: band 0 has none",
        ),
        (np.ones((4, 5, 2)), np.full((4, 5), 0.5), "values that are not whole numbers from 0 on"),
        (np.ones((4, 5, 2)), np.full((4, 5), -1), "values that are not whole numbers from 0 on"),
        (np.ones((4, 5, 2)), np.full((4, 5), np.nan), "values that are not whole numbers from 0 on"),
        (np.ones((4, 5, 2)), np.eye(4, 5), "has 1 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(cube, truth, message):
    with pytest.raises(DataError, match=message):
        from_scene(cube, truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 6}, "give an odd side"),
        ({"class_names": ("a", "b")}, "3 classes and 2 class names"),
        ({"pca": 40}, "40 principal components cannot be fitted to 12 training pixels"),
        ({"bands": "7"}, "there is no band 7"),
        ({"min_pixels": -1}, "min_pixels is -1"),
        ({"min_pixels": 145}, "1 classes of scene have 145 labelled pixels, and 2 are needed: .* at most 144"),
        ({"split": "random", "per_class": 144}, r"class 5 has 143 pixels to train on, not 144: .*min_pixels"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make(**options)


def test_splits_that_overlap_or_leave_the_scene_are_refused():
    data = make()
    with pytest.raises(UsageError, match="in two splits, or twice in one"):
        replace(data, test=data.train)
    outside = replace(data.test, positions=data.test.positions + 24 * 30)
    with pytest.raises(UsageError, match="lies outside its scene of 24 x 30 pixels"):
        replace(data, test=outside)
    with pytest.raises(UsageError, match="the ground truth of scene is"):
        replace(data, ground_truth=data.ground_truth[:3])
