"""A trained peer on disk: weights and a description. Loading one does not need the training code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collegium import networks
from collegium.cohort import is_peer
from collegium.errors import DataError, UsageError
from collegium.files import check_whole, checksum_file, inside, storing, write_checked
from collegium.hub import located
from collegium.networks import Network
from collegium.networks.timm_models import timm_description
from collegium.schemas import LARGEST_JSON, read_result
from collegium.schemas import read_config as read_config_file
from collegium.user_code import Untrusted, consents

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_peer(network: Network, folder: Path, **description: Any) -> dict[str, Any]:
    """Writes model.safetensors and config.json, and the checksum of each beside it.

    The weights of a timm, torchvision or user network keep their names there, so that it can load them without
    Collegium: a timm network's folder is read by ``timm.create_model("local-dir:FOLDER", pretrained=True)``.
    ``description`` must hold num_classes; other entries (class names, normalisation) are for the user.

    Returns:
        The content of config.json.

    Raises:
        StorageError: they cannot be written.
    """
    from safetensors.torch import save

    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.plain().state_dict().items()
    }
    config = {"network": network.name, "in_channels": network.in_channels, **description}
    config |= timm_description(network, description)
    write_checked(folder / WEIGHTS, save(weights))
    write_checked(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return config


def peer_folder(path: str | Path) -> Path:
    """The folder of a peer: ``path`` itself or, where ``path`` is a run, that of its deployed peer.

    What is called hf://OWNER/NAME is downloaded, see :func:`collegium.hub.located`.

    Raises:
        UsageError: ``path`` is neither.
        DataError: the run does not say which of its peers is deployed.
    """
    path = located(path)
    if _is_peer_folder(path):
        return path
    if not (path / "peers").is_dir():
        raise UsageError(f"{path} is neither a peer's folder ({CONFIG}, {WEIGHTS}) nor a finished run")
    try:
        result = read_result(path / "result.json")
    except (FileNotFoundError, DataError) as error:
        reason = "it has no result.json" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(
            f"{path} does not say which peer it deploys ({reason}); give one, as {path}/peers/peer0"
        ) from error
    if "deployed_peer" not in result and len(result["peers"]) > 1:
        raise DataError(f"{path} does not say which peer it deploys; give one of them, as {path}/peers/peer0")
    folder = inside(path, "peers", deployed_peer(result))
    if not _is_peer_folder(folder):
        raise DataError(f"{folder}, the peer that the run deploys, lacks {CONFIG} or {WEIGHTS}")
    return folder


def peer_files(folder: Path) -> list[Path]:
    """The files of a peer: its weights, its description, and the checksums of both where they have any."""
    files = [folder / name for name in (WEIGHTS, CONFIG)]
    return [file for file in (*files, *map(checksum_file, files)) if file.is_file()]


def _is_peer_folder(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def deployed_peer(result: Mapping[str, Any]) -> str:
    """The peer that a run with this result.json deploys."""
    return str(result.get("deployed_peer", "peer0"))


def read_config(path: str | Path) -> dict[str, Any]:
    """A peer's description: network, num_classes, class_names, image_size, mean, std.

    Raises:
        UsageError: there is no peer.
        DataError: the file is damaged or holds something else.
    """
    file = peer_folder(path) / CONFIG
    check_whole(file, LARGEST_JSON)
    return read_config_file(file)


def _read_weights(folder: Path, network: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS
    check_whole(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{file} cannot be loaded as {network}: {reason}") from error


def trained_names(path: str | Path) -> list[str]:
    """The names of a peer's weights and running statistics.

    Raises:
        UsageError: there is no peer.
        DataError: the file is unreadable.
    """
    folder = peer_folder(path)
    return list(_read_weights(folder, folder.name))


@consents()
def load_peer(path: str | Path, network: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """A trained peer in evaluation mode.

    Args:
        path: a peer's folder, or a run, for its deployed peer (a leader, else the first), or hf://OWNER/NAME, a peer on
            the Hugging Face Hub.
        network: the untrained module to load into, where the peer was a network of the user's own.
        trust: import the user's network that config.json names, ``module:package.function``.

    Raises:
        UsageError: there is no peer, or its network must be given.
        DataError: the files are unreadable or do not fit the network.
    """
    folder = peer_folder(path)
    config = read_config(folder)
    if network is None:
        try:
            network = networks.build(
                networks.untrained(config["network"]),
                num_classes=config["num_classes"],
                in_channels=config["in_channels"],
                image_size=tuple(config.get("image_size", (32, 32))),
                mean=config.get("mean"),
                std=config.get("std"),
            )
        except Untrusted:
            raise
        except UsageError as error:
            reason = str(error).partition("; ")[0][:120]
            raise UsageError(
                f"{folder} cannot be loaded by its network's name ({reason}); give the untrained module: network=..."
            ) from error
    plain, name = network.plain() if isinstance(network, Network) else network, networks.name_of(network)
    weights = _read_weights(folder, name)
    try:
        plain.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = " ".join(lines[1].split())[:100] if len(lines) > 1 else lines[0][:100]
        raise DataError(f"{folder / WEIGHTS} cannot be loaded as {name}: {reason}") from error
    return network.eval()


def starting_point(path: str | Path, index: int) -> Path:
    """Where the network number ``index`` of a cohort starts from: a peer's folder, or of a run its peers in turn."""
    path = Path(path).expanduser()
    named = [folder for folder in path.glob("peers/peer*") if is_peer(folder.name) and not folder.is_symlink()]
    peers = sorted(named, key=lambda folder: int(folder.name.removeprefix("peer")))
    return peers[index % len(peers)] if peers else path


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
    folder = peer_folder(starting_point(path, index))
    trained = _read_weights(folder, network.name)
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
