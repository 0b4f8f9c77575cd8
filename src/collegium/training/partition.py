"""Peers that are trained in different processes, which tell each other logits and nothing else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from collegium import methods, ranks
from collegium.errors import UsageError
from collegium.training.experiment import Experiment, Learner


def peer_groups(experiment: Experiment, processes: int) -> int:
    """How many groups of processes the peers are laid out on, each with as many peers.

    Raises:
        UsageError: the method must see more of its peers than logits, or peers and processes do not fit each other.
    """
    recipe, cohort, method = experiment.recipe, experiment.learner.cohort, experiment.learner.method
    peers = cohort.num_peers
    if not method.logits_only:
        able = ", ".join(name for name in methods.names() if methods.get(name).logits_only)
        raise UsageError(
            f"{recipe.method_name} reads more of its peers than their logits, so --layout peers cannot part them; "
            f"take --layout data, or one of the methods {able}"
        )
    if cohort.trunk:
        raise UsageError("peers that share stages cannot be parted; leave out --share-until, or take --layout data")
    if processes == 1:
        raise UsageError("--layout peers needs several processes; say --devices too")
    if max(peers, processes) % min(peers, processes) or peers == 1:
        raise UsageError(
            f"{peers} peer{'s' * (peers > 1)} cannot be laid out evenly on {processes} processes; "
            "take as many, a divisor, or a multiple"
        )
    if recipe.compile or recipe.precision == "fp16":
        raise UsageError("--layout peers works neither with --compile nor with fp16; take bf16 or fp32, uncompiled")
    return min(peers, processes)


class _Trained(NamedTuple):
    """What a process has trained, on the CPU."""

    learner: dict[str, Tensor]
    optimizers: dict[tuple[str, int], dict[str, Tensor]]  # (player, which of its parameters) -> the optimizer's state


def bring_home(
    learner: Learner, optimizers: Mapping[str, Optimizer], parameters: Mapping[str, Sequence[nn.Parameter]]
) -> None:
    """Gives the first process what the others have trained, so that it can save the whole cohort.

    Args:
        learner: peers and their copies, of which each process has trained some.
        optimizers: of each player.
        parameters: of each player, in the same order in every process.
    """
    trained: _Trained | None = None
    if ranks.rank() == 0:  # those that share its batches have trained the same
        names = learner.names_here()
        here = {id(p) for p in learner.cohort.present().parameters()}
        trained = _Trained(
            {name: tensor.cpu() for name, tensor in learner.state_dict().items() if name.startswith(names)},
            {
                (player, k): {key: value.cpu() for key, value in optimizers[player].state[p].items()}
                for player, owned in parameters.items()
                for k, p in enumerate(owned)
                if id(p) in here
            },
        )
    for other in filter(None, ranks.tell_first(trained)[1:]):
        learner.load_state_dict(other.learner, strict=False)
        for (player, k), state in other.optimizers.items():
            optimizers[player].state[parameters[player][k]] = state
