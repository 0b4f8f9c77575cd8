import json
from pathlib import Path

import pytest
import torch

import collegium
from collegium.errors import DataError, UsageError
from collegium.networks import build
from collegium.student import save_peer


def saved(folder: Path) -> collegium.Network:
    network = build("resnet8", num_classes=7, in_channels=1).eval()
    save_peer(network, folder, num_classes=7, class_names=list("abcdefg"))
    return network


def test_a_saved_peer_gives_the_same_logits_after_loading(tmp_path: Path) -> None:
    network = saved(tmp_path / "peer0")
    loaded = collegium.load_peer(tmp_path / "peer0")
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(network(images), loaded(images))
    assert not loaded.training


def test_a_run_stands_for_its_first_peer(tmp_path: Path) -> None:
    network = saved(tmp_path / "run" / "peers" / "peer0")
    loaded = collegium.load_peer(tmp_path / "run")
    assert torch.equal(network.state_dict()["classifier.linear.weight"], loaded.classifier.linear.weight)


def test_a_network_of_the_users_own_is_loaded_into_what_he_gives(tmp_path: Path) -> None:
    network = saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"network": "his own"}))
    with pytest.raises(UsageError, match="no network is called 'his own'"):
        collegium.load_peer(tmp_path)
    loaded = collegium.load_peer(tmp_path, build("resnet8", num_classes=7, in_channels=1))
    assert torch.equal(loaded(torch.ones(1, 1, 8, 8)), network(torch.ones(1, 1, 8, 8)))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="model.safetensors cannot be loaded as resnet8"):
        collegium.load_peer(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(DataError, match="cannot be loaded as resnet14"):
        collegium.load_peer(tmp_path, build("resnet14", num_classes=7, in_channels=1))


def test_a_folder_without_a_peer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a peer's folder"):
        collegium.load_peer(tmp_path)
