import numpy as np
import pytest
import torch

import collegium
from collegium.data import load, names
from collegium.data.user_data import as_data
from collegium.errors import UsageError

SOURCE = """
import numpy as np

def pair(count, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return random.integers(256, size=(count, 8, 8, 3), dtype=np.uint8), labels

def load():
    return pair(30, 0), pair(9, 1)

def wrong():
    return 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_data", raising=False)


def test_a_function_in_the_current_folder_gives_data_by_name():
    assert "module:FUNCTION" in names()
    data = load("module:my_data.load", per_class=5)
    assert (len(data.train), len(data.test), data.num_classes) == (15, 9, 3)


def test_peers_and_data_of_ones_own_are_trained_by_name(tmp_path):
    result = collegium.train(
        method="dml", peers="2xresnet8", data="module:my_data.load", epochs=1, batch_size=15, quiet=True, device="cpu"
    )
    assert result["test_images"] == 9
    assert (tmp_path / "runs" / "dml-module-my_data.load-seed0" / "result.json").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("module:my_data.nothing", "cannot find 'my_data.nothing'"),
        ("module:my_data.wrong", "data must be a name"),
        ("module", "there is no data set 'module'; write module:FUNCTION"),
    ],
)
def test_what_is_no_data_is_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        load(name)


def test_arrays_and_data_sets_are_taken_and_anything_else_is_refused():
    pair = (np.zeros((6, 8, 8), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None], np.arange(6) % 2)
    assert as_data((pair, pair)).num_classes == 2
    items = torch.utils.data.TensorDataset(torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8), torch.arange(6) % 2)
    assert as_data((items, items)).num_classes == 2
    with pytest.raises(UsageError, match="data must be a name"):
        as_data(3)
