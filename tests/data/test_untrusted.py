"""Image folders that someone else made: nothing is waited for, memory is bounded, and it is said what is wrong."""

import io
import os
import socket
import struct
import subprocess
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from collegium.data import Reading, from_datasets, load
from collegium.data.decoding import pixels
from collegium.data.plain_files import check_plain, shown, walk
from collegium.errors import CollegiumError, DataError, UsageError


@pytest.fixture
def root(tmp_path, write_images) -> Path:
    for k, name in enumerate("ab"):
        write_images(tmp_path / "set" / "train" / name, 4, seed=k)
        write_images(tmp_path / "set" / "test" / name, 2, seed=10 + k)
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def at_once():
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < 20


def png(array: np.ndarray, *, size: tuple[int, int] | None = None) -> bytes:
    """A PNG file of 8 or 16 bits a channel, (H, W, C); its header may tell another size (W, H)."""
    height, width, channels = array.shape
    depth, colour = array.dtype.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, colour, 0, 0, 0)

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def one_sentence(error: CollegiumError, root: Path) -> str:
    message = str(error)
    assert len(message.replace(str(root), "ROOT")) <= 300 and "\n" not in message
    return message


def bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        bind,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/tty"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("nothing.png"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(".."),
    ],
    ids=["pipe", "socket", "zeros", "terminal", "itself", "nothing", "folder", "loop"],
)
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_no_plain_file_is_left_out(root, make, verify):
    make(root / "train" / "a" / "x.png")
    data = load(f"folder:{root}", verify=verify, memory=False)
    assert len(data.train) == 8
    kinds = "no images, no plain files, or folders within class folders"
    assert data.notes == (f"Left out, as {kinds} (1): train/a/x.png.",)
    batches = data.training_batches(batch_size=4, seed=0, device=torch.device("cpu"))
    assert sum(len(images) for images, _ in batches.epoch(0)) == 8


def test_links_out_of_the_folder_are_refused_unless_they_are_to_be_followed(root, tmp_path, write_images):
    (inside,) = write_images(root / "train" / "b", 1, seed=70)
    (root / "train" / "a" / "inside.png").symlink_to(inside)
    assert len(load(f"folder:{root}").train) == 9
    (outside,) = write_images(tmp_path / "secret", 1, seed=50)
    (root / "train" / "a" / "x.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"has 1 links that lead out of it \(train/a/x.png\).*follow_links") as error:
        load(f"folder:{root}")
    one_sentence(error.value, root)
    assert len(load(f"folder:{root}", follow_links=True).train) == 10


def test_a_class_folder_elsewhere_is_refused(root, tmp_path):
    (root / "train" / "b").rename(tmp_path / "elsewhere")
    (root / "train" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"1 links that lead out of it \(train/b\)"):
        load(f"folder:{root}")
    assert len(load(f"folder:{root}", follow_links=True).train) == 8


def test_the_folder_itself_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert len(load(f"folder:{tmp_path / 'link'}").train) == 8


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_folder_that_leads_back_is_an_empty_class(root, split):
    for name in ("train", "test"):
        (root / name / "loop").symlink_to("..")
    with pytest.raises(DataError, match="no images in the folders loop"):
        load(f"folder:{root}")


def test_hidden_folders_for_what_is_kept_are_not_followed(root, tmp_path, monkeypatch):
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path / "own"))
    (tmp_path / "victim").mkdir()
    (root / ".collegium").symlink_to(tmp_path / "victim")
    load(f"folder:{root}")
    assert list((tmp_path / "victim").iterdir()) == [] and list((tmp_path / "own" / ".collegium").iterdir())


@pytest.mark.parametrize("name", ["verified.npz", "train.safetensors"])
def test_a_pipe_in_place_of_what_is_kept_is_not_read(root, name):
    (root / ".collegium").mkdir()
    os.mkfifo(root / ".collegium" / name)
    assert len(load(f"folder:{root}").train) == 8


def broken_reason(root: Path) -> str:
    with pytest.raises(DataError, match="1 of 13 image files in .* cannot be decoded, as train/a/x.png") as error:
        load(f"folder:{root}", workers=0)
    one_sentence(error.value, root)
    return (root / ".collegium" / "broken.txt").read_text().split("\t")[1].strip()


