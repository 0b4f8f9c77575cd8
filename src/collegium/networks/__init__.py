"""The networks that can be peers. Each module of this folder with a ``build`` function is a family of them."""

import importlib
import pkgutil
import re
from types import ModuleType

from collegium.errors import UsageError, nearest
from collegium.networks.network import Network as Network


def _families() -> list[ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    return [module for module in modules if "build" in vars(module)]


def forms() -> dict[str, str]:
    """Every form that a network's name can take -> what it means and examples."""
    return {form: text for family in _families() for form, text in family.FORMS.items()}


def build(name: str, *, num_classes: int, in_channels: int = 3) -> Network:
    """The network called ``name``, with random weights from torch's global generator.

    Raises:
        UsageError: no family knows the name (the nearest ones are named), or its numbers are not legal.
    """
    for family in _families():
        network: Network | None = family.build(name, num_classes, in_channels)
        if network is not None:
            return network
    examples = [word for text in forms().values() for word in re.findall(r"\w+\d\w*", text.partition(":")[2])]
    raise UsageError(f"no network is called {name!r}{nearest(name, examples)}")


def parse_peers(peers: str) -> list[str]:
    """``"2xresnet20,wrn_16_2"`` -> ``["resnet20", "resnet20", "wrn_16_2"]``.

    Raises:
        UsageError: an entry is empty or asks for none.
    """
    names: list[str] = []
    for entry in (part.strip() for part in peers.split(",")):
        match = re.fullmatch(r"(?:(\d+)x)?(.+)", entry)
        if match is None or int(match[1] or 1) == 0:
            raise UsageError(f"cannot read the peers {peers!r}: write them as '2xresnet20' or 'resnet32,wrn_16_2'")
        names += [match[2]] * int(match[1] or 1)
    return names
