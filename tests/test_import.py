"""Importing the package costs little: what is heavy is imported when it is needed."""

import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

HEAVY = {
    "jsonargparse",
    "lightning_fabric",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "tensorboard",
    "timm",
    "torch._dynamo",
    "torchvision",
}


def seconds_and_modules(statement: str) -> tuple[float, set[str]]:
    script = (
        f"import time, sys; t = time.perf_counter(); {statement}\nprint(time.perf_counter() - t); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *_, seconds, modules = done.stdout.splitlines()
    return float(seconds), set(modules.split())


@cache
def modules_of_torch() -> set[str]:
    return seconds_and_modules("import torch")[1]


def heavy_modules(statement: str) -> set[str]:
    """Those that a statement imports, and torch alone does not."""
    return HEAVY & (seconds_and_modules(statement)[1] - modules_of_torch())


def test_importing_collegium_imports_nothing_heavy() -> None:
    _, modules = seconds_and_modules("import collegium")
    assert {name for name in modules if name.startswith("collegium")} == {"collegium"}
    assert not modules & (HEAVY | {"torch", "numpy", "rich"})
    assert heavy_modules("import collegium; [getattr(collegium, name) for name in collegium.__all__]") == set()


def test_importing_collegium_adds_at_most_half_a_second_to_torch() -> None:
    added = []
    for _ in range(3):
        seconds, _ = seconds_and_modules("import torch; t = time.perf_counter(); import collegium")
        added.append(seconds)
    assert statistics.median(added) < 0.5


def test_help_needs_nothing_but_the_standard_library() -> None:
    _, modules = seconds_and_modules("from collegium.cli import main; main(['--help'])")
    assert not modules & (HEAVY | {"torch", "numpy", "rich"})


def test_commands_that_train_nothing_import_nothing_that_training_needs() -> None:
    lists = [f"list {what}" for what in ("methods", "networks", "datasets", "recipes", "tables")]
    helps = [
        f"{command} --help" for command in ("train", "compare", "reproduce", "rank", "evaluate", "report", "export")
    ]
    statement = f"""
import contextlib
from collegium.cli import main
for command in {lists + helps}:
    with contextlib.suppress(SystemExit):
        main(command.split())
"""
    assert heavy_modules(statement) == {"jsonargparse"}


def test_a_network_of_this_package_needs_no_library_of_networks() -> None:
    heavy = heavy_modules("from collegium import networks; networks.build('resnet20', num_classes=2)")
    assert not heavy & {"timm", "torchvision"}


def test_the_training_loop_imports_torch_s_compiler_with_fabric_and_nothing_else_heavy() -> None:
    _, modules = seconds_and_modules("import collegium.training.run")
    assert HEAVY & (modules - modules_of_torch()) <= {"lightning_fabric", "sympy", "torch._dynamo"}
    assert "torchmetrics" not in modules  # which Fabric would import, where it is installed


def test_every_public_name_can_be_had() -> None:
    import collegium
    import collegium.pages.run_page  # a module must not hide the name of a function

    assert len(collegium.__all__) >= 11
    for name in collegium.__all__:
        assert getattr(collegium, name).__name__ == name


def test_a_run_of_own_networks_does_not_wait_for_timm(tmp_path: Path) -> None:
    options = "data={'name': 'digits', 'per_class': 2}, epochs=1, batch_size=10, device='cpu', quiet=True"
    run = (
        f"import collegium; collegium.train(method='dml', peers='2xresnet8', {options}, run={str(tmp_path / 'run')!r})"
    )
    assert "timm" not in heavy_modules(run)
