import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run, tiny

from collegium.errors import TrainingError, UsageError
from collegium.training.recipe import Recipe
from collegium.training.run import train
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
        "checkpoints/step_000000008.pt",
        "checkpoints/step_000000012.pt",
        *(f"peers/peer{k}/{name}" for k in (0, 1) for name in ("model.safetensors", "config.json")),
    }
    assert list((trained / "tensorboard").glob("events*"))


def test_the_recipe_says_every_default_and_where_it_ran(trained: Path) -> None:
    recipe = RunFolder(trained).recipe()
    assert recipe.method["fusion_weight_decay"] == 1e-5
    assert recipe.data == tiny().data | {
        "validation": 0.0,
        "split_seed": 0,
        "label_noise": 0.0,
        "noise_kind": "symmetric",
        "padding": None,
        "padding_mode": None,
        "flip": None,
    }
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


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 1000])
def test_a_damaged_checkpoint_is_named_with_the_way_on(damage: object, tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    newest = tmp_path / "run" / "checkpoints" / "step_000000012.pt"
    newest.write_bytes(damage(newest.read_bytes()))  # type: ignore[operator]
    with pytest.raises(TrainingError, match="step_000000012.pt cannot be read.*delete it.*step_000000008.pt"):
        run(tmp_path / "run")
    newest.unlink()
    assert run(tmp_path / "run")["complete"]


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("2xresnet8", "2xresnet14"))
    with pytest.raises(TrainingError, match="do not fit the recipe's networks"):
        run(tmp_path / "run", peers="2xresnet14")


def test_an_unreadable_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"half": ')
    with pytest.raises(TrainingError, match="result.json is unreadable"):
        RunFolder(tmp_path).result()


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
