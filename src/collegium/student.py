"""A trained peer on disk: weights and a description. Loading one does not need the training code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collegium import networks
from collegium.cohort import is_peer
from collegium.errors import DataError, UsageError
from collegium.files import write_whole
from collegium.networks import Network


def save_peer(network: Network, folder: Path, **description: Any) -> None:
    """Writes model.safetensors and config.json.

    The weights of a timm, torchvision or user network keep their names there, so that it can load them without
    Collegium. ``description`` must hold num_classes; other entries (class names, normalisation) are for the user.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.plain().state_dict().items()
    }
    config = {"network": network.name, "in_channels": network.in_channels, **description}
    write_whole(folder / "model.safetensors", save(weights))
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def peer_folder(path: str | Path) -> Path:
    """The folder of a peer: ``path`` itself or, where ``path`` is a run, that of its deployed peer.

    Raises:
        UsageError: ``path`` is neither.
    """
    path = Path(path)
    for folder in (path, path / "peers" / deployed_peer(_result(path))):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    raise UsageError(f"{path} is neither a peer's folder (config.json, model.safetensors) nor a finished run")


def _result(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run / "result.json").read_text()))
    except (OSError, ValueError):
        return {}


def deployed_peer(result: Mapping[str, Any]) -> str:
    """The peer that a run with this result.json deploys."""
    return str(result.get("deployed_peer", "peer0"))


def read_config(path: str | Path) -> dict[str, Any]:
    """A peer's description: network, num_classes, class_names, image_size, mean, std."""
    file = peer_folder(path) / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    assert isinstance(config, dict)
    return config


def load_peer(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """A trained peer in evaluation mode.

    Args:
        path: a peer's folder, or a run, for its deployed peer (a leader, else the first).
        network: the untrained module to load into, where the peer was a network of the user's own.

    Raises:
        UsageError: there is no peer, or its network must be given.
        DataError: the files are unreadable or do not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = peer_folder(path)
    config = read_config(folder)
    if network is None:
        try:
            network = networks.build(
                networks.untrained(config["network"]),
                num_classes=config["num_classes"],
                in_channels=config["in_channels"],
                image_size=tuple(config.get("image_size", (32, 32))),
            )
        except UsageError as error:
            raise UsageError(
                f"{folder} cannot be loaded by the name of its network: {error}; give the untrained module: network=..."
            ) from error
    plain = network.plain() if isinstance(network, Network) else network
    try:
        plain.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, OSError, RuntimeError) as error:
        file, name, reason = folder / "model.safetensors", networks.name_of(network), str(error).splitlines()[0]
        raise DataError(f"{file} cannot be loaded as {name}: {reason}") from error
    return network.eval()


def start_from(network: Network, index: int, path: str | Path) -> str:
    """Copies the weights of a trained peer into a network wherever name and shape match.

    Args:
        network: its other weights do not change.
        index: its index in the cohort; a run's peers are used in turn.
        path: a finished run, or a peer's folder.

    Returns:
        A sentence that names the weights that did not match.

    Raises:
        UsageError: there is no peer, or none of its layers matches.
        DataError: the files are unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    named = [folder for folder in Path(path).glob("peers/peer*") if is_peer(folder.name)]
    peers = sorted(named, key=lambda folder: int(folder.name.removeprefix("peer")))
    folder = peer_folder(peers[index % len(peers)] if peers else path)
    file = folder / "model.safetensors"
    try:
        trained = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    own = network.plain().state_dict()
    fitting = {name for name, tensor in own.items() if name in trained and trained[name].shape == tensor.shape}
    if not any(own[name].ndim > 1 for name in fitting):
        source = read_config(folder)["network"]
        raise UsageError(f"peer{index} ({network.name}) cannot start from {folder}: no layer of its {source} matches")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(trained[name])
    fresh = [name for name in own if name not in fitting]
    but = f", except {', '.join(fresh[:4])}{' and more' if len(fresh) > 4 else ''}" if fresh else ""
    return f"peer{index} ({network.name}) starts from {folder}{but}."
