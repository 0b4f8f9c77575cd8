import csv
import io
import json
import pickle
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import collegium
from collegium import predicting
from collegium.cli import main
from collegium.errors import DataError, UsageError
from collegium.networks import build
from collegium.student import save_peer

MEAN, STD, CLASSES = [0.3, 0.4, 0.5], [0.2, 0.3, 0.4], ["cat", "dog", "=cow"]


def peer(folder: Path, size: int = 16, **described: object) -> nn.Module:
    """An untrained network on disk."""
    torch.manual_seed(0)
    network = build("resnet8", num_classes=3, in_channels=3, image_size=(size, size))
    network.train()(torch.rand(8, 3, size, size))
    config = dict(num_classes=3, image_size=[size, size], mean=MEAN, std=STD, class_names=CLASSES)
    save_peer(network, folder, **config | described)
    return network.eval()


def picture(file: Path, height: int = 16, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


@torch.no_grad()
def answered(network: nn.Module, pixels: NDArray[np.uint8]) -> Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    probabilities: Tensor = network(((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]).softmax(1)
    return probabilities[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting") / "run"
    options = dict(share_until="stage1", data={"name": "digits", "per_class": 5}, epochs=1, device="cpu", quiet=True)
    collegium.train(method="ffl", peers="2xresnet8", run=folder, **options)  # type: ignore[arg-type]
    return folder


def test_probabilities_are_those_of_the_network_for_the_normalised_image(tmp_path: Path) -> None:
    network = peer(tmp_path / "peer")
    pixels = [picture(tmp_path / f"{k}.png", seed=k) for k in range(5)]
    found = collegium.predict(tmp_path / "peer", [tmp_path / f"{k}.png" for k in range(5)], batch_size=2)
    torch.testing.assert_close(found.probabilities, torch.stack([answered(network, p) for p in pixels]))
    assert found.labels == [CLASSES[int(answered(network, p).argmax())] for p in pixels]
    assert found.notes == () and found.class_names == tuple(CLASSES)
    best = found.top(2)[0]
    assert best[0][0] == found.labels[0] and best[0][1] > best[1][1] and len(best) == 2


def test_images_are_resized_as_those_that_scored(tmp_path: Path) -> None:
    network = peer(tmp_path / "peer", resize=20, center_crop=[16, 16])
    pixels = picture(tmp_path / "large.png", 40, 60)
    # The shorter side becomes 20 pixels, whose centre is cut out.
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (20, 30), mode="bilinear", antialias=True
    )
    centre = resized.round()[0, :, 2:18, 7:23].permute(1, 2, 0).numpy().astype(np.uint8)
    found = collegium.predict(tmp_path / "peer", tmp_path / "large.png")
    torch.testing.assert_close(found.probabilities[0], answered(network, centre), atol=2e-3, rtol=0)
    assert found.notes == ()


def test_a_network_that_saw_one_size_alone_is_asked_about_others_with_a_note(tmp_path: Path) -> None:
    peer(tmp_path / "peer")
    picture(tmp_path / "images" / "large.png", 40, 60)
    picture(tmp_path / "images" / "right.png")
    (note,) = collegium.predict(tmp_path / "peer", tmp_path / "images").notes
    assert note.startswith("1 image had another size than 16 x 16, that of the training images, and was resized")


def test_the_depth_of_16_bit_files_is_that_of_the_training_files(tmp_path: Path) -> None:
    network = peer(tmp_path / "peer", bit_depth=12)
    deep = np.random.default_rng(0).integers(0, 4096, (16, 16), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    grey = (deep / 4095 * 255).round().astype(np.uint8)
    found = collegium.predict(tmp_path / "peer", tmp_path / "deep.png")
    expected = answered(network, np.stack([grey] * 3, axis=2))
    torch.testing.assert_close(found.probabilities[0], expected, atol=1e-3, rtol=0)


def test_folders_are_searched_at_any_depth_and_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.png", ".hidden.png", ".hidden/d.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    found = predicting.image_files([tmp_path, tmp_path / "b.png"])
    assert [str(Path(file).relative_to(tmp_path)) for file in found] == ["a.jpg", "b.png", "deep/c.png", "b.png"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_exported_files_of_lower_precision_are_read(tmp_path: Path, precision: Literal["fp16", "int8"]) -> None:
    pytest.importorskip("onnx", reason="needs the extra [onnx]")
    for split, number in (("train", 6), ("test", 3)):
        for label in ("cat", "dog"):
            for k in range(number):
                picture(tmp_path / "data" / split / label / f"{k}.png", seed=k + 10 * (label == "dog"))
    data = {"name": f"folder:{tmp_path / 'data'}", "image_size": 16}
    options = dict(data=data, epochs=1, batch_size=4, device="cpu", quiet=True)
    collegium.train(method="independent", peers="resnet8", run=tmp_path / "run", **options)  # type: ignore[arg-type]
    file = collegium.export(tmp_path / "run", format="onnx", precision=precision).path
    expected = collegium.predict(tmp_path / "run", tmp_path / "data" / "test").probabilities
    found = collegium.predict(file, tmp_path / "data" / "test")
    torch.testing.assert_close(found.probabilities, expected, atol=0.01 if precision == "fp16" else 0.1, rtol=0)
    assert found.class_names == ("cat", "dog")


@pytest.mark.parametrize("file", ["labels.csv", "labels.jsonl"])
def test_all_probabilities_are_written(tmp_path: Path, file: str) -> None:
    peer(tmp_path / "peer")
    for k in range(3):
        picture(tmp_path / "images" / f"{k}.png", seed=k)
    found = collegium.predict(tmp_path / "peer", tmp_path / "images", out=tmp_path / "new" / file)
    text = (tmp_path / "new" / file).read_text()
    if file.endswith(".csv"):
        rows = list(csv.DictReader(io.StringIO(text)))
        # A name that a spreadsheet would take for a formula begins with an apostrophe.
        assert [row["label"].lstrip("'") for row in rows] == found.labels
        read = [[float(row[f"p({name})"]) for name in CLASSES] for row in rows]
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["label"] for line in lines] == found.labels
        read = [[line["probabilities"][name] for name in CLASSES] for line in lines]
    torch.testing.assert_close(torch.tensor(read), found.probabilities, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"normalised": True, "batch_size": 3}])
def test_an_exported_file_answers_as_the_run(run: Path, tmp_path: Path, options: dict[str, object]) -> None:
    for k in range(4):
        picture(tmp_path / f"{k}.png", seed=k)
    made = collegium.export(run, out=tmp_path / "made.pt2", **options)  # type: ignore[arg-type]
    files = [tmp_path / f"{k}.png" for k in range(4)]
    with pytest.raises(UsageError, match="made.pt2 may hold code that runs as it is read: if you trust who made it"):
        collegium.predict(made.path, files)
    expected, found = collegium.predict(run, files), collegium.predict(made.path, files, trust=True)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    assert found.class_names == expected.class_names == tuple("0123456789")


def test_an_onnx_file_answers_as_the_run(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra [onnx]")
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    picture(tmp_path / "a.png")
    made = collegium.export(run, format="onnx", out=tmp_path / "made.onnx")
    expected, found = (collegium.predict(source, tmp_path / "a.png") for source in (run, made.path))
    torch.testing.assert_close(found.probabilities, expected.probabilities, atol=1e-5, rtol=1e-4)


def test_the_methods_own_predictor_is_asked(run: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    by_name = {n: collegium.predict(run, tmp_path / "a.png", predictor=n) for n in ("peer0", "peer1", "fused")}
    assert len({tuple(found.probabilities[0].tolist()) for found in by_name.values()}) == 3
    with pytest.raises(UsageError, match="has no predictor 'fuse'; did you mean 'fused'"):
        collegium.predict(run, tmp_path / "a.png", predictor="fuse")


def test_a_broken_file_stops_and_can_be_left_out(tmp_path: Path) -> None:
    peer(tmp_path / "peer")
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b.png cannot be decoded \(no image of a known kind\): remove it, or give"):
        collegium.predict(tmp_path / "peer", tmp_path / "images", out=tmp_path / "labels.csv")
    assert not (tmp_path / "labels.csv").exists()
    found = collegium.predict(tmp_path / "peer", tmp_path / "images", skip_broken=True)
    assert [Path(file).name for file in found.files] == ["a.png"]
    assert found.notes[0].startswith("1 broken file left out, such as ")


def test_nothing_is_left_where_all_files_are_broken(tmp_path: Path) -> None:
    peer(tmp_path / "peer")
    (tmp_path / "b.png").write_bytes(b"no image")
    found = collegium.predict(tmp_path / "peer", tmp_path / "b.png", skip_broken=True)
    assert len(found) == 0 and found.labels == [] and found.text() == "" and found.csv().count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(paths="nowhere.png"), "there is no file or folder nowhere.png"),
        (dict(paths="empty"), "empty holds no images"),
        (dict(paths=[]), "there are no images to predict"),
        (dict(source="nothing"), "nothing is neither a peer's folder"),
        (dict(source="a.png"), "a.png is neither a run nor an exported file"),
        (dict(source="damaged.onnx"), "damaged.onnx cannot be read|needs the packages of an extra"),
        (dict(source="damaged.pt2", trust=True), "damaged.pt2 cannot be read"),
        (dict(out="labels.txt"), "the file of labels ends in .csv or .jsonl, not as labels.txt"),
        (dict(batch_size=0), "a batch has at least one image, not 0"),
        (dict(workers=-1), "workers is -1"),
        (dict(predictor="peer7"), "has no peer7"),
        (dict(source="scene"), "scene was trained on pixels of a scene, not on image files"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch, which says that the damaged file may be one of its own
def test_what_cannot_be_predicted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    peer(tmp_path / "peers" / "peer0")
    peer(tmp_path / "scene", bands=[0, 1, 2])
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "a.png")
    for name in ("damaged.onnx", "damaged.pt2"):
        (tmp_path / name).write_bytes(pickle.dumps([1, 2, 3]))
    call: dict[str, object] = dict(source="peers/peer0", paths="a.png") | options
    with pytest.raises((UsageError, DataError), match=message):
        collegium.predict(**call)  # type: ignore[arg-type]


def test_the_command_prints_a_line_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer(tmp_path / "peer")
    picture(tmp_path / "a.png")
    picture(tmp_path / "\u202eb.png", seed=1)
    source, files = str(tmp_path / "peer"), [str(tmp_path / "a.png"), str(tmp_path / "\u202eb.png")]
    main(["predict", source, *files, "--top", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].count(" %") == 2 and "\\u202eb.png" in lines[1]
    main(["predict", source, *files, "--json"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = collegium.predict(source, files)
    assert [line["label"] for line in printed] == found.labels
    probabilities = torch.tensor([[line["probabilities"][name] for name in CLASSES] for line in printed])
    torch.testing.assert_close(probabilities, found.probabilities, atol=1e-6, rtol=1e-6)
    main(["predict", source, *files, "--out", str(tmp_path / "labels.csv")])
    assert capsys.readouterr().out.startswith("2 images: ")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", source])
    with pytest.raises(SystemExit, match="2"):
        main(["predict", source, *files, "--top", "0"])
    assert "--top is 0: give 1 or more" in capsys.readouterr().err


def test_a_broken_file_is_not_counted_as_resized(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name in ("whole.jpg", "broken.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / "broken.jpg").read_bytes()
    (tmp_path / "broken.jpg").write_bytes(content[: len(content) // 2])
    reader = predicting._Reader({"in_channels": 3, "image_size": [8, 8]}, skip_broken=True)
    read = reader([str(tmp_path / "broken.jpg"), str(tmp_path / "whole.jpg")])
    assert (len(read.images), read.resized, len(read.broken)) == (1, 1, 1)


def test_a_long_and_narrow_image_counts_as_broken(tmp_path: Path) -> None:
    peer(tmp_path / "peer", resize=200)
    Image.new("L", (10**5, 1)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"a.png cannot be decoded \(it has 100,000 x 1 pixels, and would be resized to"
    ):
        collegium.predict(tmp_path / "peer", tmp_path / "a.png")
    assert len(collegium.predict(tmp_path / "peer", tmp_path / "a.png", skip_broken=True)) == 0


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "peer" / "model.safetensors"
    network = peer(tmp_path / "peer")
    state = network.state_dict()
    save_file(state | {"classifier.linear.bias": state["classifier.linear.bias"] * float("nan")}, file)
    file.with_name(f"{file.name}.sha256").unlink()
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="the network answers with numbers that are not finite"):
        collegium.predict(tmp_path / "peer", tmp_path / "a.png")
