import os
from pathlib import Path

import pytest

from collegium.study.executors import machine
from collegium.study.executors.machine import Gpu, Host, left_in, places

TOLD = """#!/bin/sh
case "$*" in
  *query-gpu=index*) printf '0\\n1\\n' ;;
  *memory.used*--id=1) echo 3000 ;;
  *memory.free*--id=1) echo 21000 ;;
  *) echo "[N/A]" ;;
esac
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi tells of two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(TOLD)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_is_a_place_with_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _, first, second = places(Host())
    assert second.environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert (second.used(), second.free()) == (3000 * 2**20, 21000 * 2**20)
    assert second.taken(0, 1000 * 2**20) == 2000 * 2**20
    assert second.taken(0, None) is None, "what was not seen is not guessed"
    assert first.free() is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [place.name for place in places(Host())] == ["cpu", "gpu 1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [place.name for place in places(Host())] == ["cpu"]


def test_a_machine_without_gpus_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place.name for place in places(Host())] == ["cpu"]
    assert Gpu("0").free() is None


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, asked = Gpu("1"), []
    ask = gpu._ask
    monkeypatch.setattr(gpu, "_ask", lambda what: asked.append(what) or ask(what))
    assert gpu.free() == gpu.free() == 21000 * 2**20 and len(asked) == 1
    monkeypatch.setattr(machine, "FRESH", 0.0)
    assert gpu.free() == 21000 * 2**20 and len(asked) == 2


def test_files_that_were_read_do_not_count_against_a_container_s_limit(tmp_path: Path) -> None:
    assert left_in(tmp_path) is None
    told = {"max": "1000\n", "current": "900\n", "stat": "anon 200\nactive_file 300\ninactive_file 350\n"}
    for name, text in told.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert left_in(tmp_path) == 750
    (tmp_path / "memory.max").write_text("max\n")
    assert left_in(tmp_path) is None


def test_this_machine_is_measured() -> None:
    host = Host()
    free = host.free()
    assert host.cores >= 1
    if Path("/proc").exists():
        assert free is not None and 2**20 < free < 2**50
        taken = host.taken(os.getpid(), None)
        assert taken is not None and 2**20 < taken < 2**40
