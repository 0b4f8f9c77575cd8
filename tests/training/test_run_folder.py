import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run, tiny
from safetensors.torch import load_file

from collegium import data as datasets
from collegium.errors import DataError, StorageError, TrainingError, UsageError
from collegium.training.recipe import Recipe
from collegium.training.run import restore, train
from collegium.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(folder)
    return folder


def test_the_folder_holds_what_it_promises(trained: Path) -> None:
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file() and "tensorboard" not in p.parts}
    assert files == {
        ".lock",
        "recipe.yaml",
        "metrics.csv",
        "result.json",
        "result.json.sha256",
        *(f"checkpoints/step_{step:09}.pt{checksum}" for step in (8, 12) for checksum in ("", ".sha256")),
        *(f"peers/peer{k}/README.md" for k in (0, 1)),
        *(
            f"peers/peer{k}/{name}{checksum}"
            for k in (0, 1)
            for name in ("model.safetensors", "config.json")
            for checksum in ("", ".sha256")
        ),
    }
    assert list((trained / "tensorboard").glob("events*"))


def test_the_recipe_says_every_default_and_where_it_ran(trained: Path) -> None:
    recipe = RunFolder(trained).recipe()
    assert recipe.method["fusion_weight_decay"] == 1e-5
    given = dict(tiny().data)
    assert recipe.data == datasets.options(given["name"]) | given
    text = (trained / "recipe.yaml").read_text()
    assert all(word in text for word in ("provenance:", "torch:", "commit:", "device:"))


def test_a_run_of_another_recipe_is_refused_and_left_alone(trained: Path) -> None:
    before = (trained / "recipe.yaml").read_text()
    with pytest.raises(UsageError, match="another recipe .*epochs: 5 here, 3 there.*--overwrite"):
        run(trained, epochs=5)
    assert (trained / "recipe.yaml").read_text() == before


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds no run"):
            RunFolder(tmp_path).check(Recipe(), overwrite=overwrite)
    with pytest.raises(UsageError, match="is a file"):
        run(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_kill_left_half_written_does_not_block_the_folder(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml.part").write_text("epo")
    train(tiny(epochs=1), tmp_path / "run", overwrite=overwrite, quiet=True)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_kill_while_overwriting_leaves_a_run_that_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", epochs=1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(epochs=2), tmp_path / "run", overwrite=True, quiet=True)
    monkeypatch.undo()
    assert RunFolder(tmp_path / "run").result() is None
    assert train(tiny(epochs=2), tmp_path / "run", overwrite=True, quiet=True)["epochs"] == 2


def zeroed(content: bytes) -> bytes:
    return content[:9000] + bytes(4096) + content[9000 + 4096 :]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 1000, zeroed])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: Callable[[bytes], bytes], trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "result.json").unlink()
    newest = folder / "checkpoints" / "step_000000012.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match="step_000000012.pt is damaged.*step_000000008.pt.* is used instead"):
        again = run(folder)
    whole = RunFolder(trained).result()
    assert whole is not None and again["predictors"] == whole["predictors"]
    assert restore(folder).epoch == 3  # without a warning: the damaged one was written again
    assert all(torch.equal(a, peer_weights(trained)[name]) for name, a in peer_weights(folder).items())


def test_a_checkpoint_that_stands_for_endless_values_is_refused_before_it_is_read(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    key: tuple[object, ...] = (None,)
    for _ in range(30):
        key = (key, key)
    for file in (folder / "checkpoints").glob("*.pt"):
        with zipfile.ZipFile(file, "w") as archive:  # torch.save would look for the key itself
            archive.writestr("archive/version", "3")
            archive.writestr("archive/data.pkl", pickle.dumps([key], protocol=2))
        Path(f"{file}.sha256").unlink()
    read: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *given, **_: read.append(given))
    with pytest.raises(TrainingError, match="step_000000012.pt cannot be read.*nor any of the 1 before it"):
        restore(folder)
    assert read == []


def peer_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "peers" / "peer1" / "model.safetensors")


def test_halves_of_checkpoints_that_are_gone_do_not_stay(trained: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(trained, tmp_path / "run"))
    for name in ("step_000000004.pt.part", "step_000000004.pt.sha256.part"):
        (folder.checkpoints / name).write_bytes(b"half")
    folder.save_checkpoint({}, 16, keep=2)
    assert not list(folder.checkpoints.glob("*.part"))


def test_a_checkpoint_that_a_kill_has_kept_from_removal_is_removed_at_the_end(trained: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(trained, tmp_path / "run"))
    known = folder.saved_checkpoints()
    shutil.copyfile(known[0], folder.checkpoints / "step_000000004.pt")
    folder.result_file.unlink()
    run(folder.path)
    assert folder.saved_checkpoints() == known


def test_where_no_checkpoint_is_whole_it_is_said(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "result.json").unlink()
    for file in (folder / "checkpoints").glob("*.pt"):
        file.write_bytes(zeroed(file.read_bytes()))
    with pytest.raises(TrainingError, match="step_000000012.pt is damaged.*nor any of the 1 before it.*--overwrite"):
        run(folder)


