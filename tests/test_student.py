import json
from pathlib import Path

import pytest
import torch

import collegium
from collegium.errors import DataError, UsageError
from collegium.networks import build
from collegium.student import save_peer, start_from


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


def test_a_network_starts_from_what_fits_and_says_what_does_not(tmp_path: Path) -> None:
    trained = saved(tmp_path)
    other = build("resnet8", num_classes=4, in_channels=1)
    fresh = other.classifier.linear.weight.detach().clone()
    assert start_from(other, 1, tmp_path) == (
        f"peer1 (resnet8) starts from {tmp_path}, except classifier.linear.weight, classifier.linear.bias."
    )
    assert torch.equal(other.stages["stage3"][0].conv1.weight, trained.stages["stage3"][0].conv1.weight)
    assert torch.equal(other.stages["stem"][1].running_var, trained.stages["stem"][1].running_var)
    assert torch.equal(other.classifier.linear.weight, fresh)


def test_peers_start_from_a_run_s_peers_in_turn(tmp_path: Path) -> None:
    trained = [saved(tmp_path / "run" / "peers" / f"peer{k}") for k in range(2)]
    for k in range(3):
        network = build("resnet8", num_classes=7, in_channels=1)
        assert start_from(network, k, tmp_path / "run").endswith(f"peer{k % 2}.")
        assert torch.equal(network.classifier.linear.weight, trained[k % 2].classifier.linear.weight)


def test_a_start_from_a_network_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(UsageError, match=r"peer0 \(wrn_10_3\) cannot start from .*: no layer of its resnet8 matches"):
        start_from(build("wrn_10_3", num_classes=5), 0, tmp_path)


def test_a_user_s_plain_module_is_loaded_too(tmp_path: Path) -> None:
    from collegium.networks import adapt

    def plain() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 7)
        )

    network = adapt(plain(), image_shape=(1, 8, 8), name="his own").eval()
    save_peer(network, tmp_path, num_classes=7, image_size=[8, 8])
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(collegium.load_peer(tmp_path, plain())(images), network(images))
