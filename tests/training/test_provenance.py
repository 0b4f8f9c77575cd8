"""Provenance names the commit, and whether the code differs from it."""

import re
import subprocess
from pathlib import Path

import pytest

from collegium.training import provenance


def test_the_commit_says_when_any_part_of_the_package_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "collegium"
    (package / "training").mkdir(parents=True)
    for file in ("__init__.py", "training/provenance.py", "losses.py"):
        (package / file).write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "training" / "provenance.py"))
    assert provenance._commit() == ""  # outside a checkout
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    assert re.fullmatch("[0-9a-f]{12}", provenance._commit())
    (package / "losses.py").write_text("changed")
    assert provenance._commit().endswith("+changes")
