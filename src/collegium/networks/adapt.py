"""A peer of any module: its stages are found by watching one dry run, and proved by running them.

Where the module hands one tensor from child to child, the children are grouped into stages, and the network can be cut
between them. Where it does more than that between its children (class tokens, concatenations), its maps are read by
hooks, and it stays whole.
"""

import abc
import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from collegium.errors import UsageError, nearest
from collegium.networks.dry_run import Call, DryRun, MapReader, logits_of, tensor_of, watch
from collegium.networks.network import Network, Stage, as_map
from collegium.networks.recompute import recomputed
from collegium.seeds import global_state_kept, seed_globally


class CutNetwork(Network):
    """Children of somebody's module as stages that run one after another, so that a trunk can be cut off.

    The classifier is the module itself with the children that became stages taken out, so what it does between and
    after them, it still does. The module itself is left as it was; parameters are shared with it.
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Mapping[str, Mapping[str, nn.Module]],
        readers: Mapping[str, MapReader],
        **given: Any,
    ) -> None:
        modules = {name: Stage(*children.values(), to_map=readers[name]) for name, children in stages.items()}
        taken = {path: nn.Identity() for children in stages.values() for path in children}
        super().__init__(modules, replaced(module, taken), **given)
        self.paths = {name: tuple(children) for name, children in stages.items()}

    def outputs(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        maps, output = super().outputs(x)
        return maps, logits_of(output)

    def plain(self) -> nn.Module:
        """The library's or user's own module, with its own names of parameters, on these very weights."""
        back: dict[str, nn.Module] = {}
        for name, stage in self.stages.items():
            assert isinstance(stage, Stage)
            back |= dict(zip(self.paths[name], stage, strict=True))
        return replaced(self.classifier, back)

    def with_stages(self, stages: Mapping[str, nn.Module]) -> Network:
        other = copy.copy(self)
        other._modules = {**self._modules, "stages": nn.ModuleDict(stages)}
        return other


class WholeNetwork(Network):
    """A module that gives logits, and maps on the way, but does not run as one stage after another: it stays whole."""

    def __init__(self, module: nn.Module, stage_names: Sequence[str], **given: Any) -> None:
        super().__init__({}, module, **given)
        self._stage_names = tuple(stage_names)

    @property
    def stage_names(self) -> tuple[str, ...]:
        return self._stage_names

    def outputs(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        return recomputed(self, self._read, x) if self.recomputes else self._read(x)

    @abc.abstractmethod
    def _read(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Images that fit -> the map (B, D, H, W) of every stage, and the logits (B, C)."""

    def split_after(self, stage: str) -> tuple[dict[str, nn.Module], Network]:
        raise UsageError(
            f"{self.name} cannot be cut after {stage!r}: its maps can be read, but it does not run as one stage after "
            "another; leave share_until out, or take other peers"
        )

    def plain(self) -> nn.Module:
        return self.classifier


class LogitsNetwork(WholeNetwork):
    """A module of which nothing but the logits is asked, so that its inputs and logits may have any shape."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, (), in_channels=0, name=name, copies_images=True)

    def _read(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        return (), logits_of(self.classifier(x))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, in the module's own shape."""
        return self.outputs(self.fit(images))[1]

    def split_after(self, stage: str) -> tuple[dict[str, nn.Module], Network]:
        raise UsageError(f"{self.name} has no known stages, so it cannot be cut after {stage!r}; leave share_until out")


