"""The networks that can be peers. Each module of this folder with a ``build`` function is a family of them."""

import importlib
import pkgutil
import re
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import nn

from collegium.errors import UsageError, nearest
from collegium.networks.adapt import LogitsNetwork
from collegium.networks.adapt import adapt as adapt
from collegium.networks.names import for_family
from collegium.networks.names import parse_peers as parse_peers
from collegium.networks.names import untrained as untrained
from collegium.networks.network import Network as Network
from collegium.networks.network import Statistics as Statistics
from collegium.networks.network import Task
from collegium.networks.normalising import check_how, for_channels, normalise
from collegium.networks.weights import check_file, load_weights
from collegium.user_code import consents

_MOST_PARAMETERS = 10**10


def _families() -> list[ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    return [module for module in modules if "build" in vars(module)]


def forms() -> dict[str, str]:
    """Every form that a network's name can take -> what it means and examples."""
    return {form: text for family in _families() for form, text in family.FORMS.items()}


@consents("name")
def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Network:
    """The network called ``name``, with random weights from torch's global generator, or those of ``weights=FILE``.

    Args:
        name: with options after colons.
        num_classes: of its logits.
        in_channels: of the images.
        image_size: (H, W) in pixels.
        mean, std: by which the images are normalised that it will be given, for the option normalise.

    Raises:
        UsageError: no family knows the name (the nearest ones are named), its numbers are not legal, it cannot take
            such images, or the weights do not fit.
        DataError: the file of weights cannot be read.
    """
    task = Task(num_classes, in_channels, image_size)
    name, common = for_family(name)
    for family in _families():
        network: Network | None = family.build(name, task)
        if network is not None:
            if "weights" in common:
                network.loaded_weights = load_weights(network.plain(), common["weights"], task, name)
            if "normalise" in common:
                given = None if mean is None or std is None else Statistics(tuple(mean), tuple(std))
                normalise(network, common["normalise"], given)
            return network
    examples = [
        word for text in forms().values() for word in re.findall(r"(?<![=\w/])[a-z][\w/]*\d\w*", text.partition(":")[2])
    ]
    said = name if len(name) <= 60 else f"{name[:57]}..."
    raise UsageError(f"no network is called {said!r}{nearest(said, examples)}")


def name_of(module: nn.Module) -> str:
    """What a network from Python is called."""
    return module.name if isinstance(module, Network) else type(module).__name__


def as_network(module: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """A network from Python as a peer; see :func:`adapt`."""
    return module if isinstance(module, Network) else adapt(module, image_shape=image_shape, name=name_of(module))


def as_logits_network(module: nn.Module) -> Network:
    """A network from Python as a peer of which only the logits are asked."""
    return LogitsNetwork(module, name_of(module))


def normalisation_note(name: str, network: Network, given: Statistics) -> str:
    """What a user should know of a network whose weights have seen images that were normalised otherwise, or ""."""
    asked = for_family(name)[1]
    if name == untrained(name) or "normalise" in asked or network.expected is None:
        return ""
    try:
        expected = for_channels(network.expected, network.in_channels, network.name)
    except UsageError:  # other channels than its weights have seen, so that there is nothing better
        return ""
    if expected == given:
        return ""
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in expected)
    return (
        f"its trained weights expect images normalised by mean {mean} and std {std}, and it gets the data's: add "
        "normalise=own for its own, or normalise=data to say that this is meant."
    )


@consents("name")
def check(name: str) -> None:
    """Raises UsageError where there is no network of this name, or no file of its weights, or it is too large.

    Its weights are not made.
    """
    name, common = for_family(name)
    if "weights" in common:
        check_file(common["weights"])
    if "normalise" in common:
        check_how(common["normalise"])
    if any(family.check(name) for family in _families() if "check" in vars(family)):
        return
    with torch.device("meta"):
        network = build(name, num_classes=2)
    if (size := sum(p.numel() for p in network.parameters())) > _MOST_PARAMETERS:
        raise UsageError(
            f"{name[:60]} has {size:.2g} parameters, more than the {_MOST_PARAMETERS:.0e} allowed; take less"
        )
