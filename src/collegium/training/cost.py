"""The cost of each predictor at inference."""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from collegium.cohort import AVERAGED, Cohort
from collegium.distiller import Distiller

Cost = dict[str, int]


def costs(
    learner: Distiller, image_shape: tuple[int, int, int], of_peers: Mapping[str, Cost] | None = None
) -> dict[str, Cost]:
    """Predictor -> number of parameters, and FLOPs for one image (a multiply-add counts as two).

    Args:
        learner: its networks, on one device.
        image_shape: (C, H, W).
        of_peers: what :func:`peer_costs` has said of the peers, where it is known.
    """
    learner.eval()
    cohort, method = learner.cohort, learner.method
    result = dict(peer_costs(cohort, image_shape) if of_peers is None else of_peers)
    peers = list(result.values())
    images = _image(cohort, image_shape)
    joined = _parameters(*(cohort.peer(k) for k in range(cohort.num_peers)))
    result["ensemble"] = {"parameters": joined, "flops": _flops(cohort.forward_peers, images)}
    averaged = result["ensemble"]["flops"] if learner.average is not None else 0  # which the others do not need
    every = {"parameters": _parameters(cohort, method), "flops": _flops(learner.predict, images) - averaged}
    alone = {name: peers[index % len(peers)] for name, index in method.one_network.items()}
    alone |= {name + AVERAGED: cost for name, cost in result.items()}
    with torch.no_grad():
        names = [name for name in learner.predict(images) if name not in result]
    return result | {name: alone.get(name, every) for name in names}


def peer_costs(cohort: Cohort, image_shape: tuple[int, int, int]) -> dict[str, Cost]:
    """:func:`costs` of the peers alone. They are on one device, and in evaluation mode afterwards."""
    cohort.eval()
    image = _image(cohort, image_shape)
    return {
        f"peer{k}": {"parameters": _parameters(peer), "flops": _flops(peer, image)}
        for k, peer in enumerate(map(cohort.peer, range(cohort.num_peers)))
    }


def _image(cohort: Cohort, image_shape: tuple[int, int, int]) -> Tensor:
    return torch.zeros(1, *image_shape, device=next(cohort.parameters()).device)


def _parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for p in {id(p): p for m in modules for p in m.parameters()}.values())


# Torch does not count what its fast paths for attention do, without gradients and on a CPU; and without gradients the
# counter fails where a layer is handed a weight.
@torch.enable_grad()
def _flops(forward: Callable[[Tensor], object], images: Tensor) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")
        forward(images)
    return int(counter.get_total_flops())