def test_a_byte_that_is_flipped_in_a_checkpoint_is_noticed(trained: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(trained, tmp_path / "run"))
    folder.saved_checkpoints()[0].unlink()
    (newest,) = folder.saved_checkpoints()
    for file in (newest, newest.with_name(newest.name + ".sha256")):
        content = file.read_bytes()
        for place in range(0, len(content), max(1, len(content) // 40)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            file.write_bytes(flipped)
            with pytest.raises(TrainingError, match="is damaged"):
                folder.load_checkpoint()
        file.write_bytes(content)
    assert folder.load_checkpoint() is not None
    newest.with_name(newest.name + ".sha256").unlink()  # of before there were checksums
    assert folder.load_checkpoint() is not None


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"epoch": "3"}, "epoch must be a whole number"),
        ({"step": -1}, "step must be a whole number"),
        ({"history": [3]}, r"history\[0\] must be a mapping"),
        ({"learner": None}, "learner must be a mapping"),
        ({"seconds": {}}, "seconds.training is missing"),
    ],
)
def test_what_is_no_training_state_is_named(change: dict[str, Any], wrong: str, trained: Path, tmp_path: Path) -> None:
    state = RunFolder(trained).load_checkpoint()
    assert state is not None
    (tmp_path / "checkpoints").mkdir()
    torch.save(state | change, tmp_path / "checkpoints" / "step_000000001.pt")
    with pytest.raises(TrainingError, match=f"is not a training state: {wrong}"):
        RunFolder(tmp_path).load_checkpoint()


def test_checkpoints_after_the_one_that_was_gone_on_from_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2, 5):
        folder.save_checkpoint({}, step, keep=3)
    folder.save_checkpoint({}, 3, keep=2)
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == [
        f"step_{step:09}.pt{checksum}" for step in (2, 3) for checksum in ("", ".sha256")
    ]


@pytest.mark.parametrize("name", ["checkpoints", "peers", "teacher"])
def test_nothing_is_written_through_a_linked_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    writes = {
        "checkpoints": lambda: folder.save_checkpoint({}, 1, keep=1),
        "peers": lambda: folder.peer("peer0"),
        "teacher": lambda: folder.keep_teacher("nowhere"),
    }
    with pytest.raises(DataError, match=f"{name} is a link"):
        writes[name]()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_is_told_with_what_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({}, 7, keep=1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match="step_000000008.pt.*: No space left .*free some space.*step_000000007.pt is safe"
    ):
        folder.save_checkpoint({}, 8, keep=1)
    assert [file.name for file in folder.saved_checkpoints()] == ["step_000000007.pt"]


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("2xresnet8", "2xresnet14"))
    with pytest.raises(TrainingError, match="do not fit the recipe's networks"):
        run(tmp_path / "run", peers="2xresnet14")


def test_a_result_of_another_recipe_is_noticed_before_networks_are_made(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("2xresnet8", "250xresnet8"))
    monkeypatch.setattr("collegium.training.run.build", None)
    with pytest.raises(DataError, match="is that of another run: peers 2, where recipe.yaml says 250"):
        restore(folder)


def test_a_result_with_another_digit_is_noticed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    text = file.read_text()
    file.write_text(text.replace("0.", "0.1", 1))
    with pytest.raises(DataError, match="result.json is damaged: its checksum .*repeat the command"):
        RunFolder(tmp_path / "run").result()
    Path(f"{file}.sha256").unlink()
    assert RunFolder(tmp_path / "run").result() != json.loads(text)


def test_an_unreadable_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"half": ')
    with pytest.raises(DataError, match="result.json is unreadable.*repeat the command"):
        RunFolder(tmp_path).result()


@pytest.mark.parametrize(
    "text", ["", "epoch,a\n1,0.5\n2\n", "epoch,a\n1,x\n", "epoch,a\n2,1\n1,1\n", "epoch,a\n1,0.5", "\0"]
)
def test_half_a_table_of_metrics_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(DataError, match="metrics.csv is not as it was written"):
        RunFolder(tmp_path).metrics()


def test_a_run_goes_on_with_the_data_on_which_it_was_begun_alone(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    told = RunFolder(folder).fingerprint()
    assert told is not None and re.fullmatch("[0-9a-f]{16}", told)
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace(told, "0123456789abcdef"))
    with pytest.warns(UserWarning, match="was trained on other data"):
        run(folder)
    with pytest.warns(UserWarning, match="digits are not those on which .* was trained"):
        restore(folder)
    (folder / "result.json").unlink()
    with pytest.raises(UsageError, match="was begun with other data.*--overwrite"):
        run(folder)
    (folder / "recipe.yaml").write_text(recipe.replace(f"  data_fingerprint: {told}\n", ""))  # of an older version
    assert RunFolder(folder).fingerprint() is None
    assert run(folder)["complete"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    script = "import sys, time; from collegium.training.run_folder import RunFolder\n"
    script += "with RunFolder(sys.argv[1]).locked(): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another process is training"), RunFolder(tmp_path).locked():
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with RunFolder(tmp_path).locked():
        pass