class TappedNetwork(WholeNetwork):
    """A whole module whose maps are read by hooks as it runs.

    Args:
        module: gives logits.
        taps: stage -> the path of the submodule whose output is its map.
        readers: stage -> what turns that output into a map (B, D, H, W).
    """

    def __init__(
        self, module: nn.Module, taps: Mapping[str, str], readers: Mapping[str, MapReader], **given: Any
    ) -> None:
        super().__init__(module, tuple(taps), **given)
        self.readers = dict(readers)
        self.taps = {name: _Tap(path) for name, path in taps.items()}
        for name, path in taps.items():
            module.get_submodule(path).register_forward_hook(self.taps[name])

    def _read(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        for tap in self.taps.values():
            tap.open = True
        output = self.classifier(x)
        states = {name: tap.take(self.name) for name, tap in self.taps.items()}
        return tuple(self.readers[name](state) for name, state in states.items()), logits_of(output)


class StagedNetwork(TappedNetwork):
    """A whole module, read by hooks, whose children also run as stages one after another: it can be cut.

    Args:
        module: gives logits.
        stages: stage -> path -> child, in the order they run.
        readers: stage -> what turns its last child's output into a map (B, D, H, W).
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Mapping[str, Mapping[str, nn.Module]],
        readers: Mapping[str, MapReader],
        **given: Any,
    ) -> None:
        super().__init__(module, {name: list(children)[-1] for name, children in stages.items()}, readers, **given)
        self.paths = {name: tuple(children) for name, children in stages.items()}

    def stage_modules(self) -> list[nn.ModuleList]:
        module = self.classifier
        return [nn.ModuleList(module.get_submodule(path) for path in paths) for paths in self.paths.values()]

    def cut_form(self) -> CutNetwork:
        """The same network as stages one after another."""
        module = self.classifier
        children = {name: {path: module.get_submodule(path) for path in paths} for name, paths in self.paths.items()}
        given: dict[str, Any] = {"in_channels": self.in_channels, "name": self.name, "image_size": self.image_size}
        given["copies_images"] = self.copies_images
        cut = CutNetwork(module, children, self.readers, **given)
        cut.input_scale, cut.input_shift = self.input_scale, self.input_shift
        return cut

    @property
    def head(self) -> nn.Module:
        return self.cut_form().classifier

    def recomputing(self) -> Network:
        return self.cut_form().recomputing()

    def split_after(self, stage: str) -> tuple[dict[str, nn.Module], Network]:
        return self.cut_form().split_after(stage)


class _Tap:
    """A hook that keeps what a module gives while it is open, until that is taken."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.open = False
        self.output: Tensor | None = None

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self.open:
            self.output = tensor_of(output)

    def take(self, name: str) -> Tensor:
        output, self.output, self.open = self.output, None, False
        if output is None:
            raise UsageError(
                f"{name} did not run its submodule {self.path} for this batch, so it has no map; name submodules that "
                "always run with features="
            )
        return output


def adapt(
    module: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    name: str,
    features: Sequence[str] = (),
    native_size: tuple[int, int] | None = None,
) -> Network:
    """A peer made of any module that maps images (B, C, H, W) to logits (B, classes).

    Args:
        module: it shares its parameters with the peer, and gets hooks that do nothing but when the peer runs.
        image_shape: (C, H, W) of the images it will be given.
        name: how the network is called in messages and files.
        features: paths of the submodules whose outputs are the maps, in order, the last one's the one before the
            classifier; by default they are found.
        native_size: (H, W) to resize images to, should the module refuse theirs.

    Raises:
        UsageError: the module cannot take such images, gives no logits, or no map can be found in it.
    """
    known = [path for path, _ in module.named_modules()]
    for path in features:
        if path not in known:
            raise UsageError(f"{name} has no submodule {path!r}{nearest(path, known[1:])}")
    if next(module.parameters(), None) is None:
        raise UsageError(f"{name} has no parameters to train")
    try:
        run = watch(module, image_shape)
    except Exception as error:  # whatever a stranger's module raises
        if native_size is not None and native_size != tuple(image_shape[1:]):
            resized = adapt(module, image_shape=(image_shape[0], *native_size), name=name, features=features)
            resized.image_size = native_size
            return resized
        reason = (str(error) or type(error).__name__).splitlines()[0]
        size = "x".join(map(str, image_shape[1:]))
        raise UsageError(f"{name} cannot take images of {image_shape[0]} channels, {size} pixels: {reason}") from error
    if run.logits.ndim != 2 or len(run.logits) != len(run.images):
        raise UsageError(
            f"{name} gives {tuple(run.logits.shape)} for {len(run.images)} images, not logits (images, classes); "
            "networks that label every position train with collegium.Distiller(example_input=...)"
        )
    given: dict[str, Any] = {"in_channels": image_shape[0], "name": name, "copies_images": run.writes_images}
    if features:
        return _tapped(run, _named(features, run, name), given)
    stages = run.stages()
    if stages:
        children = {stage: {call.path: call.module for call in part} for stage, part in stages.items()}
        readers = _readers({stage: part[-1] for stage, part in stages.items()}, run, name)
        network = StagedNetwork(module, children, readers, **given)
        if _same(network.cut_form(), run):
            return network
    return _tapped(run, run.taps(), given)


def _named(features: Sequence[str], run: DryRun, name: str) -> dict[str, Call]:
    last = {call.path: call for call in run.calls}
    for path in features:
        if path not in last:
            raise UsageError(f"{name} never runs its submodule {path!r}, or gets no tensor from it")
    return {f"stage{number}": last[path] for number, path in enumerate(features, start=1)}


def _tapped(run: DryRun, taps: Mapping[str, Call], given: Mapping[str, Any]) -> TappedNetwork:
    if not taps:
        raise UsageError(
            f"no feature map was found in {given['name']}; name the submodules that give them with features="
        )
    paths = {stage: call.path for stage, call in taps.items()}
    return TappedNetwork(run.module, paths, _readers(taps, run, given["name"]), **given)


def _readers(last: Mapping[str, Call], run: DryRun, name: str) -> dict[str, MapReader]:
    readers = {}
    for stage, call in last.items():
        reader = as_map if call.output.ndim == 2 else run.reader(call.output)
        if reader is None:
            raise UsageError(f"{name}: the output of {call.path} has shape {tuple(call.output.shape)}, which is no map")
        readers[stage] = reader
    return readers


def replaced(module: nn.Module, by_path: Mapping[str, nn.Module]) -> nn.Module:
    """A copy with other submodules at some paths. Everything else, parameters too, is shared with the original."""
    result = copy.copy(module)
    result._modules = dict(module._modules)
    below: dict[str, dict[str, nn.Module]] = defaultdict(dict)
    for path, other in by_path.items():
        child, _, rest = path.partition(".")
        below[child][rest] = other
    for child, others in below.items():
        result._modules[child] = others[""] if "" in others else replaced(module.get_submodule(child), others)
    return result


def _same(network: Network, run: DryRun) -> bool:
    """Whether the stages one after another are the module: the same logits and gradients, evaluating and training."""
    module = run.module
    training = [m for m in {*module.modules(), *network.modules()} if m.training]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    parameters = [p for p in module.parameters() if p.requires_grad]
    try:
        for mode, seed in ((False, 0), (True, 0), (True, 1), (True, 2)):
            results: list[list[Tensor | None]] = []
            for model in (module, network):
                with global_state_kept(), torch.enable_grad():
                    seed_globally(seed)  # dropout and stochastic depth draw alike
                    logits = logits_of(model.train(mode)(run.images.clone()))
                    weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)
                    gradients = torch.autograd.grad((logits * weights).sum(), parameters, allow_unused=True)
                results.append([logits.detach(), *gradients])
                with torch.no_grad():
                    for name, buffer in module.named_buffers():
                        buffer.copy_(buffers[name])
            if not all(_close(a, b) for a, b in zip(*results, strict=True)):
                return False
    except Exception:  # a module that needs more than one tensor from each child
        return False
    finally:
        network.eval()
        module.eval()
        for submodule in training:
            submodule.training = True
    return True


def _close(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-7)
