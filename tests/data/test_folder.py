import shutil
from pathlib import Path

import pytest
import torch

from collegium.data import ImageData, StreamedData, load
from collegium.data.decoding.layout import some
from collegium.data.decoding.pixels import read_image
from collegium.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path, write_images) -> Path:
    """Three classes of images of two sizes to train on (5 each) and to score (2 each)."""
    for k, name in enumerate("abc"):
        write_images(tmp_path / "set" / "train" / name, 3, (30, 20), seed=10 * k)
        write_images(tmp_path / "set" / "train" / name, 2, (25, 35), seed=10 * k + 1, ending="jpg")
        write_images(tmp_path / "set" / "test" / name, 2, (30, 20), seed=10 * k + 2)
    return tmp_path / "set"


def equal_sizes(root: Path, write_images, size: tuple[int, int] = (16, 16)) -> Path:
    for k, split in enumerate(("train", "test")):
        for c, name in enumerate("ab"):
            write_images(root / split / name, 4, size, seed=10 * k + c)
    return root


def test_unequal_images_are_decoded_while_training(root):
    data = load(f"folder:{root}", image_size=16, workers=0)
    assert isinstance(data, StreamedData)
    assert (data.name, data.class_names, data.notes) == ("set", ("a", "b", "c"), ())
    assert data.train.targets.tolist() == [0] * 5 + [1] * 5 + [2] * 5 and len(data.test) == 6
    assert data.image_shape == (3, 16, 16) and data.mean == (0.485, 0.456, 0.406)
    images, _ = next(data.training_batches(batch_size=4, seed=0, device=torch.device("cpu")).epoch(0))
    assert images.shape == (4, 3, 16, 16)
    assert load(f"folder:{root}", workers=0).image_size == (224, 224)


@pytest.mark.parametrize("size", [(16, 16), None], ids=["in memory", "streamed"])
def test_every_image_knows_its_file(tmp_path, write_images, size):
    root = equal_sizes(tmp_path / "set", write_images)
    if size is None:
        write_images(root / "train" / "a", 1, (20, 9), seed=5)
    data = load(f"folder:{root}", image_size=16, workers=0)
    assert isinstance(data, ImageData if size else StreamedData)
    for split in (data.test, data.test.subset(torch.tensor([6, 1]))):
        assert len(split.files) == len(split)
        for file, label in zip(split.files, split.targets, strict=True):
            assert Path(file).is_file() and Path(file).parent.name == "ab"[label]
    assert data.test.subset(torch.tensor([6])).files == (str(root / "test" / "b" / "02.png"),)
    if size:
        assert load(f"folder:{root}").test.files == data.test.files, "kept pixels have their names too"
        assert torch.equal(read_image(Path(data.test.files[3]), 3), data.test.images[3])


def test_grey(root):
    data = load(f"folder:{root}", channels=1, image_size=16)
    assert data.image_shape == (1, 16, 16) and data.mean == pytest.approx((0.449,))
    assert data.pictures(data.test).shape == (6, 1, 16, 16)


def test_equal_small_images_are_kept_in_memory_and_read_once(tmp_path, write_images, monkeypatch):
    root = equal_sizes(tmp_path / "set", write_images)
    data = load(f"folder:{root}")
    assert isinstance(data, ImageData) and data.image_shape == (3, 16, 16)
    assert (data.augmentation.padding, data.augmentation.flip) == (2, True)
    assert data.mean == pytest.approx((0.5,) * 3, abs=0.05)  # of the images themselves
    monkeypatch.setattr("collegium.data.decoding.image_files.read_image", None)
    monkeypatch.setattr("collegium.data.decoding.verify.examine_image", None)
    again = load(f"folder:{root}")
    assert again.fingerprint() == data.fingerprint()
    monkeypatch.undo()
    write_images(root / "train" / "a", 1, (16, 16), seed=99)
    assert load(f"folder:{root}").fingerprint() != data.fingerprint()


