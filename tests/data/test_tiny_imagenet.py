import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from collegium.data import tiny_imagenet
from collegium.data.download import file_md5
from collegium.errors import DataError

module = sys.modules["collegium.data.tiny_imagenet"]
SYNSETS = ("n02", "n01", "n03")


@pytest.fixture
def small(monkeypatch, tmp_path, write_images) -> Path:
    """A small archive stands for the published one; COLLEGIUM_DATA is an empty folder, which is returned."""
    source = tmp_path / "source" / "tiny-imagenet-200"
    for k, synset in enumerate(SYNSETS):
        write_images(source / "train" / synset / "images", 3, (64, 64), seed=k, mode="RGB" if k else "L", ending="JPEG")
    val = write_images(source / "val" / "images", 4, (64, 64), seed=9, ending="JPEG")
    lines = [f"{file.name}\t{SYNSETS[k % 3]}\t0\t0\t9\t9\n" for k, file in enumerate(reversed(val))]
    (source / "val" / "val_annotations.txt").write_text("".join(lines))
    (source / "wnids.txt").write_text("\n".join(SYNSETS) + "\n")
    (source / "words.txt").write_text("n01\tcrane, bird\nn02\tcrane, machine\nn03\tdog\nn04\tother\n")
    archive = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(source.rglob("*.*")):
            file.write(path, path.relative_to(source.parent))
    published = module._Published(archive.as_uri(), file_md5(archive), classes=3, train=9, test=4)
    monkeypatch.setattr(module, "_PUBLISHED", published)
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("COLLEGIUM_DATA", str(root))
    return root


def test_it_is_downloaded_and_decoded_once(small, monkeypatch):
    data = tiny_imagenet()
    assert data.class_names == ("crane (n02)", "crane (n01)", "dog")
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.targets.tolist() == [0, 1, 2, 0] and data.image_shape == (3, 64, 64)
    from collegium.data.decoding.pixels import read_image

    last = small / "tiny-imagenet-200" / "val" / "images" / "03.JPEG"
    assert torch.equal(data.test.images[0], read_image(last))
    monkeypatch.setattr("collegium.data.decoding.image_files.read_image", None)
    assert tiny_imagenet(download=False).fingerprint() == data.fingerprint()


def test_what_is_not_all_there_is_told(small, monkeypatch):
    with pytest.raises(DataError, match="tiny_imagenet is not at"):
        tiny_imagenet(download=False)
    tiny_imagenet()
    folder = small / "tiny-imagenet-200"
    image = folder / "train" / "n01" / "images" / "01.JPEG"
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(DataError, match="has 8 training images, expected 9: delete it"):
        tiny_imagenet()
    image.write_bytes(content)
    annotations = folder / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("n03", "n99"))
    with pytest.raises(DataError, match="names no class of wnids.txt: 'n99'"):
        tiny_imagenet()
    (folder / "wnids.txt").unlink()
    with pytest.raises(DataError, match="wnids.txt cannot be read"):
        tiny_imagenet()


def test_images_of_another_size_are_told(small, monkeypatch):
    monkeypatch.setattr(module, "_PUBLISHED", replace(module._PUBLISHED, side=63))
    with pytest.raises(DataError, match="are not 63 x 63 pixels"):
        tiny_imagenet()
