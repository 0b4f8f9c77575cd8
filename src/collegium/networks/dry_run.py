"""What a dry run tells of a module: which of its children pass one tensor on, and which outputs are maps."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.networks.network import as_map
from collegium.torch_private import writes

MapReader = Callable[[Tensor], Tensor]
MOST_PARTS = 4  # stages of a network whose maps all have one size


@dataclass(frozen=True)
class Call:
    """One call of a submodule."""

    path: str
    module: nn.Module
    input: Tensor | None  # its first argument
    output: Tensor


@dataclass(frozen=True)
class DryRun:
    """What was seen of a module as it ran on a few images, in evaluation mode."""

    module: nn.Module
    images: Tensor  # (B, C, H, W)
    calls: tuple[Call, ...]  # of all submodules, in the order they end
    logits: Tensor  # (B, classes)
    features: Tensor | None  # what its forward_features gave, where it has one
    writes_images: bool = False  # whether it changed the images in place

    def stages(self) -> dict[str, list[Call]]:
        """The children that hand one tensor on from the images to the last map, grouped; {} where they do not."""
        chain = self._chain("", self.images, None) or []
        maps: list[Call] = []
        for k, call in enumerate(chain):
            if self.reader(call.output) is None or self._is_last_pooling(chain, k):
                break
            maps.append(call)
            if call.output is self.features:
                break
        if not maps:
            return {}
        last = maps[-1]
        if self.features is not None and last.output is not self.features:
            return {}
        after = self.calls[max(k for k, call in enumerate(self.calls) if call is last) + 1 :]
        unseen = [call for call in after if not any(_related(call.path, other.path) for other in chain)]
        if any(1 < self.size(call) <= self.size(last) for call in unseen):
            return {}
        return self._grouped(maps)

    def taps(self) -> dict[str, Call]:
        """The ends of the stages of the longest chain inside, or the last map of each size, or one vector."""
        chain = self._longest_chain()
        if chain:
            return {name: part[-1] for name, part in self._grouped(chain).items() if name != "stem"}
        last_of = {self.size(call): call for call in self.calls if call.output.ndim == 4}
        maps = [call for call in self.calls if any(call is last and size > 1 for size, last in last_of.items())]
        if not maps:  # nothing has space: what the last layer reads stands for a map of one cell
            shapes = (call for call in self.calls if call.output.ndim == 2 and call.output.shape != self.logits.shape)
            maps = list(shapes)[-1:]
        return {f"stage{number}": call for number, call in enumerate(maps, start=1)}

    def reader(self, output: Tensor) -> MapReader | None:
        """What turns an output into a map (B, D, H, W); None where it holds no features of single images."""
        if len(output) != len(self.images) or not output.is_floating_point():
            return None
        height, width = self.images.shape[2:]
        if output.ndim == 5:
            return as_map
        if output.ndim == 4:
            _, a, b, c = output.shape
            # (H, W, D) where the first two sides, and not the last two, have the image's proportions.
            off = max(width, height)
            last = abs(a * width - b * height) <= off < abs(b * width - c * height) and c > max(a, b)
            return channels_last if last else as_map
        if output.ndim == 3:
            if self._convolves_in_one_dimension and (output.shape[2],) not in self._normalised_shapes:
                return one_dimensional
            tokens = output.shape[1]
            rows = max(1, math.isqrt(tokens * height // width))
            columns = max(1, rows * width // height)
            return Tokens(tokens - rows * columns, rows, columns) if rows * columns <= tokens else None
        return None

    def size(self, call: Call) -> int:
        """How many cells the map of a call has; 0 where its output is none."""
        reader = self.reader(call.output)
        return 0 if reader is None else math.prod(reader(call.output).shape[2:])

    @cached_property
    def _normalised_shapes(self) -> set[tuple[int, ...]]:
        return {tuple(m.normalized_shape) for m in self.module.modules() if isinstance(m, nn.LayerNorm)}

    @cached_property
    def _convolves_in_one_dimension(self) -> bool:
        return any(isinstance(m, nn.Conv1d) for m in self.module.modules())

    @cached_property
    def _siblings(self) -> Mapping[str, list[Call]]:
        """Calls by the nearest submodule around them that is called itself, which a list of modules is not."""
        called = {call.path for call in self.calls}
        result: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            parent = call.path.rpartition(".")[0]
            while parent and parent not in called:
                parent = parent.rpartition(".")[0]
            result[parent].append(call)
        return result

    def _chain(self, parent: str, start: Tensor, end: Tensor | None) -> list[Call] | None:
        """The calls below ``parent`` that hand one tensor on from ``start``; None where they miss ``end``."""
        current, chain = start, []
        for call in self._siblings.get(parent, ()):
            if call.input is not current:
                continue
            inner = None
            # A wrapper around nearly the whole network is opened as a Sequential is; smaller modules are blocks.
            if type(call.module).forward is nn.Sequential.forward or self._share(call.module) > 0.9:
                inner = self._chain(call.path, call.input, call.output)
            chain += inner or [call]
            current = call.output
        return chain if end is None or current is end else None

    def _longest_chain(self) -> list[Call]:
        """The chain of the most maps that holds half of the parameters, anywhere in the module; [] if there is none."""
        best: list[Call] = []
        for parent, children in self._siblings.items():
            for first in children:
                if first.input is None:
                    continue
                chain = self._chain(parent, first.input, None) or []
                chain = [call for call in chain if self.reader(call.output) is not None]
                if len(chain) > len(best) and sum(self._share(call.module) for call in chain) >= 0.5:
                    best = chain
        return best

    def _share(self, module: nn.Module) -> float:
        """The share of all parameters that lie in a submodule."""
        return self._sizes[module] / self._sizes[self.module]

    @cached_property
    def _sizes(self) -> Mapping[nn.Module, int]:
        """Parameters of every submodule: counted once, as a network may have thousands of both."""
        return {module: sum(p.numel() for p in module.parameters()) for module in self.module.modules()}

    def _is_last_pooling(self, chain: Sequence[Call], k: int) -> bool:
        """Whether call ``k`` is the pooling before the classifier, with no convolution after it."""
        if self.features is not None or not self._is_pooling(chain[k]):
            return False
        return not any(isinstance(m, nn.Conv2d) for call in chain[k:] for m in call.module.modules())

    def _is_pooling(self, call: Call) -> bool:
        """Whether a call pools a map to one cell, or to a fixed size."""
        shrinks = call.input is not None and call.input.shape[2:] != call.output.shape[2:]
        kind = type(call.module).__name__
        return "Adaptive" in kind or ("Pool" in kind and shrinks and self.size(call) == 1)

    def _grouped(self, maps: Sequence[Call]) -> dict[str, list[Call]]:
        """A stem of single layers, then a stage for each size of map; one size alone is cut into equal parts."""
        layers = [_layers(call.module) for call in maps]
        blocks = [k for k, count in enumerate(layers) if count > 1]
        plain = not blocks or 2 * sum(layers[k] for k in blocks) < sum(layers)  # made of single layers, as VGG is
        begin = 0 if plain else blocks[0]
        parts: list[list[Call]] = []
        last = 0
        for call in maps[begin:]:
            if self.size(call) != last:
                parts.append([])
            parts[-1].append(call)
            last = self.size(call)
        weighty = [k for k in range(len(parts[0])) if layers[begin + k] > 0]
        if len(parts) == 1 and len(weighty) > 1:
            count = min(MOST_PARTS, len(weighty))
            starts = [0, *(weighty[k * len(weighty) // count] for k in range(1, count))]
            parts = [parts[0][a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        stages = {"stem": list(maps[:begin])} if begin else {}
        return stages | {f"stage{number}": part for number, part in enumerate(parts, start=1)}


@torch.no_grad()
def watch(module: nn.Module, image_shape: tuple[int, int, int]) -> DryRun:
    """Runs a module on two random images (C, H, W) in evaluation mode; nothing of it is changed."""
    calls: list[Call] = []
    path_of = {submodule: path for path, submodule in module.named_modules() if path}

    def note(submodule: nn.Module, arguments: Any, output: Any) -> None:
        given, result = (arguments[0] if arguments else None), tensor_of(output)
        if result is not None:
            calls.append(Call(path_of[submodule], submodule, given if isinstance(given, Tensor) else None, result))

    parameter = next(module.parameters())
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    hooks = [submodule.register_forward_hook(note) for submodule in path_of]
    training = [m for m in module.modules() if m.training]
    try:
        with _noting_features(module) as features:
            given = images.clone()
            start = writes(given)
            logits = logits_of(module.eval()(given))
    finally:
        for submodule in training:
            submodule.training = True
        for hook in hooks:
            hook.remove()
    written = writes(given) > start
    return DryRun(module, given, tuple(calls), logits, features[-1] if features else None, written)


@contextmanager
def _noting_features(module: nn.Module) -> Iterator[list[Tensor]]:
    """What ``forward_features`` gives, which tells the features from the head in timm and whoever follows it."""
    found: list[Tensor] = []
    own = getattr(module, "forward_features", None)
    if own is None:
        yield found
        return

    def noting(*arguments: Any, **keywords: Any) -> Any:
        result = own(*arguments, **keywords)
        if isinstance(result, Tensor):
            found.append(result)
        return result

    module.__dict__["forward_features"] = noting
    try:
        yield found
    finally:
        del module.__dict__["forward_features"]


def tensor_of(output: Any) -> Tensor | None:
    """The tensor that a module gave, or the first of several."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def logits_of(output: Any) -> Tensor:
    """A module's logits: its output, or the output's "logits", or the first of several tensors.

    Raises:
        UsageError: there is no tensor in it.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = tensor_of(output if named is None else named)
    if found is None:
        raise UsageError(f"the network gave a {type(output).__name__}, not a tensor of logits")
    return found


def channels_last(state: Tensor) -> Tensor:
    """(B, H, W, D) -> (B, D, H, W)"""
    return state.permute(0, 3, 1, 2)


def one_dimensional(state: Tensor) -> Tensor:
    """(B, D, L) -> (B, D, L, 1), as networks of 1-D convolutions give it."""
    return state[..., None]


@dataclass(frozen=True)
class Tokens:
    """Tokens as a map: (B, prefix + H W, D) -> (B, D, H, W). Class and register tokens come first and are left out."""

    prefix: int
    height: int
    width: int

    def __call__(self, state: Tensor) -> Tensor:
        maps = state[:, self.prefix :].transpose(1, 2)
        return maps.reshape(*maps.shape[:2], self.height, self.width)


def _related(path: str, other: str) -> bool:
    """Whether one of two submodules lies within the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _layers(module: nn.Module) -> int:
    """Convolutions and linear layers in a module."""
    return sum(isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in module.modules())
