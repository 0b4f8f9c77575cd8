import json
import sqlite3
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_same_run, tiny

from collegium import Callbacks
from collegium.errors import Interrupted, UsageError
from collegium.training import loggers
from collegium.training.loggers import Logger, Loggers, parse_loggers
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def interrupted_once(folder: Path, *names: str) -> None:
    """A run that is stopped after its first of two epochs, and goes on."""
    with pytest.raises(Interrupted):
        train(tiny(epochs=2), folder, quiet=True, loggers=names, callbacks=Callbacks(on_epoch_end=lambda view: False))
    train(tiny(epochs=2), folder, quiet=True, loggers=names)


def test_mlflow_has_one_run_with_recipe_and_metrics_in_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'tracking.db'}")
    interrupted_once(tmp_path / "run", "mlflow")
    rows = RunFolder(tmp_path / "run").metrics()
    with sqlite3.connect(tmp_path / "tracking.db") as database:
        ((identity, name, status),) = database.execute("select run_uuid, name, status from runs").fetchall()
        metrics = database.execute("select key, step, value from metrics").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
        ((experiment,),) = database.execute("select name from experiments where name != 'Default'").fetchall()
    database.close()
    assert (name, status, experiment) == ("run", "FINISHED", "collegium")
    assert json.loads((tmp_path / "run" / "loggers.json").read_text()) == {"mlflow": identity}
    found = {(key, step): value for key, step, value in metrics}
    assert found == {(key, int(row["epoch"])): pytest.approx(value) for row in rows for key, value in row.items()}
    assert params["method.name"] == "ffl" and params["peers"] == "2xresnet8" and params["epochs"] == "2"


def test_mlflow_gets_no_more_in_a_call_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'tracking.db'}")
    row = {f"test/peer{k}/top1_error": k / 4000 for k in range(2100)}
    config = {f"entry{k}": k for k in range(130)}
    with Loggers(["mlflow"], tmp_path, config, 1, write=True) as made:
        made.add(row, 1)
        assert list(made.active) == ["mlflow"]
    with sqlite3.connect(tmp_path / "tracking.db") as database:
        found = dict(database.execute("select key, value from metrics").fetchall())
        assert database.execute("select count(*) from params").fetchall() == [(130,)]
    database.close()
    assert found == pytest.approx(row)


def records(content: bytes) -> Iterator[bytes]:
    """Those of a .wandb file: a header of 7 bytes, then LevelDB's log in blocks of 32 KiB."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block holds no head of a record
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def test_wandb_writes_recipe_and_metrics_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    interrupted_once(tmp_path / "run", "wandb")
    rows = RunFolder(tmp_path / "run").metrics()
    identity = json.loads((tmp_path / "run" / "loggers.json").read_text())["wandb"]
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    history: dict[int, dict[str, float]] = {}
    config: dict[str, Any] = {}
    for file in files:
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                values = {(item.key or "/".join(item.nested_key)): item for item in record.history.item}
                plain = {key: json.loads(item.value_json) for key, item in values.items()}
                history[record.history.step.num] = plain
    for row in rows:
        logged = history[int(row["epoch"])]
        assert {key: logged[key] for key in row} == pytest.approx(row)
    assert config["method.name"] == "ffl" and config["epochs"] == 2


class Failing(Logger):
    """One that fails where it is told to."""

    def __init__(self, at: str) -> None:
        self.at = at

    def _fail(self, place: str) -> None:
        if place == self.at:
            raise ConnectionError("nobody\nanswers")

    def open(self, run: Path, config: Any, known: str | None) -> str:
        self._fail("open")
        return "x"

    def add(self, row: Any, epoch: int) -> None:
        self._fail("add")

    def close(self, *, failed: bool) -> None:
        self._fail("close")


@pytest.mark.parametrize("place", ("open", "add", "close"))
def test_one_that_fails_is_told_once_and_training_goes_on(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loggers.LOGGERS, "wandb", lambda: Failing(place))  # type: ignore[arg-type]
    message = r"the logger wandb failed: ConnectionError: nobody answers \(training goes on without it\)"
    with pytest.warns(UserWarning, match=message) as warned:
        train(tiny(epochs=2), tmp_path / "run", quiet=True, loggers=["wandb"])
    assert len(warned) == 1
    train(tiny(epochs=2), tmp_path / "without", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "without")


def test_what_is_known_of_a_run_is_given_back_and_damage_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    class Noting(Failing):
        def open(self, run: Path, config: Any, known: str | None) -> str:
            seen.append(known)
            return "x"

    monkeypatch.setitem(loggers.LOGGERS, "wandb", lambda: Noting(""))  # type: ignore[arg-type]
    for _ in range(2):
        with Loggers(["wandb"], tmp_path, {}, 1, write=True):
            pass
    assert seen == [None, "x"]
    (tmp_path / "loggers.json").write_text("{")
    with pytest.warns(UserWarning, match="the logger wandb failed: JSONDecodeError"):
        with Loggers(["wandb"], tmp_path, {}, 1, write=True) as found:
            assert not found.active
    with warnings.catch_warnings(), Loggers(["wandb"], tmp_path, {}, 1, write=False) as found:
        assert not found.active


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: True if name == "mlflow" else None)
    assert parse_loggers(None) == () and parse_loggers(" mlflow,mlflow") == ("mlflow",)
    with pytest.raises(UsageError, match="loggers names nothing: give some of wandb, mlflow, or leave it out"):
        parse_loggers(",")
    with pytest.raises(UsageError, match=r"the logger wandb needs its package: .*'\.\[wandb\]'"):
        parse_loggers("mlflow,wandb")
    with pytest.raises(UsageError, match="there is no logger 'wandd'; did you mean 'wandb'"):
        parse_loggers("wandd")
