"""Every classification model of torchvision, https://docs.pytorch.org/vision/stable/models.html, as a peer."""

import inspect
import warnings
from typing import Any

from torch import nn

from collegium.errors import UsageError, nearest
from collegium.networks.adapt import adapt, replaced
from collegium.networks.names import parse_options
from collegium.networks.network import Network, Statistics, Task

FORMS = {
    "torchvision/{model}": "any torchvision classification model, such as the ImageNet networks of the papers: "
    "torchvision/resnet18, torchvision/resnet34, torchvision/mobilenet_v3_small:pretrained",
}


def check(name: str) -> bool:
    """Whether a name is of this family.

    Raises:
        UsageError: it is, but torchvision has no such model.
    """
    if not name.startswith("torchvision/"):
        return False
    from torchvision import models

    model = name.removeprefix("torchvision/").partition(":")[0]
    known = models.list_models(module=models)
    if model not in known:
        raise UsageError(f"torchvision has no classification model {model!r}{nearest(model, known)}")
    return True


def build(name: str, task: Task) -> Network | None:
    """The model called ``name``, or None where the name is not of this family."""
    if not check(name):
        return None
    from torchvision import models

    model, _, text = name.removeprefix("torchvision/").partition(":")
    options = parse_options(text)
    module = _pretrained(name, model, options) if options.pop("pretrained", False) else None
    if module is None:
        module = _create(name, model, options | {"num_classes": task.num_classes})
    elif task.num_classes != 1000:
        _replace_last(module, task.num_classes)
    if task.in_channels != 3:
        _replace_first(module, task.in_channels)
    seen = models.get_model_weights(model).DEFAULT.transforms()
    network = adapt(module, image_shape=task.image_shape, name=name, native_size=(seen.crop_size[0],) * 2)
    network.expected = Statistics(tuple(seen.mean), tuple(seen.std))
    return network


def _create(name: str, model: str, options: dict[str, Any]) -> nn.Module:
    from torchvision import models

    known = inspect.signature(models.get_model_builder(model)).parameters
    # Auxiliary classifiers in the middle would train at a place that the other peers do not have.
    if model in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True} | options
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = models.get_model(model, weights=None, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision cannot make {name}: {error}; its options are: {', '.join(known)}") from error
    return module


def _pretrained(name: str, model: str, options: dict[str, Any]) -> nn.Module:
    from torchvision import models

    try:
        module: nn.Module = models.get_model(model, weights="DEFAULT", **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision cannot make {name}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise UsageError(f"torchvision cannot load the weights of {name}: {str(error).splitlines()[0]}") from error
    return module


def _replace_last(module: nn.Module, num_classes: int) -> None:
    """A new last layer for another number of classes."""
    path, layer = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    other: nn.Module
    if isinstance(layer, nn.Linear):
        other = nn.Linear(layer.in_features, num_classes)
    else:
        other = nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size)  # type: ignore[arg-type]
    module._modules = replaced(module, {path: other})._modules


def _replace_first(module: nn.Module, in_channels: int) -> None:
    """A new first convolution for images of other than three channels, initialised afresh."""
    path, layer = next((p, m) for p, m in module.named_modules() if isinstance(m, nn.Conv2d))
    other = nn.Conv2d(
        in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
    nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
    if other.bias is not None:
        nn.init.zeros_(other.bias)
    module._modules = replaced(module, {path: other})._modules
