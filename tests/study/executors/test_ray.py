"""A real cluster on this machine: a head and two more nodes, of one CPU each."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from collegium.cli import main
from collegium.errors import CollegiumError, DataError, UsageError
from collegium.study.executors import ray as ray_executor
from collegium.study.executors.local import Event, Executor, Job
from collegium.study.executors.ray import RayExecutor
from collegium.study.executors.worker import work
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

ray = pytest.importorskip("ray", reason="Ray is not installed")

# Ray leaves the pipes and logs of processes that it starts to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning", "ignore::FutureWarning:ray"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("COLLEGIUM_DATA", raising=False)
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        started = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        started.add_node(**small)
        started.add_node(**small)
        yield started
        started.shutdown()


def job(folder: Path, key: str, after: str | None = None, **changes: Any) -> Job:
    """An epoch of four steps takes a few hundredths of a second."""
    recipe: dict[str, Any] = dict(
        method={"name": "dml"},
        peers="2xresnet8",
        data={"name": "digits", "per_class": 8},
        epochs=3,
        batch_size=20,
        device="cpu",
    )
    return Job(key, Recipe.from_dict(recipe | changes), folder / "runs" / key, folder / "logs" / f"{key}.txt", after)


class Deaf:
    """Ray, of whose requests to stop the first is lost."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.asked = 0

    def cancel(self, says: Iterator[object]) -> None:
        self.asked += 1

    def wait(self, says: list[Iterator[object]], timeout: float) -> tuple[list[Iterator[object]], list[object]]:
        return (says if self.asked > 1 else []), []

    def get(self, value: object) -> object:
        return value


def test_a_run_that_was_not_reached_is_asked_to_stop_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "STOPPING", 0.01)
    deaf, said = Deaf(), iter([{"state": "stopped"}])
    ray_executor._stop(deaf, [ray_executor._Run(job(tmp_path, "a"), said)])
    assert deaf.asked == 2 and next(said, None) is None


def six(folder: Path) -> list[Job]:
    """Three runs that take a while, one that learns from the first, one that fails, one that would learn from that."""
    slow: dict[str, Any] = dict(epochs=40, evaluate_every=40, keep_checkpoints=1000)
    pupil: dict[str, Any] = dict(method={"name": "kd"}, peers="resnet8")
    return [
        *(job(folder, key, seed=k, **slow) for k, key in enumerate("abc")),
        job(folder, "taught", after="a", teacher=str(folder / "runs" / "a"), **pupil),
        job(folder, "wrong", teacher=str(folder / "none"), **pupil),
        job(folder, "idle", after="wrong", teacher=str(folder / "runs" / "wrong"), **pupil),
    ]


def run_all(executor: Executor, jobs: list[Job]) -> list[tuple[str, str]]:
    return [(event.key, event.state) for event in executor.run(jobs)]


def assert_same_run(first: Path, second: Path) -> None:
    """Weights bit for bit, and all measured rows but the clock."""
    peers = sorted(file.relative_to(first) for file in first.glob("peers/*/model.safetensors"))
    assert peers
    for peer in peers:
        assert (first / peer).read_bytes() == (second / peer).read_bytes(), peer
    rows, others = RunFolder(first).metrics(), RunFolder(second).metrics()
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in others]


def test_the_runs_of_a_lost_node_go_on_elsewhere_and_end_as_on_one_machine(cluster: Any, tmp_path: Path) -> None:
    jobs, events = {job.key: job for job in six(tmp_path)}, list[Event]()
    slow = [jobs[key] for key in "abc"]
    saved: dict[Path, int] = {}
    for event in RayExecutor(cluster.address).run(list(jobs.values())):
        events.append(event)
        if (event.key in "abc", event.state) == (True, "started") and len(events) == 3:
            wait_for(lambda: all(len(RunFolder(job.folder).saved_checkpoints()) > 2 for job in slow))
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        if event.state == "broken":
            saved = {f: f.stat().st_mtime_ns for f in RunFolder(jobs[event.key].folder).saved_checkpoints()}

    states = {key: [e.state for e in events if e.key == key] for key in jobs}
    broken, failed = ([e for e in events if e.state == state] for state in ("broken", "failed"))
    assert len(broken) == 1
    assert states.pop(broken[0].key) == ["started", "broken", "started", "done"]
    assert f"its node {socket.gethostname()}" in broken[0].error and "was lost" in broken[0].error
    assert len(saved) > 2
    assert saved == {file: file.stat().st_mtime_ns for file in saved}, "epochs that were saved are not trained again"

    assert states.pop("wrong") == ["started", "failed"]
    assert str(tmp_path / "none") in failed[0].error and f"on node {socket.gethostname()}" in failed[0].error
    assert "Traceback" in failed[0].trace
    assert states.pop("idle") == []
    assert len(states) == 3 and all(seen == ["started", "done"] for seen in states.values())
    order = [(event.key, event.state) for event in events]
    assert order.index(("a", "done")) < order.index(("taught", "started"))
    assert not list((tmp_path / "runs").glob(".seen*"))

    assert "threads: 1\n" in RunFolder(jobs["a"].folder).recipe_file.read_text()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for key in broken[0].key, "taught":
        alone = tmp_path / "alone" / key
        assert work(jobs[key].recipe.to_dict(), str(alone)) == {"state": "done"}, "what LocalExecutor's processes call"
        assert_same_run(alone, jobs[key].folder)
    torch.set_num_threads(before)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_closing_lets_a_run_save_its_state_in_the_middle_of_an_epoch(cluster: Any, tmp_path: Path) -> None:
    endless = job(tmp_path, "endless", epochs=100_000, evaluate_every=100_000, checkpoint_every=100_000)
    with contextlib.closing(RayExecutor(cluster.address).run([endless])) as events:
        assert next(events) == Event("endless", "started")
        wait_for((endless.folder / "tensorboard").exists)
    assert len(RunFolder(endless.folder).saved_checkpoints()) == 1
    with RunFolder(endless.folder).locked():
        pass  # its process is gone
    assert not ray.is_initialized()