def test_memory_can_be_asked_for_and_refused(root, tmp_path, write_images):
    small = equal_sizes(tmp_path / "small", write_images)
    assert isinstance(load(f"folder:{small}", memory=False), StreamedData)
    assert load(f"folder:{small}", memory=False).image_size == (16, 16)
    assert isinstance(load(f"folder:{small}", augment="augmix"), StreamedData)
    assert isinstance(load(f"folder:{small}", image_size=8), StreamedData)
    data = load(f"folder:{root}", memory=True, image_size=12, flip=False)
    assert isinstance(data, ImageData) and data.image_size == (12, 12) and not data.augmentation.flip
    # Whoever asks a trained peer must resize as was done here.
    resizing = {"resize": 12, "center_crop": [12, 12], "interpolation": "bilinear"}
    assert data.preprocessing().items() >= resizing.items()
    image = data.resizing.scoring()(read_image(root / "test" / "a" / "00.png", 3))
    assert torch.equal(data.test.images[0], image)
    assert "resize" not in load(f"folder:{small}", memory=True, image_size=16).preprocessing()
    with pytest.raises(UsageError, match="memory needs image_size"):
        load(f"folder:{root}", memory=True)


def test_options_of_images_in_memory_reach_them_alone(root, tmp_path, write_images):
    small = equal_sizes(tmp_path / "small", write_images)
    assert load(f"folder:{small}", padding=1).augmentation.padding == 1
    with pytest.raises(UsageError, match="is not augmented by padding"):
        load(f"folder:{root}", padding=1)


def test_val_is_for_testing_unless_there_is_test(root):
    (root / "test").rename(root / "val")
    data = load(f"folder:{root}")
    assert data.validation is None and len(data.test) == 6
    shutil.copytree(root / "val", root / "test")
    (root / "test" / "a" / "00.png").unlink()
    data = load(f"folder:{root}")
    assert len(data.validation) == 6 and len(data.test) == 5
    assert data.class_names == ("a", "b", "c")


