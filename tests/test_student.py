import json
import shutil
from pathlib import Path

import pytest
import torch

import collegium
from collegium.errors import DataError, UsageError
from collegium.exporting import export
from collegium.networks import build
from collegium.student import read_config, save_peer, start_from
from collegium.training.recipe import Recipe
from made_up_runs import result_of


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


def run_of(folder: Path, deployed: str | None) -> list[collegium.Network]:
    """A run as far as two peers and a result."""
    peers = [saved(folder / "peers" / f"peer{k}") for k in range(2)]
    recipe = Recipe(method={"name": "dml"}, peers="2xresnet8", data={"name": "digits"})
    result = result_of(recipe, dict.fromkeys(("peer0", "peer1", "ensemble", "mean_peer"), 0.5))
    (folder / "result.json").write_text(json.dumps(result | ({} if deployed is None else {"deployed_peer": deployed})))
    return peers


def test_a_run_stands_for_the_peer_that_it_deploys(tmp_path: Path) -> None:
    peers = run_of(tmp_path / "run", "peer1")
    loaded = collegium.load_peer(tmp_path / "run")
    assert torch.equal(peers[1].state_dict()["classifier.linear.weight"], loaded.classifier.linear.weight)


@pytest.mark.parametrize("damage", [None, "", "null", "[]", "{}", '{"deployed_peer": "peer1"}', "[" * 10**5, "cut"])
def test_a_run_that_does_not_say_which_peer_it_deploys_is_refused(damage: str | None, tmp_path: Path) -> None:
    run_of(tmp_path, "peer1")
    file = tmp_path / "result.json"
    if damage is None:
        file.unlink()
    else:
        file.write_text(file.read_text()[:-40] if damage == "cut" else damage)
    for use in (collegium.load_peer, read_config, export):
        with pytest.raises(DataError, match="does not say which peer it deploys .*result.json"):
            use(tmp_path)


def test_a_deployed_peer_that_is_left_out_is_known_of_one_peer_alone(tmp_path: Path) -> None:
    run_of(tmp_path, None)
    with pytest.raises(DataError, match="does not say which peer it deploys; give one"):
        collegium.load_peer(tmp_path)


@pytest.mark.parametrize("name", ["../../other/peer0", "/etc", "peer2", "peer0/../../..", "..", ""])
def test_a_deployed_peer_outside_the_run_is_refused(name: str, tmp_path: Path) -> None:
    saved(tmp_path / "other" / "peer0")
    run_of(tmp_path / "run", name)
    with pytest.raises(DataError, match="deployed_peer must be one of 2 peers"):
        collegium.load_peer(tmp_path / "run")


def test_a_peer_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    saved(tmp_path / "other")
    run_of(tmp_path / "run", "peer1")
    shutil.rmtree(tmp_path / "run" / "peers" / "peer1")
    (tmp_path / "run" / "peers" / "peer1").symlink_to(tmp_path / "other")
    with pytest.raises(DataError, match="peer1 is a link"):
        collegium.load_peer(tmp_path / "run")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "model.safetensors.sha256", "config.json.sha256"])
def test_a_byte_that_is_flipped_in_a_peer_is_noticed(file: str, tmp_path: Path) -> None:
    saved(tmp_path)
    content = (tmp_path / file).read_bytes()
    for place in range(0, len(content), max(1, len(content) // 25)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (tmp_path / file).write_bytes(flipped)
        with pytest.raises(DataError, match="is damaged"):
            collegium.load_peer(tmp_path)


def test_a_peer_of_before_there_were_checksums_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path)
    for checksum in tmp_path.glob("*.sha256"):
        checksum.unlink()
    assert isinstance(collegium.load_peer(tmp_path), collegium.Network)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"network": 3}, "network must be a text, not 3"),
        ({"num_classes": 10**12}, "num_classes must be a whole number from 2 to 1000000"),
        ({"in_channels": "1"}, "in_channels must be a whole number"),
        ({"image_size": [8]}, "image_size must have 2 values"),
        ({"class_names": ["a"]}, "class_names must have 7 values"),
        ({"mean": [float("nan")]}, r"mean\[0\] must be a number"),
        ({"std": [0.0]}, r"std\[0\] must be a number from"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change: dict[str, object], wrong: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json.sha256").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=f"config.json is not as it was written: {wrong}"):
        collegium.load_peer(tmp_path)


def test_a_network_of_the_users_own_is_loaded_into_what_he_gives(tmp_path: Path) -> None:
    network = saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"network": "his own"}))
    (tmp_path / "config.json.sha256").unlink()
    with pytest.raises(UsageError, match="no network is called 'his own'"):
        collegium.load_peer(tmp_path)
    loaded = collegium.load_peer(tmp_path, build("resnet8", num_classes=7, in_channels=1))
    assert torch.equal(loaded(torch.ones(1, 1, 8, 8)), network(torch.ones(1, 1, 8, 8)))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="model.safetensors is damaged"):
        collegium.load_peer(tmp_path)
    (tmp_path / "model.safetensors.sha256").unlink()
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
