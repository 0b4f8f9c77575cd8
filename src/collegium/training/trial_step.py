"""A step of every network on two images, before anything is written: in the run's mode, precision and memory layout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from collegium.errors import UsageError
from collegium.networks import Network
from collegium.seeds import global_state_kept
from collegium.training.recipe import Recipe


def try_step(peers: Sequence[Network], recipe: Recipe, image_shape: tuple[int, int, int]) -> list[str]:
    """Runs every peer forward and backward on random images; weights, running statistics and modes stay as they are.

    Args:
        peers: of several with one name the first is tried, as they are alike.
        recipe: how they will train.
        image_shape: (C, H, W) of the data's images.

    Returns:
        A sentence for each that cannot train in the channels-last layout, where the recipe asks for it.

    Raises:
        UsageError: a network fails in either layout, or its weights are not of single precision.
    """
    notes = []
    for k, peer in enumerate(peers):
        name = f"peer{k} ({peer.name})"
        single = torch.get_default_dtype()
        wrong = {str(p.dtype) for p in peer.parameters() if p.is_floating_point() and p.dtype != single}
        if wrong:
            raise UsageError(
                f"{name} has weights of {', '.join(sorted(wrong))}: make it of single precision, module.float(); "
                "--precision says in which one it computes"
            )
        if any(other.name == peer.name and type(other.plain()) is type(peer.plain()) for other in peers[:k]):
            continue
        failure = _failure(peer, recipe, image_shape, torch.channels_last) if recipe.channels_last else None
        if failure is None and recipe.channels_last:
            continue
        plain = _failure(peer, recipe, image_shape, torch.contiguous_format)
        if plain is not None:
            size = "x".join(map(str, image_shape))
            raise UsageError(f"{name} fails as it trains on images of {size} in {recipe.precision}: {plain}")
        if failure is not None:
            notes.append(
                f"{name} cannot train with channels last ({failure}): no network of this run uses that layout."
            )
    return notes


def _failure(
    peer: Network, recipe: Recipe, image_shape: tuple[int, int, int], layout: torch.memory_format
) -> str | None:
    """Why a step fails; None where it does not."""
    device = next(peer.parameters()).device
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device).clone(memory_format=layout)  # of one channel too, where both layouts fit
    # fp16 is tried as bf16: CPUs do not compute everything in it.
    half = recipe.precision != "fp32"
    with global_state_kept(), _kept(peer, layout), torch.enable_grad():
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                maps, logits = peer.train().outputs(peer.fit(images))
            loss = sum(
                (output.float().square().mean() for output in (*maps, logits)), start=torch.zeros((), device=device)
            )
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a stranger's module raises
            return (str(error) or type(error).__name__).splitlines()[0][:160].rstrip(".")
    return None


@contextmanager
def _kept(module: nn.Module, layout: torch.memory_format) -> Iterator[None]:
    """Weights of 2-D convolutions in a layout; at the end all is as it was, without gradients."""
    modes = [(part, part.training) for part in module.modules()]
    parameters: dict[nn.Parameter, Tensor] = {p: p.data for p in module.parameters()}
    buffers: dict[Tensor, Tensor] = {b: b.clone() for b in module.buffers()}
    gradients = {p: p.grad for p in parameters}
    for p in parameters:
        p.grad = None
        if p.ndim == 4:
            p.data = p.data.clone(memory_format=layout)
    try:
        yield
    finally:
        for p, data in parameters.items():
            p.data, p.grad = data, gradients[p]
        with torch.no_grad():
            for buffer, before in buffers.items():
                buffer.copy_(before)
        for part, training in modes:
            part.training = training
