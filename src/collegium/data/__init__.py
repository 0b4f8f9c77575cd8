"""Data sets for image classification."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from collegium.errors import UsageError, nearest
from collegium.options import check_kind
from collegium.user_code import consents

from . import splits
from .batches import Augmentation, Batches, PaddingMode, Split
from .cifar import cifar10, cifar100
from .cinic10 import cinic10
from .datasets import from_datasets, is_dataset
from .decoding.reading import Reading
from .decoding.streamed import StreamedData, StreamedSplit
from .digits import digits
from .folder import folder
from .huggingface import huggingface
from .hyperspectral.scene_data import SceneData, from_scene
from .hyperspectral.scenes import botswana, houston2013, indian_pines, ksc, pavia_university, salinas, salinas_a, scene
from .hyperspectral.spectra import spectra
from .imagenet import imagenet
from .images import ImageData, from_arrays
from .interface import WHOLE, BatchPlan, BatchSource, ClassificationData, Samples, Share, TileSource
from .label_noise import NoiseKind, with_label_noise, with_note, wrong_labels
from .tiny_imagenet import tiny_imagenet
from .torchvision_sets import torchvision
from .transforms import named_transform
from .user_data import OwnData, as_data, module
from .views import Views

__all__ = [
    "WHOLE",
    "Augmentation",
    "BatchPlan",
    "BatchSource",
    "Batches",
    "ClassificationData",
    "ImageData",
    "OwnData",
    "Reading",
    "Samples",
    "SceneData",
    "Share",
    "TileSource",
    "Split",
    "StreamedData",
    "StreamedSplit",
    "Views",
    "as_data",
    "from_arrays",
    "from_datasets",
    "from_scene",
    "is_dataset",
    "load",
    "loader",
    "names",
    "options",
    "own_options",
    "title",
    "with_label_noise",
    "wrong_labels",
]

Loader = Callable[..., ClassificationData[Any]]

# A new data set is added here; its function's keywords are its options. A function with a positional argument stands
# for a kind of data set, and is given what follows the colon: "folder:PATH".
_SCENES: tuple[Loader, ...] = (botswana, houston2013, indian_pines, ksc, pavia_university, salinas, salinas_a)
_IMAGES: tuple[Loader, ...] = (cifar10, cifar100, cinic10, digits, imagenet, tiny_imagenet)
_KINDS: tuple[Loader, ...] = (folder, huggingface, module, torchvision)
_LOADERS: dict[str, Loader] = {
    function.__name__: function for function in (*_IMAGES, *_KINDS, *_SCENES, scene, spectra)
}


def names() -> list[str]:
    """The names of the data sets, sorted; "folder:PATH" stands for every name that begins so."""
    return sorted(name + _argument(function) for name, function in _LOADERS.items())


def loader(name: str) -> Loader:
    """The function that loads the data set `name`; its keywords are the data set's own options.

    Raises:
        UsageError: there is no such data set.
    """
    kind, colon, rest = name.partition(":")
    if kind not in _LOADERS:
        raise UsageError(f"there is no data set {name!r}{nearest(kind, names())}")
    wanted = _argument(_LOADERS[kind])
    if bool(wanted) != bool(rest) or bool(colon) != bool(wanted):
        raise UsageError(f"there is no data set {name!r}; write {kind}{wanted}")
    return _LOADERS[kind]


def _argument(function: Loader) -> str:
    """ ":PATH" where a data set's name goes on with a path, "" where it is the whole name."""
    positional = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return f":{positional[0].upper()}" if positional else ""


