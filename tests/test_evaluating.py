import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import collegium
from collegium.cli import main
from collegium.errors import UsageError
from collegium.training.run import restore

NAMES = ("ant", "bee", "cat")
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def arrays(seed: int, count: int = 24, classes: int = 3, channels: int = 3, size: int = 8) -> Arrays:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return images, np.arange(count, dtype=np.int64) % classes


def data(test: Arrays, names: tuple[str, ...] | None = NAMES) -> collegium.data.ImageData:
    kind = {} if names is None else {"class_names": names}
    return collegium.from_arrays((test[0][:12], test[1][:12]), test, augmentation="none", **kind)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluating") / "run"
    collegium.train(
        method="ffl",
        peers="2xresnet8",
        data=data(arrays(0)),
        run=folder,
        epochs=1,
        batch_size=6,
        device="cpu",
        quiet=True,
    )
    return folder


def test_other_data_of_the_same_classes_are_scored_as_they_are_counted_by_hand(run: Path, tmp_path: Path) -> None:
    other = data(arrays(1))
    file = tmp_path / "new" / "answers.jsonl"
    scores = collegium.evaluate(run, data=other, predictions=file)
    trained = restore(run, data=other)
    (images, targets), *_ = list(trained.scored["test"].epoch(0))
    logits = trained.predict(images)
    for name in ("peer0", "peer1", "ensemble", "fused"):
        wrong = (logits[name].argmax(1) != targets).double().mean()
        assert scores[name]["top1_error"] == pytest.approx(float(wrong))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["true_label"] for line in lines] == [NAMES[k % 3] for k in range(24)]
    assert [line["index"] for line in lines] == [str(k) for k in range(24)]
    probabilities = logits["peer0"].softmax(1)
    for k, line in enumerate(lines):
        assert line["label"] == NAMES[int(probabilities[k].argmax())]
        assert list(line["probabilities"].values()) == pytest.approx(probabilities[k].tolist())
    wrong_lines = sum(line["label"] != line["true_label"] for line in lines)
    assert scores["peer0"]["top1_error"] == pytest.approx(wrong_lines / 24)


def test_a_peer_alone_has_the_scores_that_it_has_in_its_run(run: Path) -> None:
    other = data(arrays(2))
    alone, within = (collegium.evaluate(place, data=other) for place in (run / "peers" / "peer1", run))
    assert alone["peer0"] == within["peer1"]
    with pytest.raises(UsageError, match="peer1 is a peer, which does not say on what to score it: give data"):
        collegium.evaluate(run / "peers" / "peer1")


@pytest.mark.parametrize(
    ("other", "message"),
    (
        (data(arrays(1, classes=4), None), "has 4 classes, and .* was trained with 3: give data that fit"),
        (data(arrays(1, channels=1)), "has 1 channels, and .* was trained with 3"),
        (data(arrays(1, size=9)), "has images of 9x9, and .* was trained on 8x8"),
        (data(arrays(1), ("ant", "cat", "bee")), "class 1 is 'cat' in .*, and 'bee' where .* was trained"),
    ),
)
def test_data_of_other_classes_are_refused(run: Path, other: collegium.data.ImageData, message: str) -> None:
    for place in (run, run / "peers" / "peer0"):
        with pytest.raises(UsageError, match=message):
            collegium.evaluate(place, data=other)


def test_classes_without_names_are_taken_for_the_same(run: Path) -> None:
    assert collegium.evaluate(run, data=data(arrays(1), None)) == collegium.evaluate(run, data=data(arrays(1)))


def pictures(folder: Path) -> None:
    """A folder of classes, as --data folder:PATH reads it, whose test images are ours."""
    for split in ("train", "test"):
        images, targets = arrays(1)
        for k, (image, target) in enumerate(zip(images, targets, strict=True)):
            place = folder / split / NAMES[target]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{k}.png")


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_command_prints_json_of_the_numbers_of_the_table(
    in_memory: bool, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "new")
    file = tmp_path / "answers.csv"
    peer = run / "peers" / "peer0"
    command = [
        "evaluate",
        str(peer),
        "--data",
        f"folder:{tmp_path / 'new'}",
        "--data.image-size",
        "8",
        "--data.verify",
        str(in_memory).lower(),  # unverified files are read one by one
    ]
    main([*command, "--json", "--predictions", str(file)])
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(peer) and found["test_images"] == 24 and found["deployed"] == "peer0"
    main(command)
    text = capsys.readouterr().out
    accuracy = f"{100 - 100 * found['predictors']['peer0']['top1_error']:.2f}"
    assert text.startswith(f"The deployed network, peer0 (resnet8): {accuracy} % test accuracy\n")
    (row,) = (line.split() for line in text.splitlines() if line.split()[:1] == ["peer0"])
    assert row[1] == accuracy and row[2] == f"{found['predictors']['peer0']['nll']:.3f}"
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert {row["file"] for row in rows} == set(map(str, (tmp_path / "new" / "test").rglob("*.png")))
    assert all(Path(row["file"]).parent.name == row["true_label"] for row in rows)
    wrong = sum(row["label"] != row["true_label"] for row in rows)
    assert found["predictors"]["peer0"]["top1_error"] == pytest.approx(wrong / 24)
    assert all(sum(float(row[f"p({name})"]) for name in NAMES) == pytest.approx(1, abs=1e-5) for row in rows)


def test_bad_wishes_are_told_before_anything_is_scored(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends in .csv or .jsonl"):
        collegium.evaluate(run, data=data(arrays(1)), predictions=tmp_path / "answers.txt")
    with pytest.raises(UsageError, match="give a file for them"):
        collegium.evaluate(run, data=data(arrays(1)), predictor="fused")
    with pytest.raises(UsageError, match="no predictor 'fuzed'; it has peer0, peer1, ensemble, fused"):
        collegium.evaluate(run, data=data(arrays(1)), predictor="fuzed", predictions=tmp_path / "a.csv")
    with pytest.raises(UsageError, match="the data have no name"):
        collegium.evaluate(run, data={"per_class": 3})
