"""Importing the package costs little: what is heavy is imported when it is needed."""

import statistics
import subprocess
import sys

HEAVY = ("lightning", "torchvision", "timm", "matplotlib", "sklearn", "scipy", "torchmetrics", "jsonargparse", "pandas")


def seconds_and_modules(statement: str) -> tuple[float, set[str]]:
    script = (
        f"import time, sys; t = time.perf_counter(); {statement}; print(time.perf_counter() - t); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    return float(seconds), set(modules.split())


def test_importing_collegium_imports_nothing_heavy() -> None:
    torch_alone = seconds_and_modules("import torch")[1]
    _, modules = seconds_and_modules("import collegium; collegium.load_peer; collegium.Cohort; collegium.Method")
    assert "collegium.cohort" in modules
    assert [name for name in HEAVY if name in modules - torch_alone] == []


def test_importing_collegium_adds_at_most_half_a_second_to_torch() -> None:
    added = []
    for _ in range(3):
        seconds, _ = seconds_and_modules("import torch; t = time.perf_counter(); import collegium")
        added.append(seconds)
    assert statistics.median(added) < 0.5


def test_every_public_name_can_be_had() -> None:
    import collegium
    import collegium.reporting.page  # a module must not hide the name of a function

    assert len(collegium.__all__) >= 11
    for name in collegium.__all__:
        assert getattr(collegium, name).__name__ == name
