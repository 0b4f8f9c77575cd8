import os

import pytest
import torch

from collegium.data.decoding.image_files import ImageFiles, class_folders, list_images
from collegium.errors import DataError


def test_images_are_listed_by_class_in_the_order_of_their_names(tmp_path, write_images):
    write_images(tmp_path / "train" / "b", 2, ending="PNG")
    write_images(tmp_path / "train" / "a", 1, ending="jpg")
    write_images(tmp_path / "train" / "a" / "nested", 1)
    (tmp_path / "train" / "a" / "notes.txt").write_text("")
    (tmp_path / "train" / "a" / ".hidden.png").write_text("")
    (tmp_path / "train" / ".hidden").mkdir()
    assert class_folders(tmp_path / "train") == ("a", "b")
    listing = list_images(tmp_path, "train", ("a", "b"))
    assert listing.names == ("train/a/00.jpg", "train/b/00.PNG", "train/b/01.PNG")
    assert listing.targets.tolist() == [0, 1, 1]
    assert listing.others == ("train/a/nested", "train/a/notes.txt")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="absent cannot be read"):
        class_folders(tmp_path / "absent")


@pytest.mark.parametrize("channels", [1, 3])
def test_files_become_pixels_of_the_channels_asked_for(tmp_path, write_images, channels):
    write_images(tmp_path, 1, (9, 8))
    (tmp_path / "ü").mkdir()
    write_images(tmp_path / "ü", 1, (5, 4), mode="L")
    files = ImageFiles(tmp_path, ["00.png", os.path.join("ü", "00.png")], channels, lambda _: "")
    assert [tuple(files.pixels(k).shape) for k in range(len(files))] == [(channels, 8, 9), (channels, 4, 5)]
    assert files.pixels(0).dtype == torch.uint8


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    files = ImageFiles(tmp_path, ["a.png", "b.png"], 3, lambda _: "")
    with pytest.raises(DataError, match=f"{tmp_path}/a.png cannot be decoded .no image of a known kind.: repair"):
        files.pixels(0)
    with pytest.raises(DataError, match="b.png cannot be decoded .*No such file"):
        files.pixels(1)
