"""The user's own network, named by the function or class that makes it."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from collegium.errors import UsageError
from collegium.networks.adapt import adapt
from collegium.networks.names import parse_options
from collegium.networks.network import Network, Task
from collegium.user_code import PREFIX, find

FORMS = {
    "module:{package.function}": "your own: a function or class that makes any torch module, found from the current "
    "folder; keywords num_classes, in_channels and image_size are passed where it takes them, as are options",
}


def check(name: str) -> bool:
    """Whether a name is of this family.

    Raises:
        UsageError: it is, but there is no such function.
    """
    return name.startswith(PREFIX) and bool(find(name.removeprefix(PREFIX).partition(":")[0], nn.Module))


def build(name: str, task: Task) -> Network | None:
    """The network that ``module:package.function:option=value`` makes, or None for another name."""
    if not check(name):
        return None
    path, _, text = name.removeprefix(PREFIX).partition(":")
    function, options = find(path, nn.Module), parse_options(text)
    features = str(options.pop("features", "")).split("+")
    known = parameters(function)
    asked = {"num_classes": task.num_classes, "in_channels": task.in_channels, "image_size": task.image_size}
    given = {key: value for key, value in asked.items() if key in known} | options
    try:
        made = function(**given)
    except TypeError as error:
        raise UsageError(f"{path} cannot be called with {', '.join(given) or 'nothing'}: {error}") from error
    except Exception as error:
        raise UsageError(f"{path} raised {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{path} made a {type(made).__name__}, not a torch.nn.Module")
    if isinstance(made, Network):
        made.name = name
        return made
    return adapt(made, image_shape=task.image_shape, name=name, features=[path for path in features if path])


def parameters(function: Callable[..., Any]) -> set[str]:
    """The keywords that a function or class takes; those that ``**keywords`` pass on to base classes too."""
    kinds = function.__mro__ if inspect.isclass(function) else [function]
    names: set[str] = set()
    for kind in kinds:
        if kind in (nn.Module, object):
            break
        if inspect.isclass(kind) and "__init__" not in vars(kind):
            continue
        known = inspect.signature(vars(kind)["__init__"] if inspect.isclass(kind) else kind).parameters
        names |= set(known)
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            break
    return names
