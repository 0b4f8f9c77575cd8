"""What every peer is: stages one after another, then a classifier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.networks.recompute import recomputed


class Statistics(NamedTuple):
    """What images are normalised by: (p - mean) / std, per channel, of pixels p in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LoadedWeights:
    """What a network got from a file.

    Attributes:
        sha256: of the file.
        note: what was loaded and what was not, as the rest of a sentence that begins with the network.
    """

    sha256: str
    note: str


@dataclass(frozen=True)
class Task:
    """What the data ask of a network."""

    num_classes: int
    in_channels: int = 3
    image_size: tuple[int, int] = (32, 32)  # (H, W) in pixels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return self.in_channels, *self.image_size


def as_map(state: Tensor) -> Tensor:
    """What a stage gives, as a map: (B, D, H, W) as it is, (B, D) -> (B, D, 1, 1), (B, D, S, H, W) -> (B, D S, H, W).

    Raises:
        UsageError: the tensor has another number of dimensions.
    """
    if state.ndim == 2:
        return state[:, :, None, None]
    if state.ndim == 5:
        return state.flatten(1, 2)
    if state.ndim != 4:
        raise UsageError(f"a stage gave a tensor of shape {tuple(state.shape)}, which is not a map (B, D, H, W)")
    return state


class Stage(nn.Sequential):
    """Modules one after another whose output ``to_map`` turns into a map: channels last, tokens, and so on."""

    def __init__(self, *modules: nn.Module, to_map: Callable[[Tensor], Tensor] = as_map) -> None:
        super().__init__(*modules)
        self.to_map = to_map


def read_map(stage: nn.Module, state: Tensor) -> Tensor:
    """The map (B, D, H, W) that a stage's output stands for."""
    return stage.to_map(state) if isinstance(stage, Stage) else as_map(state)


