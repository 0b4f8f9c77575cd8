"""The players of a run: the parameters that each one trains, their gradients, and their optimizers' steps."""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from collegium import ranks
from collegium.distiller import Distiller, DistillerOutput, Gradients, accumulate
from collegium.training.checks import check_players
from collegium.training.fabric import Fabric
from collegium.training.groups import optimizer_groups
from collegium.training.optimizers import make_optimizer, set_learning_rate
from collegium.training.partition import Partition
from collegium.training.recipe import Recipe
from collegium.training.tally import Seen


class Players:
    """The players of a method with their optimizers; a step is gradients, exchange, step.

    Args:
        learner: cohort and method, on their device.
        recipe: the optimizer's settings.
        fabric: the precision.
        partition: what this process trains.

    Raises:
        UsageError: the recipe's precision does not support several players.
    """

    def __init__(self, learner: Distiller, recipe: Recipe, fabric: Fabric, partition: Partition) -> None:
        groups = learner.players(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        check_players(recipe, len(groups))
        self.learner, self.fabric, self.partition = learner, fabric, partition
        self.max_norm = recipe.gradient_clip
        self.parameters = {player: [p for group in g for p in group["params"]] for player, g in groups.items()}
        self.optimizers: dict[str, Optimizer] = {
            player: make_optimizer(recipe, g, learner.method.optimizers.get(player))
            for player, g in optimizer_groups(learner, recipe).items()
        }
        # Fabric's wrappers, which scale and unscale for fp16.
        self.wrapped = {
            player: cast(Optimizer, fabric.setup_optimizers(optimizer)) for player, optimizer in self.optimizers.items()
        }
        self.statistics = learner.statistics()

    def accumulate(self, gradients: Gradients, out: DistillerOutput, micro_batches: int) -> None:
        """Adds those of one of so many micro-batches: of the sum of terms of each player that does not rest.

        All are taken at the weights before any step; the sum over the micro-batches is the mean over the batch.
        """
        if len(self.parameters) > 1:
            accumulate(gradients, self.learner.gradients(out), 1 / micro_batches)
            return
        ((player, parameters),) = self.parameters.items()
        self.fabric.backward(out.loss if micro_batches == 1 else out.loss / micro_batches)
        gradients[player] = [p.grad for p in parameters]

    def exchange(self, gradients: Gradients, seen: Seen) -> None:
        """Makes gradients, running statistics and ``seen`` in place those of the whole batch, by one message."""
        if self.partition.share.ranks > 1:
            own = [g for found in gradients.values() for g in found if g is not None]
            ranks.exchange([*own, *self.statistics, seen.values], [seen.correct])

    def step(self, gradients: Gradients) -> None:
        """One optimizer step of each player, on its clipped gradient."""
        for player, found in gradients.items():
            for parameter, gradient in zip(self.parameters[player], found, strict=True):
                parameter.grad = gradient
            if self.max_norm is not None:
                self._clip(player, self.max_norm)
            self.wrapped[player].step()
            self.wrapped[player].zero_grad()

    def _clip(self, player: str, max_norm: float) -> None:
        # A norm that is not finite comes from a term that is not; the tally reports it without a wait for the device.
        if self.partition.groups == 1:
            self.fabric.clip_gradients(self.learner, self.wrapped[player], max_norm=max_norm, error_if_nonfinite=False)
            return
        reached = [p for p in self.parameters[player] if p.grad is not None]
        own = nn.utils.get_total_norm([p.grad for p in reached if p.grad is not None]).to(self.fabric.device)
        nn.utils.clip_grads_with_norm_(reached, max_norm, ranks.norm_over_peers(own))

    def set_learning_rate(self, recipe: Recipe, fraction: float) -> None:
        """Sets the learning rate of every group of parameters after a share ``fraction`` of all steps."""
        set_learning_rate(self.optimizers, recipe, fraction)

    @property
    def learning_rate(self) -> float:
        """That of the first player's first group."""
        return float(next(iter(self.optimizers.values())).param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Player -> the state of its optimizer."""
        return {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError or ValueError where the state does not fit."""
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[player])