def test_a_node_that_lacks_the_data_is_named(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"node {socket.gethostname()} .* cannot read cifar100: .*COLLEGIUM_DATA"):
        run_all(RayExecutor(cluster.address), [job(tmp_path, "a", data={"name": "cifar100", "root": str(tmp_path)})])
    assert not (tmp_path / "runs" / "a").exists()


def test_what_no_node_has_is_refused(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no node .* has 2 CPUs, .*--cpus-per-run"):
        run_all(RayExecutor(cluster.address, cpus_per_run=2), [job(tmp_path, "a")])
    with pytest.raises(UsageError, match=r"no node .* has 1 CPU and 0.5 GPU, .*--gpus-per-run"):
        run_all(RayExecutor(cluster.address, gpus_per_run=0.5), [job(tmp_path, "a", device="auto")])


def test_a_node_that_does_not_see_the_study_is_told_from_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "ANSWER", 0.1)
    jobs = [job(tmp_path, "a")]
    with ray_executor._token(jobs) as token:
        assert ray_executor._look(ray_executor._Needed.by(jobs, token)) is None
        os.rename(tmp_path / "runs", tmp_path / "moved")
        kind, sentence = ray_executor._look(ray_executor._Needed.by(jobs, token)) or ("", "")
    assert kind == "folder" and str(tmp_path / "runs") in sentence and "--study" in sentence


def test_another_version_on_a_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(tmp_path, "a")]
    with ray_executor._token(jobs) as token:
        needed = ray_executor._Needed.by(jobs, token)
        needed.versions["torch"] = "0.4"
        kind, sentence = ray_executor._look(needed) or ("", "")
    assert kind == "version" and "torch" in sentence and "this process 0.4" in sentence


def test_a_cluster_that_does_not_answer_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = f"127.0.0.1:{silent.getsockname()[1]}"
        for address in (deaf, "127.0.0.1:1"):
            begun = time.monotonic()
            with pytest.raises(UsageError, match=f"no Ray cluster answers at {address} .*ray start --head"):
                RayExecutor(address)
            assert time.monotonic() - begun < 5
    for address in ("ray://head:10001", "head"):
        with pytest.raises(UsageError, match="HOST:PORT"):
            RayExecutor(address)


def test_without_ray_the_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CollegiumError, match=r"pip install -e '.\[ray\]'"):
        RayExecutor()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--address 127.0.0.1:1", "--address is about a Ray cluster; add --executor ray"),
        ("--executor ray --address 127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("--executor ray --cpus-per-run 0", "cpus_per_run must be 1 or more"),
    ],
)
@pytest.mark.parametrize("command", ["compare --methods dml --peers 2xresnet8", "reproduce ffl/ablation"])
def test_the_command_line_names_the_cluster(
    command: str, options: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--study", str(study), *options.split()])
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err
    assert not study.exists()


@pytest.mark.parametrize("wrong", [{"cpus_per_run": 0}, {"gpus_per_run": -1}, {"gpus_per_run": 1.5}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RayExecutor(**wrong)


def test_a_job_is_given_up_after_three_breaks_at_the_same_checkpoint(tmp_path: Path) -> None:
    broken, attempts = job(tmp_path, "a"), ray_executor._Attempts()
    checkpoints = RunFolder(broken.folder).checkpoints
    checkpoints.mkdir(parents=True)
    assert attempts.another(broken) and attempts.another(broken)
    (checkpoints / "step_000000004.pt").touch()
    assert [attempts.another(broken) for _ in range(3)] == [True, True, False]
