import pytest
import torch

from collegium.errors import UsageError
from collegium.networks import build, check

SOURCE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes, in_channels=3, width=4):
        super().__init__(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))

def net(num_classes, in_channels, image_size, width=4):
    sides = (image_size[0] - 2) * (image_size[1] - 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * sides, num_classes))

class Passing(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

class Child(Passing):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)

def broken(num_classes):
    raise ValueError("a mistake of mine")

def rigid():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

def not_a_net(num_classes):
    return "net"

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_networks", raising=False)


def test_a_function_in_the_current_folder_is_found_and_told_what_the_data_ask_for():
    network = build("module:my_networks.net", num_classes=7, in_channels=2, image_size=(9, 8))
    assert network(torch.randn(2, 2, 9, 8)).shape == (2, 7)
    assert network.name == "module:my_networks.net"


def test_options_are_passed_and_features_named():
    network = build("module:my_networks.net:width=6:features=0+1", num_classes=7)
    assert [m.shape[1] for m in network.forward_features(torch.randn(2, 3, 32, 32))] == [6, 6]


def test_a_function_without_keywords_is_called_with_nothing():
    assert build("module:my_networks.rigid", num_classes=5)(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def test_keywords_that_are_passed_on_to_a_base_class_are_found_there():
    assert build("module:my_networks.Child", num_classes=7, in_channels=2)(torch.randn(2, 2, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("module:net", "cannot find 'net': write module:package.function"),
        ("module:nowhere.net", "cannot find 'nowhere.net' from .*: No module named 'nowhere'"),
        ("module:my_networks.nothing", "has no attribute 'nothing'"),
        ("module:my_networks.number", "my_networks.number is a int, not a function or a class derived from"),
    ],
)
def test_what_is_not_there_is_refused_before_any_data_are_read(name, reason):
    with pytest.raises(UsageError, match=reason):
        check(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("module:my_networks.not_a_net", "made a str, not a torch.nn.Module"),
        ("module:my_networks.broken", "my_networks.broken raised ValueError: a mistake of mine"),
        ("module:my_networks.net:colour=red", "cannot be called with num_classes, .*colour"),
    ],
)
def test_what_it_makes_must_be_a_network(name, reason):
    with pytest.raises(UsageError, match=reason):
        build(name, num_classes=5)
