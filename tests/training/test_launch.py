"""Runs of several processes as a user starts, kills and repeats them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import nn

from collegium import networks
from collegium.errors import UsageError
from collegium.training.launch import _loopback_store, call_in_subprocess
from collegium.training.loop import Interrupted, Run
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

OPTIONS = "--method independent --peers 2xresnet8 --data digits --data.per_class 8 --batch-size 20 --device cpu"
COLLEGIUM = f"import sys; from collegium.cli import main; main(['train', *'{OPTIONS}'.split(), *sys.argv[1:]])"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a run has started for its devices."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(c) for c in children if "--multiprocessing-fork" in Path(f"/proc/{c}/cmdline").read_text()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_rank_ends_the_run_which_goes_on_with_another_number_of_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", COLLEGIUM, "--epochs", "500", "--devices", "2", "--run", str(folder.path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(folder.saved_checkpoints)
            begun = time.monotonic()
            os.kill(ranks_of(process)[1], signal.SIGKILL)
            _, said = process.communicate(timeout=60)
            assert time.monotonic() - begun < 9
        finally:
            process.kill()
    assert process.returncode == 1
    assert "2 processes share every batch of 20 images, 10 each. The learning rate 0.1 applies to the whole" in said
    assert said.splitlines()[-1].startswith("collegium: another process of this run ended; repeat the command to go on")
    done = torch.load(folder.saved_checkpoints()[-1], weights_only=True)["epoch"]
    end_epoch = Run.end_epoch

    def stop_then(self: Run, *arguments: Any) -> None:
        self.stop_requested = True
        end_epoch(self, *arguments)

    monkeypatch.setattr(Run, "end_epoch", stop_then)
    with pytest.raises(Interrupted, match=f"stopped after epoch {done + 1}, step 0"):
        train(folder.recipe(), folder.path, quiet=True)


def test_networks_from_python_are_trained_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)) for _ in range(2)]
    before = [p.clone() for p in own[0].parameters()]
    recipe = tiny(method={"name": "dml"}, share_until=None, peers="python:own", epochs=1)
    result = train(recipe, tmp_path / "run", peers=own, devices=2, quiet=True)
    assert result["processes"] == 2 and result == RunFolder(tmp_path / "run").result()
    state = torch.load(RunFolder(tmp_path / "run").saved_checkpoints()[-1], weights_only=True)["learner"]
    for old, (name, new) in zip(before, own[0].named_parameters(), strict=True):
        assert not torch.equal(old, new)
        assert any(torch.equal(new, tensor) for tensor in state.values()), name


def test_an_error_of_all_ranks_is_raised_once_and_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 processes cannot share batches of 20 images equally; .* 18 or 21"):
        train(tiny(), tmp_path / "run", devices=3, quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    network.extra = lambda: None  # type: ignore[assignment]
    with pytest.raises(UsageError, match="cannot be sent to another process .* define its class in a module"):
        train(tiny(peers="python:own"), tmp_path / "run", peers=[network], devices=2, quiet=True)


def test_a_call_in_a_subprocess_is_in_a_process_of_its_own() -> None:
    assert call_in_subprocess(partial(os.getppid)) == os.getpid()
    with pytest.raises(UsageError, match="not 999"):
        call_in_subprocess(partial(networks.check, "resnet999"))
    with pytest.raises(UsageError, match="cannot be sent to another process"):
        call_in_subprocess(partial(len, (lambda: None,)))


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """Two network namespaces joined by a cable, as commands that run another one within."""
    names = [f"collegium{os.getpid()}{side}" for side in "ab"]
    cables = [f"cable{os.getpid() % 10**7}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")

    with ExitStack() as undo:
        try:
            for name in names:
                ip("netns", "add", name)
                undo.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for k, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
                ip("link", "set", cable, "netns", name)
                for settings in (f"addr add 10.77.0.{k}/24 dev {cable}", f"link set {cable} up", "link set lo up"):
                    ip("-n", name, *settings.split())
        except FileNotFoundError:
            pytest.skip("network namespaces cannot be made here: there is no command ip")
        yield [
            ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={cable}"]
            for name, cable in zip(names, cables, strict=True)
        ]


def test_two_hosts_train_by_torchrun(hosts: list[list[str]], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(COLLEGIUM)
    start = partial(subprocess.Popen, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ExitStack() as ends:
        processes = []
        for node, inside in enumerate(hosts):
            torchrun = f"-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --node-rank {node}".split()
            meeting = "--master-addr 10.77.0.1 --master-port 29500".split()
            options = f"--epochs 2 --devices 1 --num-nodes 2 --run {tmp_path / f'host{node}'}".split()
            process = start([*inside, sys.executable, *torchrun, *meeting, "--", str(script), *options])
            ends.enter_context(process)
            ends.callback(process.kill)
            processes.append(process)
        said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    result = RunFolder(tmp_path / "host0").result()
    assert result is not None and result["complete"] and result["processes"] == 2
    assert not (tmp_path / "host1").exists() and "top-1" in said[0] and "top-1" not in said[1]
    provenance = (tmp_path / "host0" / "recipe.yaml").read_text()
    assert "devices: 1" in provenance and "nodes: 2" in provenance


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_processes_of_one_machine_meet_where_the_network_does_not_reach() -> None:
    store = _loopback_store()
    tables = [Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6")]
    opened = [line.split()[1:4] for table in tables for line in table.splitlines()]
    port = f":{store.port:04X}"
    assert [at for at, _, state in opened if at.endswith(port) and state == "0A"] == [f"0100007F{port}"]
    store.set("key", "value")
    assert store.get("key") == b"value"
