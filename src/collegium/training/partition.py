"""How the processes of a run divide batches and peers among themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from collegium import ranks
from collegium.data import Share
from collegium.distiller import Distiller
from collegium.training.checks import peer_groups
from collegium.training.devices import Layout
from collegium.training.experiment import Experiment
from collegium.training.recipe import Recipe


class Partition(NamedTuple):
    """What one process trains: some of the peers, on its share of every batch."""

    processes: int
    groups: int  # of processes; each group trains other peers, and the processes of a group share its batches
    peers: range  # that this process trains
    num_peers: int
    share: Share

    def describe(self, recipe: Recipe, batch_size: int) -> list[str]:
        """Sentences for the user on what is divided; none in a single process."""
        count, notes = self.share.ranks, []
        if self.groups > 1:
            peers = f"{len(self.peers)} peer{'s' * (len(self.peers) > 1)} of {self.num_peers}"
            each = "process trains" if count == 1 else f"group of {count} processes trains"
            notes.append(f"Each {each} {peers} and receives the other peers' logits.")
        if count > 1:
            norms = "the whole batch" if recipe.sync_batchnorm else "the images of its own process"
            notes.append(
                f"{count} processes share every batch of {batch_size} images, {batch_size // count} each. "
                f"The learning rate {recipe.learning_rate:g} applies to the whole batch, for any number of processes. "
                f"Batch norm uses the statistics of {norms}."
            )
        return notes


def make_partition(experiment: Experiment, layout: Layout) -> Partition:
    """The partition of a run in all processes that have been started, see :func:`~.checks.check_run`.

    In the layout "peers" it makes the process groups too.
    """
    recipe, processes, num_peers = experiment.recipe, ranks.processes(), experiment.spec.num_peers
    groups, group = 1, 0
    if layout == "peers":
        groups = peer_groups(experiment, processes)
        group = ranks.make_peer_groups(groups)
    each = num_peers // groups
    mixing = bool(recipe.mixup or recipe.cutmix)
    share = Share(ranks.rank(), ranks.count(), before=int(mixing and ranks.count() > 1))
    return Partition(processes, groups, range(group * each, (group + 1) * each), num_peers, share)


class _Trained(NamedTuple):
    """What one process has trained, on the CPU."""

    learner: dict[str, Tensor]
    optimizers: dict[tuple[str, int], dict[str, Any]]  # (player, index of its parameter) -> the optimizer's state


def gather_to_rank0(
    learner: Distiller, optimizers: Mapping[str, Optimizer], parameters: Mapping[str, Sequence[nn.Parameter]]
) -> None:
    """Copies the peers that the other processes have trained to rank 0, which saves the whole cohort.

    Args:
        learner: peers and their copies, of which each process has trained some.
        optimizers: of each player.
        parameters: of each player, in the same order in every process.
    """
    trained: _Trained | None = None
    if ranks.rank() == 0:  # the other processes of a group have trained the same peers
        prefixes = learner.local_prefixes()
        local = {id(p) for p in learner.cohort.local_modules().parameters()}
        trained = _Trained(
            {name: tensor.cpu() for name, tensor in learner.state_dict().items() if name.startswith(prefixes)},
            {
                (player, k): tree_map_only(Tensor, Tensor.cpu, optimizers[player].state[p])
                for player, owned in parameters.items()
                for k, p in enumerate(owned)
                if id(p) in local
            },
        )
    for other in filter(None, ranks.gather_objects(trained)[1:]):
        learner.load_state_dict(other.learner, strict=False)
        for (player, k), state in other.optimizers.items():
            optimizers[player].state[parameters[player][k]] = state
