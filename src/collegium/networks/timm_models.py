"""Every model of timm, https://github.com/huggingface/pytorch-image-models, as a peer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from collegium.errors import UsageError, nearest
from collegium.networks.adapt import StagedNetwork, WholeNetwork, adapt
from collegium.networks.dry_run import MOST_PARTS
from collegium.networks.names import for_family, parse_options, untrained
from collegium.networks.network import Network, Statistics, Task

FORMS = {
    "timm/{model}": "any timm model, with timm's own options: timm/resnet18, timm/vit_tiny_patch16_224:img_size=32, "
    "timm/convnext_tiny:pretrained",
}


class IntermediatesNetwork(WholeNetwork):
    """A timm model that does not run stage after stage, such as a vision transformer, read by timm's feature API.

    Args:
        module: the model.
        indices: which of its blocks' outputs are the maps.
    """

    def __init__(self, module: nn.Module, indices: list[int], **given: Any) -> None:
        super().__init__(module, [f"stage{k}" for k in range(1, len(indices) + 1)], **given)
        self.indices = indices

    def _read(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        model: Any = self.classifier
        final, maps = model.forward_intermediates(x, indices=self.indices, output_fmt="NCHW")
        return tuple(maps), model.forward_head(final)


def check(name: str) -> bool:
    """Whether a name is of this family.

    Raises:
        UsageError: it is, but timm has no such model.
    """
    if not name.startswith("timm/"):
        return False
    import timm

    model = name.removeprefix("timm/").partition(":")[0]
    if not timm.is_model(model):
        raise UsageError(f"timm has no model {model!r}{_near(model, timm.list_models())}")
    return True


def _near(model: str, known: list[str]) -> str:
    near = nearest(model, known)
    return near if "did you mean" in near else f"; timm.list_models() tells its {len(known)} models"


def build(name: str, task: Task) -> Network | None:
    """The model called ``name``, or None where the name is not of this family."""
    if not check(name):
        return None
    import timm

    model, _, text = name.removeprefix("timm/").partition(":")
    options = parse_options(text)
    if "checkpoint_path" in options:
        raise UsageError(f"timm's option checkpoint_path is called weights here: write timm/{model}:weights=FILE")
    try:
        module: Any = timm.create_model(model, num_classes=task.num_classes, in_chans=task.in_channels, **options)
    except (TypeError, AssertionError) as error:
        raise UsageError(f"timm cannot make {name}: {' '.join(str(error).split())[:120]}") from error
    except (RuntimeError, OSError) as error:
        raise UsageError(f"timm cannot load {name}: {str(error).splitlines()[0][:120]}") from error
    asked = getattr(getattr(module, "patch_embed", None), "img_size", None)
    native = tuple(asked or module.default_cfg.get("input_size", (3, 224, 224))[1:])
    network = adapt(module, image_shape=task.image_shape, name=name, native_size=native)
    if not isinstance(network, StagedNetwork):
        network = _by_intermediates(module, network, task) or network
    config = module.pretrained_cfg
    if config.get("mean") and config.get("std"):
        network.expected = Statistics(tuple(config["mean"]), tuple(config["std"]))
    return network


def _by_intermediates(module: nn.Module, found: Network, task: Task) -> Network | None:
    """The same read by timm's own feature API; None where the model has none, or numbers its blocks otherwise."""
    blocks = getattr(module, "blocks", None)
    if not hasattr(module, "forward_intermediates") or not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return None
    count = min(MOST_PARTS, len(blocks))
    indices = [(k + 1) * len(blocks) // count - 1 for k in range(count)]
    network = IntermediatesNetwork(
        module, indices, in_channels=task.in_channels, name=found.name, image_size=found.image_size
    )
    images = torch.randn(2, *task.image_shape, generator=torch.Generator().manual_seed(0))
    module.eval()
    try:
        with torch.no_grad():
            maps, logits = network.outputs(network.fit(images))
            alike = torch.allclose(logits, module(network.fit(images)), rtol=1e-3, atol=1e-5)
    except (AssertionError, RuntimeError, TypeError, AttributeError):
        return None
    finally:
        module.train()
    return network if alike and all(m.ndim == 4 for m in maps) else None


def timm_description(network: Network, described: Mapping[str, Any]) -> dict[str, Any]:
    """What ``timm.create_model("local-dir:FOLDER")`` reads of a peer's config.json; {} for networks of others.

    Args:
        network: the peer.
        described: what config.json says besides: num_classes, image_size, mean, std, resize, center_crop.
    """
    if not network.name.startswith("timm/") or not {"image_size", "mean", "std"} <= described.keys():
        return {}
    module: Any = network.plain()
    known = getattr(module, "pretrained_cfg", {})
    model, _, text = for_family(untrained(network.name))[0].removeprefix("timm/").partition(":")
    mean, std = list(described["mean"]), list(described["std"])
    if network.input_scale is not None and network.input_shift is not None:  # (p - mean) / std · scale + shift
        scale, shift = (values.flatten().tolist() for values in (network.input_scale, network.input_shift))
        mean = [m - b * s / a for m, s, a, b in zip(mean, std, scale, shift, strict=True)]
        std = [s / a for s, a in zip(std, scale, strict=True)]
    resize, crop = described.get("resize"), described.get("center_crop")
    return {
        "architecture": model.partition(".")[0],
        "num_features": getattr(module, "num_features", None),
        "label_names": list(described.get("class_names", ())),
        "model_args": parse_options(text),
        "pretrained_cfg": {
            "num_classes": described["num_classes"],
            "input_size": [network.in_channels, *(network.image_size or described["image_size"])],
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            "mean": mean,
            "std": std,
            "interpolation": described.get("interpolation", "bilinear"),
            "crop_pct": min(crop) / resize if isinstance(resize, int) and crop else 1.0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
