"""Weights for one network from a file of anybody's: safetensors, or a state dict that torch has saved."""

import hashlib
import io
import sys
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collegium.errors import DataError, UsageError
from collegium.files import check_whole, read_bounded
from collegium.networks.network import LoadedWeights, Task
from collegium.pickles import Refused, check_pickle

ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Where a training checkpoint keeps the weights; the first that there is, so averaged weights before others."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before the names of weights."""

# Of training alone: what averaging counts, and torchvision's auxiliary classifiers in the middle of a network.
_UNUSED = ("n_averaged", "aux1.", "aux2.", "AuxLogits.")
_COUNTER = "num_batches_tracked"  # of batch norm; files from before torch 0.4.1 lack it
_MIB = 2**20
_MOST_OPERATIONS = 500_000  # of its pickle, which has about fifty for each tensor
_MOST_PARTS = 100_000  # of a file of torch.save, which has one for each tensor


def check_file(path: str) -> Path:
    """Raises UsageError where there is no file of weights."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"there is no file of weights {path[:200]!r}: give a .safetensors, .pt or .pth file")
    return file


def load_weights(module: nn.Module, path: str, task: Task, name: str) -> LoadedWeights:
    """Copies the weights of a file into a network.

    The last layer keeps its own weights where the file's is for another number of classes, or has none; a first
    convolution for three channels is changed for images of other channels as timm does it
    (``timm.models.adapt_input_conv``: summed for one channel, repeated and rescaled for others). Position embeddings of
    timm's models are resampled by timm. Everything else must fit.

    Args:
        module: it is changed in place.
        path: of a safetensors file, or of a state dict that torch saved, which may be an entry of a checkpoint, see
            :data:`ENTRIES`. It is read as data: no code in it runs.
        task: how many classes and channels the network has.
        name: of the network, for messages.

    Raises:
        UsageError: there is no such file, or its weights do not fit.
        DataError: it cannot be read, is damaged, or holds something else.
    """
    file = check_file(path)
    own = module.state_dict()
    # A checkpoint with averaged weights and two moments of Adam is four times as large, eight times in float64.
    limit = 8 * sum(tensor.numel() * tensor.element_size() for tensor in own.values()) + 64 * _MIB
    check_whole(file, limit)
    content = read_bounded(file, limit)
    entry, given = _state_dict(file, content, limit)
    _check_plain(file, given, limit)
    weights, remarks = _fitting(module, given, task)
    heads = _heads(module, task)
    fresh = [layer for layer in heads if _is_other_head(layer, own, weights)]
    for layer in fresh:
        classes = weights.get(f"{layer}.weight")
        remarks.append(
            f"its layer {layer} is new "
            + ("(the file has none)" if classes is None else f"({len(classes)} classes there, {task.num_classes} here)")
        )
    _check_fit(file, name, own, weights, fresh)
    with torch.no_grad():
        for key, tensor in weights.items():
            if key in own and not _below(key, fresh):
                if own[key].is_floating_point() and not tensor.is_floating_point():
                    raise DataError(f"{file} has whole numbers in {key[:80]}: give weights in floating point")
                values = tensor.to(own[key].dtype)
                if not bool(values.isfinite().all()):
                    raise DataError(f"{file} has weights that are not finite, the first in {key[:80]}")
                own[key].copy_(values)
    source = f"{file}" + (f" (its {entry})" if entry else "")
    return LoadedWeights(hashlib.sha256(content).hexdigest(), "; ".join([f"starts from {source}", *remarks]) + ".")


def _state_dict(file: Path, content: bytes, limit: int) -> tuple[str, dict[str, Tensor]]:
    """The entry in which a file keeps its weights ("" for none), and the weights."""
    found = _safetensors(file, content) if file.suffix == ".safetensors" else _torch_file(file, content, limit)
    if not isinstance(found, Mapping):
        raise DataError(f"{file} holds a {type(found).__name__}, not weights by name: save model.state_dict()")
    entry = ""
    if not any(isinstance(value, Tensor) for value in found.values()):
        entry = next((key for key in ENTRIES if isinstance(found.get(key), Mapping)), "")
    state = found[entry] if entry else found
    weights = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not weights:
        raise DataError(f"{file} holds no weights by name, nor under {', '.join(ENTRIES)}: save model.state_dict()")
    return entry, weights


def _check_plain(file: Path, weights: Mapping[str, Tensor], limit: int) -> None:
    """Raises DataError where a tensor has no values of its own for all that its shape says, or values of another kind.

    A few values may stand for any number: in a sparse tensor, or in one of which an axis has the stride 0.
    """
    for key, tensor in weights.items():
        plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
        if not plain or tensor.is_complex():
            raise DataError(f"{file} has no plain real numbers in {key[:80]}: save dense weights in floating point")
    if sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) > limit:
        raise DataError(f"{file} has tensors of more than the {limit:,} bytes that they may have together")


def _safetensors(file: Path, content: bytes) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise DataError(f"{file} cannot be read as safetensors: {' '.join(str(error).split())[:100]}") from error


def _torch_file(file: Path, content: bytes, limit: int) -> object:
    try:
        checked = _checked_archive(file, content, limit) if content.startswith(b"PK\3\4") else _checked_old(content)
        # Checkpoints of many training scripts keep their options as a Namespace, which is data.
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(checked), map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Refused as error:
        raise DataError(f"{file} holds much besides weights ({error}): save model.state_dict() alone") from error
    except Exception as error:  # torch raises many kinds
        unsafe = "GLOBAL" in str(error) or "weights_only" in str(error).lower()
        reason = (
            "it holds Python objects besides weights, of which none was made: save model.state_dict() alone"
            if unsafe
            else "it is damaged, or no file of torch.save"
        )
        raise DataError(f"{file} cannot be read as weights: {reason}") from error


def _checked_archive(file: Path, content: bytes, limit: int) -> bytes:
    """The archive of torch.save written anew, so that torch reads what was checked: one file can be two archives.

    Raises:
        DataError: it would take much more time or memory than weights do.
        Refused: the same of its pickle.
    """
    if content.count(b"PK\1\2") > _MOST_PARTS:  # each begins an entry of the archive's list
        raise DataError(f"{file} has more than {_MOST_PARTS:,} parts, as no file of weights does")
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(written, "w") as anew:
        if sum(part.file_size for part in given.infolist()) > limit:
            raise DataError(f"{file} unpacks to more than the {limit:,} bytes that such a file may have")
        for name in dict.fromkeys(given.namelist()):
            part = given.read(name)
            if name.lower().endswith(".pkl"):
                check_pickle(io.BytesIO(part), _MOST_OPERATIONS)
            anew.writestr(name, part)
    return written.getvalue()


def _checked_old(content: bytes) -> bytes:
    """The same for the format before torch 1.6: five pickles, before the values."""
    stream = io.BytesIO(content)
    for _ in range(5):
        check_pickle(stream, _MOST_OPERATIONS)
    return content


def _fitting(module: nn.Module, given: Mapping[str, Tensor], task: Task) -> tuple[dict[str, Tensor], list[str]]:
    """The weights by the network's own names, with its number of channels, and remarks on what was changed."""
    own = module.state_dict()
    weights = {_own_name(key, own): tensor for key, tensor in given.items()}
    remarks = []
    if any(key not in weights or weights[key].shape != tensor.shape for key, tensor in own.items()):
        converted = _converted_by_timm(module, weights)
        resampled = [key for key in converted if key in weights and converted[key].shape != weights[key].shape]
        if resampled:
            remarks.append(f"timm resampled its {' and '.join(resampled[:4])}")
        weights = converted
    first = next((f"{path}.weight" for path, m in module.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first in weights and weights[first].ndim == 4:
        old, new = weights[first].shape, own[first].shape
        if old != new and old[1] == 3 and new[1] == task.in_channels and old[2:] == new[2:]:
            from timm.models import adapt_input_conv

            weights[first] = adapt_input_conv(new[1], weights[first])
            how = "summed to one" if new[1] == 1 else f"repeated to {new[1]} and rescaled"
            remarks.append(f"the 3 input channels of {first} are {how}")
    return weights, remarks


def _own_name(key: str, own: Mapping[str, Tensor]) -> str:
    while key not in own and (prefix := next((p for p in PREFIXES if key.startswith(p)), "")):
        key = key.removeprefix(prefix)
    return key


def _converted_by_timm(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as timm's own filter of this kind of model makes them: other formats, other image sizes."""
    place = type(module).__module__
    convert = getattr(sys.modules[place], "checkpoint_filter_fn", None) if place.startswith("timm.") else None
    if convert is None:
        return weights
    try:
        return dict(convert(dict(weights), module))
    except Exception:  # not made for these weights, of which the caller then says what does not fit
        return weights


def _heads(module: nn.Module, task: Task) -> list[str]:
    """The paths of the layers that give the classes."""
    config = getattr(module, "pretrained_cfg", None)
    named = config.get("classifier") if isinstance(config, Mapping) else None  # of a model of timm
    if named:
        return [named] if isinstance(named, str) else list(named)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [(path, m) for path, m in module.named_modules() if isinstance(m, kinds)]
    return [path for path, layer in layers[-1:] if len(layer.weight) == task.num_classes]


def _is_other_head(layer: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether the file has this layer for another number of classes alone, or not at all."""
    mine = {key: tensor for key, tensor in own.items() if _below(key, [layer])}
    theirs = {key: weights[key] for key in mine if key in weights}
    if not theirs:
        return bool(mine)
    return theirs.keys() == mine.keys() and all(
        tensor.ndim > 0 and tensor.shape[1:] == mine[key].shape[1:] and len(tensor) != len(mine[key])
        for key, tensor in theirs.items()
    )


def _below(key: str, layers: list[str]) -> bool:
    return any(key.startswith(f"{layer}.") for layer in layers)


def _check_fit(
    file: Path, name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], fresh: list[str]
) -> None:
    wanted = {key: tensor for key, tensor in own.items() if not _below(key, fresh)}
    missing = [key for key in wanted if key not in weights and not key.endswith(_COUNTER)]
    other = [
        f"{key} {tuple(weights[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    extra = [key for key in weights if key not in own and not key.startswith(_UNUSED) and not key.endswith(_COUNTER)]
    told: list[Any] = [("it lacks", missing), ("of another shape are", other), ("the network has no", extra)]
    faults = [f"{what} {_few(found)}" for what, found in told if found]
    if faults:
        raise UsageError(f"the weights in {file} are not those of {name}: {'; '.join(faults)}")


def _few(names: list[str]) -> str:
    said = ", ".join(name[:80] for name in names[:3])
    return said + (f" and {len(names) - 3} more" if len(names) > 3 else "")
