import numpy as np
import pytest
import scipy.io
import torch

import collegium.data as data
from collegium.errors import DataError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path):
    """45 spectra of 8 bands in classes 1, 2 and 4, as Houston13_train.mat has them."""
    labels = np.repeat([1, 2, 4], [20, 15, 10]).astype(np.uint8)
    spectra = (labels[:, None] + np.random.default_rng(0).normal(size=(45, 8))).astype(np.float32)
    (tmp_path / "hyperspectral").mkdir()
    path = tmp_path / "hyperspectral" / "Toy_train.mat"
    scipy.io.savemat(path, {"x": spectra, "y": labels[None]})
    return path


def test_spectra_are_patches_of_one_pixel(file):
    loaded = data.load(f"spectra:{file}")
    assert loaded.name == "Toy_train" and loaded.image_shape == (8, 1, 1) and loaded.class_names == ("1", "2", "4")
    assert loaded.train.targets.bincount().tolist() == [14, 10, 7]
    assert loaded.test.targets.bincount().tolist() == [6, 5, 3]
    (batch,) = loaded.training_batches(batch_size=31, seed=0, device=CPU).epoch(0)
    torch.testing.assert_close(batch[0].mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    raw = scipy.io.loadmat(file)["x"]
    np.testing.assert_array_equal(loaded.cube[:, 0].numpy(), raw)
    assert loaded.pictures(loaded.test).shape == (14, 3, 1, 1)
    assert "does not say where" in loaded.notes[0]


def test_a_file_is_found_under_the_root_and_options_are_kept(file):
    root = str(file.parent.parent)
    loaded = data.load("spectra:Toy_train.mat", root=root, per_class=2, validation=0.2, pca=3, bands="0-5")
    assert loaded.train.targets.bincount().tolist() == [2, 2, 2]
    assert loaded.validation.targets.bincount().tolist() == [4, 3, 2]
    assert loaded.image_shape == (3, 1, 1) and loaded.bands == (0, 1, 2, 3, 4, 5)


def test_statistics_see_training_spectra_alone(file):
    before = data.load(f"spectra:{file}")
    content = scipy.io.loadmat(file)
    content["x"][before.test.positions] = 99
    scipy.io.savemat(file, {"x": content["x"], "y": content["y"]})
    after = data.load(f"spectra:{file}")
    assert (after.mean, after.std) == (before.mean, before.std)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.ones((4, 3))}, "has no variable y: it holds x; name the right ones"),
        ({"x": np.ones((4, 3)), "y": np.ones((1, 5))}, r"spectra of shape \(4, 3\) and labels of shape \(1, 5\)"),
        ({"x": np.full((4, 3), np.inf), "y": np.arange(4)}, "is not finite"),
        ({"x": np.ones((4, 3)), "y": np.ones((1, 4))}, "the labels of bad has 1 classes"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, content, message):
    scipy.io.savemat(tmp_path / "bad.mat", content)
    with pytest.raises(DataError, match=message):
        data.load(f"spectra:{tmp_path / 'bad.mat'}")


def test_a_class_with_too_few_spectra_is_named(file):
    with pytest.raises(UsageError, match="class 4 has 9 pixels to train on, not 10"):
        data.load(f"spectra:{file}", per_class=10)