@pytest.mark.parametrize("below", ["train", "."])
def test_without_test_images_a_share_of_each_class_is_held_out(root, write_images, below):
    shutil.rmtree(root / "test")
    for name in "abc":
        write_images(root / "train" / name, 40)
    data = load(f"folder:{root / below}", test_share=0.4, validation=0.2)
    counts = {split: part.targets.bincount().tolist() for split, part in data.splits.items()}
    assert sum(sum(c) for c in counts.values()) == 3 * 42
    assert all(16 - 10 <= count <= 16 + 10 for count in counts["test"])  # three standard deviations
    assert all(0 < count <= 11 for count in counts["validation"])
    said = f"{sum(counts['test'])} of its 126 images (40 % of each class on average, by file name, split_seed 0)"
    assert said in data.notes[0]
    seeds = [load(f"folder:{root / below}", split_seed=seed).test.indices.tolist() for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    with pytest.raises(UsageError, match="test_share is 1.0"):
        load(f"folder:{root / below}", test_share=1.0)


def images_of(data, split: str) -> set[bytes]:
    return {data.splits[split].source.path(k).read_bytes() for k in data.splits[split].indices.tolist()}


def test_files_that_are_added_never_make_a_training_image_score(root, write_images, tmp_path):
    shutil.rmtree(root / "test")
    for k, name in enumerate("abc"):
        write_images(root / "train" / name, 20, seed=50 + k)
    options = {"test_share": 0.3, "validation": 0.3, "memory": False}
    before = load(f"folder:{root / 'train'}", **options)
    assert len(before.test) and len(before.validation)
    trained = images_of(before, "train")
    for round in range(1, 4):
        for k, name in enumerate("abc"):
            for file in write_images(tmp_path / "more", 15, seed=100 * round + k):
                file.rename(root / "train" / name / f"{7 * round}{file.name}")
        after = load(f"folder:{root / 'train'}", **options)
        assert len(after.train) > len(before.train) and after.fingerprint() != before.fingerprint()
        assert trained <= images_of(after, "train")
        trained, before = images_of(after, "train"), after
    # Nor does it matter where the folder lies, or whether it is read as ROOT/CLASS or ROOT/train/CLASS.
    root.rename(tmp_path / "elsewhere")
    assert images_of(load(f"folder:{tmp_path / 'elsewhere'}", **options), "test") == images_of(
        load(f"folder:{tmp_path / 'elsewhere' / 'train'}", **options), "test"
    )


def test_what_is_no_image_is_left_out_and_said(root, write_images):
    (root / "train" / "a" / "notes.txt").write_text("")
    (root / "train" / "a" / ".hidden").write_text("")
    write_images(root / "test" / "b" / "nested", 3)
    data = load(f"folder:{root}")
    assert len(data.train) == 15 and len(data.test) == 6
    kinds = "no images, no plain files, or folders within class folders"
    assert data.notes == (f"Left out, as {kinds} (2): train/a/notes.txt, test/b/nested.",)


def test_broken_files_are_counted_named_and_listed(root):
    for name in ("train/a/00.png", "train/b/01.png", "train/c/03.jpg", "test/a/00.png"):
        path = root / name
        if path.exists():
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError) as error:
        load(f"folder:{root}")
    message = str(error.value)
    assert message.startswith(f"3 of 21 image files in {root} cannot be decoded, as train/a/00.png (")
    assert message.endswith("Repair or remove them, or give skip_broken to leave them out")
    listed = (root / ".collegium" / "broken.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [
        f"{root}/{name}" for name in ("train/a/00.png", "train/b/01.png", "test/a/00.png")
    ]
    data = load(f"folder:{root}", skip_broken=True)
    assert len(data.train) == 13 and len(data.test) == 5
    assert data.notes[0].startswith(f"3 of 21 image files in {root} are broken and were left out; all are listed in")


def test_without_verification_a_broken_file_ends_training_in_one_sentence(root):
    (root / "train/a/00.png").write_bytes(b"nothing")
    data = load(f"folder:{root}", verify=False, image_size=8, workers=1)
    with pytest.raises(DataError, match="train/a/00.png cannot be decoded"):
        list(data.training_batches(batch_size=5, seed=0, device=torch.device("cpu")).epoch(0))


def test_test_images_among_the_training_images_are_told(root):
    shutil.copy(root / "train" / "a" / "00.png", root / "test" / "a" / "twin.png")
    assert load(f"folder:{root}").notes == (
        "1 of the 7 test images are, byte for byte, training images too: they flatter the test scores.",
    )


def test_the_fingerprint_follows_the_contents(root):
    before = load(f"folder:{root}").fingerprint()
    assert load(f"folder:{root}").fingerprint() == before
    shutil.copy(root / "train" / "a" / "00.png", root / "train" / "a" / "01.png")
    assert load(f"folder:{root}").fingerprint() != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "there is no folder"),
        (lambda root: [shutil.rmtree(root / d) for d in ("train", "test")], "has no folders: expected train/CLASS"),
        (lambda root: shutil.rmtree(root / "train"), "has test but no train"),
        (lambda root: shutil.rmtree(root / "test" / "b"), r"different classes \(only in train: b\)"),
        (lambda root: (root / "test" / "d").mkdir(), r"different classes \(only in test: d\)"),
        (lambda root: [f.unlink() for f in (root / "train" / "b").iterdir()], "no images in the folders b"),
        (lambda root: [(root / d).mkdir() for d in ("val", "valid")], "both val and valid for validation"),
        (lambda root: [shutil.rmtree(root / s / c) for s in ("train", "test") for c in "bc"], "has 1 class folders"),
    ],
)
def test_another_layout_is_told(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        load(f"folder:{root}")


def test_long_lists_are_cut():
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
