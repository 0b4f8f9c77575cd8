"""The cost of each predictor at inference."""

import warnings

import torch

from collegium.cohort import AVERAGED
from collegium.distiller import Distiller


@torch.no_grad()
def costs(learner: Distiller, image_shape: tuple[int, int, int]) -> dict[str, dict[str, int]]:
    """Predictor -> number of parameters, and FLOPs for one image (a multiply-add counts as two)."""
    from torch.utils.flop_counter import FlopCounterMode

    learner.eval()
    cohort, method = learner.cohort, learner.method
    parameter = next(cohort.parameters())
    images = torch.zeros(1, *image_shape, device=parameter.device)

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for p in {id(p): p for m in modules for p in m.parameters()}.values())

    def flops(forward: object) -> int:
        assert callable(forward)
        with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
            warnings.simplefilter("ignore")
            forward()
        return int(counter.get_total_flops())

    peers = [cohort.peer(k) for k in range(cohort.num_peers)]
    result = {
        f"peer{k}": {"parameters": count(peer), "flops": flops(lambda peer=peer: peer(images))}
        for k, peer in enumerate(peers)
    }
    result["ensemble"] = {"parameters": count(*peers), "flops": flops(lambda: cohort.forward_peers(images))}
    averaged = result["ensemble"]["flops"] if learner.average is not None else 0  # which the others do not need
    every = {"parameters": count(cohort, method), "flops": flops(lambda: learner.predict(images)) - averaged}
    alone = {name: result[f"peer{index % len(peers)}"] for name, index in method.one_network.items()}
    alone |= {name + AVERAGED: cost for name, cost in result.items()}
    return result | {name: alone.get(name, every) for name in learner.predict(images) if name not in result}
