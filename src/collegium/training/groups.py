"""Learning rates and weight decays of single parameters: by layer, by peer, and none for norms and biases."""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from collegium.cohort import Cohort
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.method import ParameterGroup, torch_groups
from collegium.networks import Network
from collegium.training.recipe import Recipe


def optimizer_groups(learner: Distiller, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Player -> groups for its optimizer, with the settings of the recipe; those with the highest rate are first.

    Where the recipe treats all parameters alike, they are those of :meth:`Distiller.players`.

    Raises:
        UsageError: the recipe has settings for another number of peers, or layers that cannot be told apart.
    """
    settings: dict[str, Any] = dict(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    groups = learner.players(**settings)
    rates, decays = recipe.peer_learning_rates, recipe.peer_weight_decays
    peers = learner.cohort.num_peers
    for name, values in (("peer_learning_rates", rates), ("peer_weight_decays", decays)):
        if len(values) not in (0, peers):
            raise UsageError(f"{name} has {len(values)} values for {peers} peers: give one for each, in their order")
    if recipe.layer_decay == 1 and recipe.decay_norms_and_biases and not rates and not decays:
        return groups
    whose = {id(p): k for k, branch in enumerate(learner.cohort.branches) for p in branch.parameters()}
    scales = _layer_scales(learner.cohort, recipe.layer_decay)
    spared = set() if recipe.decay_norms_and_biases else _without_decay(learner)

    def settings_of(group: ParameterGroup, parameter: nn.Parameter) -> dict[str, Any]:
        own: dict[str, Any] = {key: value for key, value in group.items() if key != "params"}
        peer = whose.get(id(parameter))
        if peer is not None and rates:
            own.setdefault("lr", rates[peer])
        if peer is not None and decays:
            own.setdefault("weight_decay", decays[peer])
        own["lr_scale"] = own.get("lr_scale", 1.0) * scales.get(id(parameter), 1.0)
        return own | ({"weight_decay": 0.0} if id(parameter) in spared else {})

    def divided(group: ParameterGroup) -> list[Any]:
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for parameter in group["params"]:
            own = settings_of(group, parameter)
            found.setdefault(tuple(sorted(own.items())), {**own, "params": []})["params"].append(parameter)
        return list(found.values())

    return {
        player: sorted(
            torch_groups([part for group in own for part in divided(group)], **settings), key=lambda g: -float(g["lr"])
        )
        for player, own in learner.method.players(learner.cohort).items()
    }


def _layer_scales(cohort: Cohort, decay: float) -> Mapping[int, float]:
    """id of a peer's parameter -> decay ** (layers above it); what peers share counts as a layer of the first."""
    scales: dict[int, float] = {}
    if decay == 1:
        return scales
    divided = False
    for k in range(cohort.num_peers):
        network = cohort.peer(k)
        trained = {id(p) for p in network.parameters() if p.requires_grad}
        found = _timm_scales(network.plain(), decay) or _stage_scales(network, decay)
        layers = {scale for parameter, scale in found.items() if parameter in trained}
        divided |= len(layers) > 1
        if len(layers) < 2 and len(trained) == len(list(network.parameters())):
            raise UsageError(
                f"peer{k} ({network.name}) cannot be divided into layers, so that it takes no layer_decay; leave it out"
            )
        scales = found | scales
    if not divided:
        raise UsageError(
            "layer_decay lowers the rates of lower layers, and freeze leaves no peer more than one layer to train: "
            "leave one of the two out"
        )
    return scales


def _timm_scales(module: nn.Module, decay: float) -> dict[int, float]:
    """By the layers that a timm model names; empty for other modules."""
    if not hasattr(module, "group_matcher"):
        return {}
    import timm.optim as factory

    groups: Any = cast(Any, factory).param_groups_layer_decay(module, layer_decay=decay)
    return {id(p): float(group["lr_scale"]) for group in groups for p in group["params"]}


def _stage_scales(network: Network, decay: float) -> dict[int, float]:
    """By the stages, below the classifier."""
    stages = network.stage_modules()
    of_stage = {id(p): decay ** (len(stages) - k) for k, stage in enumerate(stages) for p in stage.parameters()}
    return {id(p): 1.0 for p in network.parameters()} | of_stage


def _without_decay(learner: Distiller) -> set[int]:
    """ids of the weights of norms, of biases, and of what a timm model says needs no decay."""
    spared = {id(p) for name, p in learner.named_parameters() if p.ndim <= 1 or name.endswith(".bias")}
    for k in range(learner.cohort.num_peers):
        plain: Any = learner.cohort.peer(k).plain()
        if hasattr(plain, "group_matcher"):
            named = dict(plain.named_parameters())
            spared |= {id(named[name]) for name in getattr(plain, "no_weight_decay", set)() if name in named}
    return spared
