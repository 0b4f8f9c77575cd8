"""How networks are written: ``2xresnet20,timm/resnet18:pretrained:drop_path_rate=0.1``."""

import re
from typing import Any

from yaml import YAMLError

from collegium.errors import UsageError
from collegium.yaml_text import parse_yaml

MOST_PEERS = 250
MOST_LAYERS = 2000  # the deepest published networks of these families have 1202
MOST_WIDTH = 1000  # times as wide, or kernels

# The options of every network, and how they are written.
COMMON = {
    "weights": "write weights=FILE, a .safetensors, .pt or .pth file",
    "normalise": "write normalise=own, normalise=imagenet or normalise=data",
}


def bounded(digits: str, what: str, most: int) -> int:
    """The number that a name holds.

    Raises:
        UsageError: it is larger than `most`; the sentence begins with `what`.
    """
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(most)) or int(digits) > most:
        said = digits if len(digits) <= 20 else f"{digits[:17]}..."
        raise UsageError(f"{what}: {said} is more than the {most} allowed; give less")
    return int(digits)


def parse_peers(peers: str) -> list[str]:
    """``"2xresnet20,wrn_16_2"`` -> ``["resnet20", "resnet20", "wrn_16_2"]``.

    Raises:
        UsageError: an entry is empty or asks for none, or there are more than 250 peers.
    """
    names: list[str] = []
    for entry in (part.strip() for part in peers.split(",")):
        match = re.fullmatch(r"(?:(\d+)x)?(.+)", entry)
        count = 0 if match is None else bounded(match[1] or "1", f"the number of peers in {entry[:60]!r}", MOST_PEERS)
        if match is None or count == 0:
            said = peers if len(peers) <= 100 else f"{peers[:97]}..."
            raise UsageError(f"cannot read the peers {said!r}: write them as '2xresnet20' or 'resnet32,wrn_16_2'")
        names += [match[2]] * count
        bounded(str(len(names)), "the number of peers", MOST_PEERS)
    return names


def parse_options(text: str) -> dict[str, Any]:
    """``"pretrained:drop_rate=0.1"`` -> ``{"pretrained": True, "drop_rate": 0.1}``.

    Raises:
        UsageError: an option is empty.
    """
    options = {}
    for entry in text.split(":") if text else ():
        key, equals, value = entry.partition("=")
        if not key or (equals and not value):
            raise UsageError(f"cannot read the network's options {text!r}: write them as ':pretrained:drop_rate=0.1'")
        try:
            options[key] = parse_yaml(value) if equals else True
        except YAMLError as error:
            raise UsageError(
                f"cannot read the network's option {entry[:60]!r}: {' '.join(str(error).split())[:100]}"
            ) from error
    return options


def untrained(name: str) -> str:
    """The name of the same network with random weights, which reads no file."""
    first, *options = _parts(name)
    loaded = ("pretrained", "checkpoint_path", "weights")  # of which the last two may be any file
    return ":".join([first, *(option for option in options if option.partition("=")[0] not in loaded)])


def for_family(name: str) -> tuple[str, dict[str, str]]:
    """A network's name without the options that every network has, and these.

    ``"timm/resnet18:weights=my.pth:drop_rate=0.1"`` -> ``("timm/resnet18:drop_rate=0.1", {"weights": "my.pth"})``

    Raises:
        UsageError: one of them has no value.
    """
    first, *options = _parts(name)
    common = {}
    for option in options:
        key, _, value = option.partition("=")
        if key in COMMON:
            if not value:
                raise UsageError(f"the network's option {key} has no value: {COMMON[key]}")
            common[key] = value
    rest = [option for option in options if option.partition("=")[0] not in COMMON]
    return ":".join([first, *rest]), common


def _parts(name: str) -> list[str]:
    """What a network is called, and its options."""
    first, *options = name.split(":")
    if first == "module" and options:  # what the network is called comes after the first colon
        first, *options = f"{first}:{options[0]}", *options[1:]
    return [first, *options]