def own_options(name: str) -> dict[str, object]:
    """The options that a data set alone has, with their defaults."""
    parameters = inspect.signature(loader(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def options(name: str) -> dict[str, object]:
    """Every option that `load` takes for a data set, with its default."""
    general = {p.name: p.default for p in inspect.signature(load).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return general | own_options(name)


def title(name: str, options: Mapping[str, Any]) -> str:
    """A data set's name, and which labels it trains with where those are not its usual ones.

    "cifar100 (human_coarse labels)", "digits (20 % wrong labels)": scores of one title alone can be compared.
    """
    told = []
    labels, noise = options.get("labels"), options.get("label_noise")
    if labels is not None and labels != own_options(name).get("labels"):
        told.append(f"{labels} labels")
    if noise:
        told.append(f"{100 * noise:g} % wrong labels{', each the next class' * (options.get('noise_kind') == 'pair')}")
    return f"{name} ({', '.join(told)})" if told else name


@consents("name")
def load(
    name: str,
    *,
    validation: float = 0.0,
    per_class: int | None = None,
    split_seed: int = 0,
    label_noise: float = 0.0,
    noise_kind: NoiseKind = "symmetric",
    padding: int | None = None,
    padding_mode: PaddingMode | None = None,
    flip: bool | None = None,
    transform: str | None = None,
    **options: object,
) -> ClassificationData[Any]:
    """Loads a data set by its name.

    An option that the data set has of its own, under the same name, is left to it.

    Args:
        name: one of `names()`.
        validation: the share of each class's training images to hold out for validation, 0 for none.
        per_class: train on so many images of each class, taken after validation images are held out; all
            by default. The test images are never reduced.
        split_seed: which images are held out and taken, and which labels are made wrong.
        label_noise: the share of each class's training images that get a wrong label. Validation and test labels
            stay as they are.
        noise_kind: what a wrong label is: any other class ("symmetric"), or the next one ("pair").
        padding: pixels of padding before the random crop, 0 for no crop; the data set's own by default.
        padding_mode: pad with black ("zeros") or mirrored ("reflect") pixels; the data set's own by default.
        flip: mirror training images at random; the data set's own by default.
        transform: your own change of each training image, ``module:package.function``, after the data set's own crops
            and flips; see :data:`collegium.data.transforms.Transform`.
        **options: the data set's own options, such as `root` and `download`.

    Raises:
        UsageError: an unknown name or option, or a value that the data set does not allow.
        DataError: the files cannot be had or are damaged.
    """
    function, own = loader(name), own_options(name)
    given: dict[str, Any] = {"validation": validation, "per_class": per_class, "split_seed": split_seed}
    given |= {"padding": padding, "padding_mode": padding_mode, "flip": flip}
    given |= {"label_noise": label_noise, "noise_kind": noise_kind, "transform": transform}
    shared = {option: given.pop(option) for option in list(given) if option in own}
    options = {option: value for option, value in shared.items() if value is not None} | options
    for option, value in given.items():
        check_kind(f"the data option {option}", value, get_type_hints(load)[option])
    for option, value in options.items():
        if option not in own:
            hint = f"its options are: {', '.join(own)}" if own else "it has none of its own"
            raise UsageError(f"data set {name} has no option {option!r}; {hint}")
        check_kind(f"the data option {option}", value, get_type_hints(function)[option])
    change = None if given.get("transform") is None else named_transform(given["transform"])
    _, colon, rest = name.partition(":")
    data = function(rest, **options) if colon else function(**options)

    if given.get("validation"):
        if data.validation is not None:
            raise UsageError(f"data set {name} has validation images of its own: leave out validation={validation}")
        train, held = splits.hold_out(data.train, validation, split_seed)
        data = replace(data, train=train, validation=held)
    if given.get("per_class") is not None:
        data = replace(data, train=splits.per_class(data.train, given["per_class"], split_seed))
    data = with_note(with_label_noise(data, label_noise, kind=noise_kind, seed=split_seed))
    if change is not None:
        data = replace(data, transform=change)
    changed = {key: given[key] for key in ("padding", "padding_mode", "flip") if given.get(key) is not None}
    if not changed:
        return data
    if not isinstance(data, ImageData):
        raise UsageError(f"data set {name} is not augmented by {', '.join(changed)}; its options are: {', '.join(own)}")
    return replace(data, augmentation=replace(data.augmentation, **changed))