class Network(nn.Module):
    """Named stages, each fed with the output of the one before, and a classifier on the last output.

    The stage structure is what lets a cohort cut the network anywhere into a shared trunk and branches.

    Args:
        stages: name -> module, in order. What one gives the next is a map (B, D, H, W), or what :func:`as_map` or
            the :class:`Stage` itself can turn into one.
        classifier: maps the last stage's output to logits (B, C).
        in_channels: channels of the images, checked on every call.
        name: how the network is called in messages and files.
        image_size: (H, W) that images are resized to, for a network that takes one size only.
        copies_images: give the network a copy of the images, because it changes them in place.
        note: a sentence that users must know before they train the network on such images, "" for none.

    Attributes:
        expected: mean and std, per channel, by which the images were normalised that the family's trained weights have
            seen; None where that is not known.
        loaded_weights: the file that its weights were loaded from, None for random ones.
    """

    input_scale: Tensor | None
    input_shift: Tensor | None

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        classifier: nn.Module,
        *,
        in_channels: int,
        name: str,
        image_size: tuple[int, int] | None = None,
        copies_images: bool = False,
        note: str = "",
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.classifier = classifier
        self.in_channels = in_channels
        self.name = name
        self.image_size = image_size
        self.copies_images = copies_images
        self.note = note
        self.expected: Statistics | None = None
        self.loaded_weights: LoadedWeights | None = None
        # Not part of what is saved: the network's name and the data's mean and std say them.
        self.register_buffer("input_scale", None, persistent=False)
        self.register_buffer("input_shift", None, persistent=False)
        self.recomputes = False

    def recomputing(self) -> "Network":
        """This network, of which the backward pass keeps the ends of stages alone and computes the rest again."""
        self.recomputes = True
        return self

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(self.stages.keys())

    def stage_modules(self) -> list[nn.ModuleList]:
        """The modules of each stage, in order; none where the network does not run stage after stage."""
        return [nn.ModuleList([stage]) for stage in self.stages.values()]

    @property
    def head(self) -> nn.Module:
        """What turns the last stage's output into logits, where the network runs as one stage after another."""
        return self.classifier

    def renormalise(self, given: Statistics, wanted: Statistics) -> None:
        r"""From now on the images, normalised by mean and std as ``given``, are normalised as ``wanted`` instead.

        .. math:: \frac{p - m_w}{s_w} = \frac{s_g}{s_w} \cdot \frac{p - m_g}{s_g} + \frac{m_g - m_w}{s_w}
        """
        scale = [g / w for g, w in zip(given.std, wanted.std, strict=True)]
        shift = [(g - w) / s for g, w, s in zip(given.mean, wanted.mean, wanted.std, strict=True)]
        self.input_scale, self.input_shift = (torch.tensor(values).view(-1, 1, 1) for values in (scale, shift))

    def normalises_like(self, other: "Network") -> bool:
        """Whether both change the normalisation of their images in the same way, or neither does."""
        pairs = ((self.input_scale, other.input_scale), (self.input_shift, other.input_shift))
        return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)

    def fit(self, images: Tensor) -> Tensor:
        """The images (B, in_channels, H, W) in the normalisation and the one size that the network takes."""
        if self.input_scale is not None and self.input_shift is not None:
            images = images * self.input_scale + self.input_shift
        if self.image_size is None or tuple(images.shape[2:]) == self.image_size:
            return images.clone() if self.copies_images else images
        return F.interpolate(images, self.image_size, mode="bilinear", align_corners=False, antialias=True)

    def outputs(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The map (B, D, H, W) after every stage, and the logits (B, C), of images that fit or a trunk's output."""
        maps = []
        for stage in self.stages.values():
            x = recomputed(stage, stage, x) if self.recomputes else stage(x)
            maps.append(read_map(stage, x))
        return tuple(maps), cast(Tensor, self.classifier(x))

    def forward_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The map after every stage, each (B, D, H, W)."""
        return self.outputs(self.fit(images))[0]

    def forward(self, images: Tensor) -> Tensor:
        """Logits: (B, in_channels, H, W) -> (B, C)."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise UsageError(
                f"{self.name} takes images of shape (batch, {self.in_channels}, height, width), "
                f"got {tuple(images.shape)}"
            )
        return self.outputs(self.fit(images))[1]

    def split_after(self, stage: str) -> tuple[dict[str, nn.Module], "Network"]:
        """The stages up to and with ``stage``, and a network of the rest. The modules are shared with this one.

        Raises:
            UsageError: there is no such stage, or nothing after it.
        """
        names = self.stage_names
        if stage not in names[:-1]:
            cuts = ", ".join(names[:-1])
            raise UsageError(f"{self.name} cannot be cut after {stage!r}; it can be cut after: {cuts}")
        cut = names.index(stage) + 1
        below, above = (
            {id(p) for n in part for p in self.stages[n].parameters()} for part in (names[:cut], names[cut:])
        )
        if below & (above | {id(p) for p in self.classifier.parameters()}):
            raise UsageError(f"{self.name} cannot be cut after {stage!r}: layers below and above it share weights")
        low = {name: self.stages[name] for name in names[:cut]}
        return low, self.with_stages({name: self.stages[name] for name in names[cut:]})

    def on_trunk(self, trunk: Mapping[str, nn.Module]) -> "Network":
        """The opposite of :meth:`split_after`: this network above the stages of a trunk, as a whole one."""
        whole = self.with_stages({**trunk, **dict(self.stages.items())})
        whole.training = self.training
        return whole

    def plain(self) -> nn.Module:
        """The module whose weights are saved: this network, or the library's or user's own that it was made of."""
        return self

    def with_stages(self, stages: Mapping[str, nn.Module]) -> "Network":
        """A network of these stages under this one's classifier, for the same images. All modules are shared."""
        other = Network(
            stages, self.classifier, in_channels=self.in_channels, name=self.name, image_size=self.image_size
        )
        other.input_scale, other.input_shift = self.input_scale, self.input_shift
        return other