def test_a_picture_that_would_fill_memory_is_broken(root):
    tiny = np.zeros((1, 1, 3), np.uint8)
    (root / "train" / "a" / "x.png").write_bytes(png(tiny, size=(200_000, 200_000)))
    tracemalloc.start()
    assert broken_reason(root) == "it has more than 100 million pixels"
    (root / "train" / "a" / "x.png").write_bytes(png(tiny, size=(10_001, 10_000)))  # below PIL's own bound
    assert broken_reason(root) == "it has more than 100 million pixels"
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    with pytest.raises(DataError, match="x.png cannot be decoded .it has more than 100 million pixels"):
        list(load(f"folder:{root}", verify=False, workers=0).train.source.pixels(k) for k in range(13))


def test_a_file_that_would_fill_memory_is_broken(root):
    with (root / "train" / "a" / "x.png").open("wb") as file:
        file.truncate(1 << 40)  # without taking room on the disk
    assert broken_reason(root).startswith("it has more than the 268,435,456 bytes")


def test_no_other_program_is_started_for_a_picture(root, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    (root / "train" / "a" / "x.png").write_bytes(script)
    assert broken_reason(root) == "no image of a known kind"


def test_file_names_that_are_not_utf_8(root, write_images):
    (file,) = write_images(root / "more", 1, seed=60)
    folder = os.fsencode(root / "train" / "a")
    os.rename(file, os.path.join(folder, b"caf\xe9.png"))
    (root / "more").rmdir()
    with open(os.path.join(folder, b"\xff\x1b]0;X\x07.png"), "wb") as broken:
        broken.write(b"nothing")
    with open(os.path.join(folder, b"\xe9.txt"), "wb"):
        pass
    with pytest.raises(DataError) as error:
        load(f"folder:{root}")
    assert r"as train/a/\xff\x1b]0;X\x07.png (" in one_sentence(error.value, root)
    assert str(error.value).isprintable()
    data = load(f"folder:{root}", skip_broken=True)
    assert len(data.train) == 9 and r"(1): train/a/\xe9.txt" in data.notes[0]
    assert load(f"folder:{root / 'train'}", skip_broken=True, split_seed=3).fingerprint()


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\x1b[31m"])
def test_a_class_that_cannot_be_written_is_refused(root, name):
    for split in ("train", "test"):
        os.rename(root / split / "b", os.path.join(os.fsencode(root / split), name))
    with pytest.raises(DataError, match="cannot name a class: rename it in UTF-8") as error:
        load(f"folder:{root}")
    assert str(error.value).isprintable()


def test_data_sets_of_files_from_torchvision(root):
    os.mkfifo(root / "train" / "a" / "x.png")
    with pytest.raises(DataError, match="train/a/x.png is no plain file: remove it"):
        from_datasets(ImageFolder(str(root / "train")), ImageFolder(str(root / "test")))
    with pytest.raises(DataError, match="x.png is no plain file"):
        check_plain(root)
    (root / "train" / "a" / "x.png").unlink()
    check_plain(root)


def test_names_are_shown_with_escapes():
    assert shown("a\u202eb\\ü") == "a\\u202eb\\ü"
    assert shown(Path(os.fsdecode(b"caf\xe9"))) == r"caf\xe9"


def test_a_pipe_in_place_of_a_published_file_is_not_waited_for(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "train").mkdir(parents=True)
    os.mkfifo(folder / "wnids.txt")
    with pytest.raises(DataError, match="wnids.txt: it is not a file"):
        load("tiny_imagenet", root=str(tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "batches.meta").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="batches.meta: it is not a file"):
        load("cifar10", root=str(tmp_path))


# What is said of pictures that are taken otherwise than as they are.


def told(root: Path, **options: object) -> str:
    return " ".join(load(f"folder:{root}", workers=0, **options).notes)


def test_transparency_cmyk_and_frames_are_said(root):
    folder = root / "train" / "a"
    half = np.full((8, 9, 4), 200, np.uint8)
    half[:4, :, 3] = 0
    Image.fromarray(half).save(folder / "half.png")
    half[..., 3] = 255
    Image.fromarray(half).save(folder / "opaque.png")
    palette = Image.fromarray(half[..., 0]).convert("P")
    palette.save(folder / "palette.png", transparency=200)
    Image.new("CMYK", (9, 8), (200, 10, 20, 0)).save(folder / "print.jpg")
    frames = [Image.new("RGB", (9, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    assert told(root) == (
        f"Of the 19 image files in {root}, there are 2 with transparent parts (their colours are kept), 1 in CMYK "
        "(converted without a profile), 3 with several frames or pages (the first is kept)."
    )
    assert pixels.read_image(folder / "moving.png")[:, 0, 0].tolist() == [255, 0, 0]
    assert pixels.read_image(folder / "half.png").unique().tolist() == [200]
    red, green, blue = pixels.read_image(folder / "print.jpg")[:, 0, 0].tolist()
    assert red < 80 and green > 200 and blue > 200


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_12_bit_values_in_16_bit_files_are_said_and_read(root, channels):
    values = np.random.default_rng(0).integers(0, 4096, (8, 9, channels), dtype=np.uint16)
    values[0, 0] = 4095
    (root / "train" / "a" / "deep.png").write_bytes(png(values))
    note = (
        f"16-bit images of {root} reach 4095 of 65535: at most 16 of 256 grey levels are left. "
        "Give bit_depth (such as 12) to have 2^bit_depth - 1 as white."
    )
    assert note in told(root)
    data = load(f"folder:{root}", bit_depth=12, channels=1 if channels < 3 else 3, memory=False)
    assert note not in data.notes and data.fingerprint() != load(f"folder:{root}", memory=False).fingerprint()
    place = [data.train.source.path(k).name for k in range(13)].index("deep.png")
    colours = values[..., : 3 if channels > 2 else 1].astype(int)
    assert (data.train.source.pixels(place).permute(1, 2, 0).numpy() == colours * 255 // 4095).all()
    assert data.train.source.pixels(place).unique().numel() > 16
    with pytest.raises(UsageError, match="reach 4095, more than bit_depth 10 allows: give 12"):
        load(f"folder:{root}", bit_depth=10)
    values[0, 0] = 65535
    (root / "train" / "a" / "deep.png").write_bytes(png(values))
    assert "16-bit" not in told(root)


def test_the_depth_of_data_sets_and_its_bounds():
    class Deep(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int):
            values = np.random.default_rng(index).integers(0, 1024, (8, 8), dtype=np.uint16)
            return (values if index % 2 else Image.fromarray(values)), index % 2

    data = from_datasets(Deep(), Deep())
    assert "16-bit images of datasets reach 10" in data.notes[0] and "bit_depth (such as 10)" in data.notes[0]
    assert int(data.train.images.max()) == 3
    deep = from_datasets(Deep(), Deep(), reading=Reading(bit_depth=10))
    assert deep.notes == () and int(deep.train.images.max()) > 250
    for depth in (8, 17):
        with pytest.raises(UsageError, match=f"bit_depth is {depth}: give"):
            Reading(bit_depth=depth)
    with pytest.raises(UsageError, match="outside 0 to 65535: convert it to 16 bits"):
        pixels.to_pixels(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_damaged_exif_data_do_not_make_a_picture_broken():
    file = io.BytesIO()
    picture = Image.fromarray(np.full((4, 6, 3), 80, np.uint8))
    picture.save(file, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff no exif data")
    assert pixels.read_image(file).shape == (3, 4, 6)


def test_folders_of_any_depth_are_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # one by one, as makedirs fails
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("a.png", os.O_CREAT, dir_fd=here))
    os.close(here)
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "left").mkdir()
    seen = []
    for place, folders, files in walk(tmp_path):
        seen += [(place.count("/d"), name) for name in files]
        if "left" in folders:
            folders.remove("left")  # what the caller takes out is not walked
        assert not place.endswith(("up", "left"))
    assert seen == [(str(tmp_path).count("/d") + 1100, "a.png")]
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # which pytest could not
