"""A method, its peers and their copies as one module for any training loop; Collegium's own loop trains it too."""

import copy
import dataclasses
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import get_ema_multi_avg_fn

from collegium import methods, networks, ranks
from collegium.cohort import AVERAGED, Cohort, CohortSpec, PeerOutputs, describe, describe_logits
from collegium.errors import UsageError, brief
from collegium.losses import class_weighted
from collegium.method import Method, Progress, Shadow, Terms, torch_groups, trainable
from collegium.options import check_options
from collegium.positions import Positions
from collegium.seeds import global_state_kept
from collegium.tiles import Tile
from collegium.wide import in_double

Gradients: TypeAlias = dict[str, list[Tensor | None]]
"""Player -> the gradient of each of its parameters, in their order; None where its loss does not depend on one."""

STEPS = "steps"  # the entry of the state dict that counts optimizer steps


class DistillerOutput(NamedTuple):
    """What one batch gives."""

    by_player: dict[str, Terms]
    logits: Tensor  # (M, B, C), or (M, B, C, ...) and (M, B, ..., C) as the networks give them; float32, detached

    @property
    def terms(self) -> Terms:
        """Every term by its name, or by "player/name" where there are several players."""
        if len(self.by_player) == 1:
            return next(iter(self.by_player.values()))
        return {f"{player}/{name}": x for player, named in self.by_player.items() for name, x in named.items()}

    @property
    def losses(self) -> dict[str, Tensor]:
        """What each player descends: the sum of its terms."""
        return {player: torch.stack(list(named.values())).sum() for player, named in self.by_player.items()}

    @property
    def loss(self) -> Tensor:
        """What the one player descends: the sum of all terms.

        Raises:
            UsageError: there are several players.
        """
        if len(self.by_player) > 1:
            raise UsageError(
                f"this method has several players ({', '.join(self.by_player)}), each with a loss and an optimizer of "
                "its own, so there is no one loss: train with Distiller.step(images, target, fraction, optimizers)"
            )
        (loss,) = self.losses.values()
        return loss


class Distiller(nn.Module):
    """Peers and the method by which they teach each other, with all that the method needs besides.

    Args:
        method: its name ("dml", "module:package.Class"), the class, or a mapping with its name and options
            ({"name": "ffl", "temperature": 4}).
        peers: torch modules that map images to logits, names of networks, or both; or one text, "2xresnet20". Modules
            are trained in place; named networks get random weights from torch's global generator.
        image_shape: (C, H, W) of the images that the peers classify.
        num_classes: of the data.
        example_input: in place of ``image_shape``, a batch such as the peers will be given, of any shape and type, for
            modules with logits (B, C), or (B, C, ...) or (B, ..., C) for a label at each position; methods that read
            logits alone train them. Each position counts as an image.
        ignore_index: with ``example_input``, the target of positions that have no label; by default all have one.
        share_until: the last stage that the peers share, see :class:`~collegium.cohort.Cohort`.
        teacher: a trained module, for methods that learn from one; it is frozen.
        recompute: whether the backward pass keeps the ends of stages alone and computes what lies between again.
        class_weights: of the cross-entropy with labels, one a class; by default each counts 1. See
            :func:`collegium.losses.cross_entropy`. Distillers of other weights must not run in other threads meanwhile.
        ema: decay of an exponential moving average of the peers' weights, between 0 and 1, which :meth:`predict` asks
            too; see :meth:`after_step`.
        freeze: patterns of names of the peers' parameters that are not trained, see :meth:`Cohort.freeze`.
        epochs: into how many epochs the share of training is divided, for methods that count them: ramps rise, and
            DualNet's peers take turns, from epoch to epoch.
        steps_per_epoch: optimizer steps of an epoch, for methods that count them (OKDPH, L-MCL).
        **options: of the method.

    Raises:
        UsageError: something does not exist or does not fit together.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        method: str | type[Method] | Mapping[str, Any],
        peers: str | Sequence[nn.Module | str],
        *,
        image_shape: tuple[int, int, int] | None = None,
        num_classes: int,
        example_input: Tensor | None = None,
        ignore_index: int | None = None,
        share_until: str | None = None,
        teacher: nn.Module | None = None,
        recompute: bool = False,
        class_weights: Sequence[float] | None = None,
        ema: float | None = None,
        freeze: str | None = None,
        epochs: int = 100,
        steps_per_epoch: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        method_class, options = _named(method, options)
        check_options(method_class.__name__, method_class, options, skip="spec")
        if (image_shape is None) == (example_input is None):
            raise UsageError(
                "give Distiller either image_shape=, where the peers classify images, or example_input=, a batch of "
                "whatever else they take"
            )
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise UsageError(
                f"teacher= is a trained module, not {brief(teacher)}; an option of the method that is called so stands "
                'beside its name: {"name": "switokd", "teacher": 0}'
            )
        if ignore_index is not None and example_input is None:
            raise UsageError("ignore_index= is for networks that label positions, with example_input=")
        if example_input is not None:
            _check_reads_logits_alone(method_class)
        shape = None if image_shape is None else (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))

        def as_network(module: nn.Module) -> networks.Network:
            return networks.as_logits_network(module) if shape is None else networks.as_network(module, shape)

        self._given = tuple(_modules(peers, shape, num_classes))  # a tuple: no second name for the same weights
        self.cohort = Cohort(
            [as_network(peer) for peer in self._given],
            share_until=share_until,
            teacher=None if teacher is None else as_network(teacher),
            recompute=recompute,
            input_ndim=4 if example_input is None else example_input.ndim,
        )
        if freeze is not None:
            self.cohort.freeze(freeze)
        self.spec: CohortSpec
        self.positions: Positions | None = None
        with global_state_kept():
            if shape is not None:
                self.spec = describe(self.cohort, shape, num_classes)
            elif example_input is not None:
                self.spec, layout = describe_logits(self.cohort, example_input, num_classes)
                self.positions = Positions(*layout, ignore_index)
        self.method = method_class(self.spec, **options)
        self._needs_equal_shares = self.method.gathers_batch and ignore_index is not None
        if class_weights is not None:
            check_class_weights(class_weights, num_classes)
        # Given with every construction, and so not part of what is saved.
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.steps = 0  # optimizer steps that after_step has counted
        name = method_class.__name__
        try:
            self.deployed_peer = f"peer{range(self.cohort.num_peers)[self.method.deployed_peer]}"
        except (IndexError, TypeError):
            wrong = f"{name}.deployed_peer must be the index of one of {self.cohort.num_peers} peers"
            raise UsageError(f"{wrong}, not {self.method.deployed_peer!r}") from None
        self.shadow: Cohort | None = None
        rule = self.method.shadow
        if self.method.starts_alike or (rule is not None and rule.hybrid):
            _check_alike(self.cohort, name)
        if self.method.starts_alike:
            for k in range(1, self.cohort.num_peers):
                self.cohort.peer(k).load_state_dict(self.cohort.peer(0).state_dict())
        if rule is not None:
            followed = Cohort([self.cohort.peer(0)], input_ndim=self.cohort.input_ndim) if rule.hybrid else self.cohort
            if rule.hybrid:
                kept = {id(module) for module in followed.modules()}
                followed.frozen_norms = [norm for norm in self.cohort.frozen_norms if id(norm) in kept]
            self.shadow = copy.deepcopy(followed).requires_grad_(False)
            self._follow(rule, 0.0)
        if ema is not None and not 0 < ema < 1:
            raise UsageError(f"ema is the decay of a moving average, between 0 and 1, not {ema}")
        self.ema = ema
        self.average: Cohort | None = None
        if ema is not None:
            self.average = copy.deepcopy(self.cohort).requires_grad_(False).eval()
            self.average.teacher = None
        self._counts_steps = method_class.after_step is not Method.after_step
        self._stepped = False  # whether an optimizer has, since the last after_step
        self._watch_steps()
        self.register_state_dict_post_hook(_save_steps)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_load_steps)  # type: ignore[no-untyped-call]

    @property
    def views(self) -> int:
        """How many random views of each image the method trains on: one for every peer, or as many as it says."""
        return self.cohort.num_peers if self.method.own_views else self.method.views

    def peer(self, index: int) -> nn.Module:
        """The module that was given as this peer, with its weights as they are now."""
        module, now = self._given[index], self.cohort.peer(index).plain()
        if self.cohort.trunk and index > 0:  # the shared stages are another peer's
            module.to(next(now.parameters()).device).load_state_dict(now.state_dict())
        return module

    def train(self, mode: bool = True) -> "Distiller":
        """As of any module; the modules that were given follow."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()  # its running statistics are means too
        for module in self._given:
            module.train(mode)
        for cohort in filter(None, (self.cohort, self.shadow)):
            for norm in cohort.frozen_norms:
                norm.eval()
        return self

    def keep(self, peers: range) -> None:
        """Leaves all other peers, and their copies, to other processes."""
        for cohort in filter(None, (self.cohort, self.shadow, self.average)):
            cohort.keep(peers)

    def local_modules(self) -> list[nn.Module]:
        """What this process trains, and the copies that follow it."""
        cohorts = filter(None, (self.cohort, self.shadow))
        return [self.method, *(cohort.local_modules() for cohort in cohorts)]

    def local_prefixes(self) -> tuple[str, ...]:
        """How the names of this process's peers and their copies begin in :meth:`state_dict`."""
        return tuple(
            f"{part}.branches.{k}." for part in ("cohort", "shadow", "average") for k in self.cohort.local_peers
        )

    def statistics(self) -> list[Tensor]:
        """The running statistics of what this process trains, which processes that share a batch average."""
        equal = {id(b) for norm in self.cohort.frozen_norms for b in norm.buffers()}  # everywhere already
        for cohort in filter(None, (self.cohort, self.shadow)):
            equal |= {id(b) for peer in cohort.branches for b in (peer.input_scale, peer.input_shift)}
        found = [b for module in self.local_modules() for b in module.buffers() if b.is_floating_point()]
        return [b for b in found if id(b) not in equal]

    def players(self, *, lr: float, weight_decay: float | None = None) -> dict[str, list[dict[str, Any]]]:
        """The parameters that each player trains, as groups for its torch optimizer.

        Args:
            lr: the learning rate, where the method sets no other.
            weight_decay: the same; by default that of the optimizer.

        Raises:
            AssertionError: the method leaves a parameter to no player, which would never be trained.
        """
        groups = self.method.players(self.cohort)
        owned = {id(p) for player in groups.values() for group in player for p in group["params"]}
        lost = [name for name, p in self.named_parameters() if p.requires_grad and id(p) not in owned]
        assert not lost, f"no player of {type(self.method).__name__} owns {lost}"
        return {player: torch_groups(own, lr=lr, weight_decay=weight_decay) for player, own in groups.items()}

    def parameter_groups(self, *, lr: float, weight_decay: float | None = None) -> list[dict[str, Any]]:
        """The groups of the one player, for one torch optimizer; arguments as for :meth:`players`.

        Raises:
            UsageError: there are several players.
        """
        players = self.players(lr=lr, weight_decay=weight_decay)
        if len(players) > 1:
            raise UsageError(
                f"{type(self.method).__name__} has several players ({', '.join(players)}), each with an optimizer of "
                "its own: make one of each entry of Distiller.players(), and train with Distiller.step()"
            )
        (groups,) = players.values()
        return groups

    def forward(self, images: Tensor, target: Tensor, fraction: float | Tensor | Progress) -> DistillerOutput:
        """The loss terms of a batch, with the peers' logits.

        Args:
            images: (B, C, H, W), or (views, B, C, H, W) where the method trains on several views, see :attr:`views`;
                with ``example_input``, batches like that.
            target: (B,) class indices, or (B, classes) probabilities; for logits of positions, class indices of the
                logits' shape without the classes, or probabilities of their shape.
            fraction: the share of training that is done, from 0 to 1; or a :class:`~collegium.method.Progress`.

        Returns:
            The terms, all 0 where no position has a label.

        Raises:
            UsageError: the fraction is none, the method trains on several views of each image and there are none, or
                the target does not fit the logits.
        """
        views = self.cohort.has_views(images)
        if self.training and self.views > 1 and not views:
            one = "B, C, H, W" if self.cohort.input_ndim == 4 else "B, ..."
            raise UsageError(
                f"{type(self.method).__name__} trains on {self.views} random views of each image: give images of shape "
                f"({self.views}, {one}), for example torch.stack([augment(images) for _ in range(kd.views)])"
            )
        if self._needs_equal_shares and ranks.count() > 1:
            raise UsageError(
                f"{type(self.method).__name__} with these options joins the labelled positions of all processes, and "
                "ignore_index leaves each another number of them: take other options, or train in one process"
            )
        out = self._outputs(images.flatten(0, 1) if views and not self.method.own_views else images, copies=True)
        with class_weighted(self.class_weights):
            terms = self._terms(out, target, self._progress(fraction, images.device))
        return DistillerOutput(terms, out.logits[:, : len(target)].detach())  # of the first view

    def _terms(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        if self.positions is None:
            terms: dict[str, Terms] = self.method(out, target, progress)
            return terms
        labelled = self.positions.labelled(out, target)
        if not labelled.none:
            terms = self.method(labelled.out, labelled.target, progress)
            return terms
        training = self.method.training
        self.method.eval()  # it is to learn nothing from a made-up label
        terms = self.method(labelled.out, labelled.target, progress)
        self.method.train(training)
        return {player: {name: 0 * term for name, term in named.items()} for player, named in terms.items()}

    def _progress(self, fraction: float | Tensor | Progress, device: torch.device) -> Progress:
        if isinstance(fraction, Progress):
            return fraction
        if not isinstance(fraction, Tensor):
            if not 0 <= fraction <= 1:
                raise UsageError(f"fraction is the share of training that is done, from 0 to 1, not {fraction}")
            fraction = torch.full((), fraction, device=device)
        done = fraction.to(device, torch.float32)
        # (epoch + step / steps) / epochs may be rounded to just below the epoch that it begins.
        epoch = (done * self.epochs + 1e-3).floor()
        return Progress(epoch, torch.full_like(done, self.epochs), done)

    def predict(self, images: Tensor | Tile) -> dict[str, Tensor]:
        """Logits of every predictor, in the peers' shape: the peers, their mean ("ensemble"), and the method's own.

        With ``ema`` the peers with averaged weights too, "peer0_ema" and so on, and where there are several peers the
        mean of these, "ensemble_ema".
        """
        rule = self.method.shadow
        out = self._outputs(images, copies=rule is not None and rule.hybrid)
        if self.positions is None:
            own = self.method.predict(out)
        else:
            found = self.method.predict(self.positions.flat(out))
            own = {name: self.positions.restore(z, out.logits) for name, z in found.items()}
        return {
            **{f"peer{k}": z for k, z in enumerate(out.logits)},
            "ensemble": out.logits.mean(0),
            **{name: z.float() for name, z in own.items()},
            **self._averaged(images),
        }

    def _averaged(self, images: Tensor | Tile) -> dict[str, Tensor]:
        """What the peers with averaged weights answer."""
        if self.average is None:
            return {}
        logits = self.average.forward_peers(images).logits
        found = {f"peer{k}{AVERAGED}": z for k, z in enumerate(logits)}
        return found | ({f"ensemble{AVERAGED}": logits.mean(0)} if len(logits) > 1 else {})

    def _outputs(self, images: Tensor | Tile, *, copies: bool) -> PeerOutputs:
        """What the peers say, and their copies if ``copies``, where there are some."""
        out: PeerOutputs = self.cohort(images)
        rule = self.method.shadow
        if self.shadow is None or rule is None or not copies:
            return out
        if rule.hybrid and self.cohort.has_views(images):
            images = images[0]
        with torch.no_grad():
            return dataclasses.replace(out, shadow=self.shadow.forward_peers(images).logits)

    def gradients(self, out: DistillerOutput) -> Gradients:
        """Those of each player's loss for its own parameters alone; players that rest are left out."""
        self._check_followed()
        owned = {
            player: [p for group in groups for p in group["params"]]
            for player, groups in self.method.players(self.cohort).items()
        }
        return {
            player: _gradient(loss, owned[player])
            for player, loss in out.losses.items()
            if not self._rests(player, loss)
        }

    def _rests(self, player: str, loss: Tensor) -> bool:
        """Whether the player takes no step, the same in every process."""
        if player not in self.method.may_rest:
            return False
        if len(self.cohort.local_peers) == self.cohort.num_peers and not loss.requires_grad:
            return True  # known without waiting for the device
        return bool(ranks.sum_over_ranks(loss) == 0)

    def step(
        self,
        images: Tensor,
        target: Tensor,
        fraction: float | Tensor | Progress,
        optimizers: Mapping[str, Optimizer],
        *,
        micro_batches: int = 1,
        max_grad_norm: float | None = None,
    ) -> DistillerOutput:
        """One training step: forward pass, all players' gradients at the same weights, their optimizers, after_step.

        Where torch's processes are connected they share the batch: gradients and running statistics are averaged here,
        and the module is not wrapped in DistributedDataParallel.

        Args:
            images: as for :meth:`forward`, and so are ``target`` and ``fraction``.
            target: see there.
            fraction: see there.
            optimizers: one for each player, of its groups in :meth:`players`.
            micro_batches: into how many parts the batch is divided, to save memory. The method sees each as a batch;
                gradients and terms are their mean, weighted by the images or labelled positions.
            max_grad_norm: the largest norm of a player's gradient; a longer one is scaled down to it.

        Returns:
            As :meth:`forward`, without gradient.

        Raises:
            UsageError: a player has no optimizer, or an optimizer no player, or there are fewer images than parts.
        """
        players = self.method.players(self.cohort)
        if set(optimizers) != set(players):
            raise UsageError(
                f"{type(self.method).__name__} needs an optimizer for each of its players {', '.join(players)}; "
                f"there are some for {', '.join(optimizers) or 'none'}"
            )
        if not 1 <= micro_batches <= len(target):
            raise UsageError(f"a batch of {len(target)} images cannot be divided into {micro_batches} micro-batches")
        parts = zip(
            images.tensor_split(micro_batches, dim=int(self.cohort.has_views(images))),
            target.tensor_split(micro_batches),
            strict=True,
        )
        outs, gradients = [], Gradients()
        for some_images, some_target in parts:
            share = self._count(some_target) / self._count(target)
            outs.append(self._accumulate(gradients, some_images, some_target, fraction, share))
        if ranks.count() > 1:
            own = [g for found in gradients.values() for g in found if g is not None]
            ranks.exchange([*own, *self.statistics()], [])
        for player, found in gradients.items():
            parameters = [p for group in players[player] for p in group["params"]]
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            optimizers[player].step()
            optimizers[player].zero_grad()
        self.after_step()
        return _sum(outs)

    def _count(self, target: Tensor) -> float | Tensor:
        """Over how many images, or labelled positions, losses are means."""
        return len(target) if self.positions is None else self.positions.count(target)

    def _accumulate(
        self,
        gradients: Gradients,
        images: Tensor,
        target: Tensor,
        fraction: float | Tensor | Progress,
        share: float | Tensor,
    ) -> DistillerOutput:
        """Adds a share of the gradients of a micro-batch, and returns that share of its terms."""
        out: DistillerOutput = self(images, target, fraction)
        with torch.autocast(images.device.type, enabled=False):
            found = self.gradients(out)
        accumulate(gradients, found, share)
        terms = {
            player: {name: share * x.detach() for name, x in named.items()} for player, named in out.by_player.items()
        }
        return DistillerOutput(terms, out.logits)

    @torch.no_grad()
    def after_step(self, step: int | None = None, epoch_steps: int | None = None) -> None:
        """To be called after every optimizer step: copies follow the peers, and the method does what it does then.

        With ``ema`` the average of every weight becomes d average + (1 - d) weight, where d is the decay, but at most
        1 - 1 / step, so that the initial weights are forgotten. Running statistics of norms are averaged like weights.

        Args:
            step: which step of the training it was, counted from 1; by default it is counted here.
            epoch_steps: the steps of an epoch; by default those that the constructor was given.

        Raises:
            UsageError: the method counts the steps of an epoch, and their number is not known.
        """
        if step is None:
            self.steps += 1
            step = self.steps
        epoch_steps = epoch_steps or self.steps_per_epoch
        if self._counts_steps and epoch_steps is None:
            raise UsageError(
                f"{type(self.method).__name__} counts the steps of an epoch: give Distiller steps_per_epoch="
            )
        self._stepped = False
        rule = self.method.shadow
        if self.shadow is not None and rule is not None and step % rule.every == 0:
            self._follow(rule, min(1 - rule.every / step, rule.decay))
        if self.average is not None and self.ema is not None:
            _average(self.average.local_modules(), self.cohort.local_modules(), min(1 - 1 / step, self.ema))
        self.method.after_step(self.cohort, step, epoch_steps or 1)

    @torch.no_grad()
    def _follow(self, rule: Shadow, decay: float) -> None:
        assert self.shadow is not None
        local = self.cohort.local_peers
        peers = [self.cohort.peer(k) for k in local] if rule.hybrid else [self.cohort.local_modules()]
        shadow = self.shadow.peer(0) if rule.hybrid else self.shadow.local_modules()
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # one kernel for all parameters
        average(list(shadow.parameters()), _means([list(p.parameters()) for p in peers]), None)
        if rule.decay == 0:
            means = _means([list(p.buffers()) for p in peers])
            for stale, newest in zip(shadow.buffers(), means, strict=True):
                stale.copy_(newest)

    def _watch_steps(self) -> None:
        """Lets the backward pass find out that after_step was forgotten; a compiled forward pass could not."""
        if self.shadow is None and not self._counts_steps:
            return
        first, this = trainable(self.cohort)[0], weakref.ref(self)

        def on_gradient(_: Tensor) -> None:
            distiller = this()
            if distiller is not None:
                distiller._check_followed()

        def on_step(optimizer: Optimizer, *_: object) -> None:
            distiller = this()
            if distiller is not None and any(p is first for group in optimizer.param_groups for p in group["params"]):
                distiller._stepped = True

        first.register_post_accumulate_grad_hook(on_gradient)  # type: ignore[no-untyped-call]
        # Of all optimizers: those that update by fused kernels do not count what they write.
        weakref.finalize(self, register_optimizer_step_post_hook(on_step).remove)

    def _check_followed(self) -> None:
        if self._stepped:
            raise UsageError(
                f"Distiller.after_step() was not called after an optimizer step, which {type(self.method).__name__} "
                "needs after every one"
            )


def _named(
    method: str | type[Method] | Mapping[str, Any], options: dict[str, Any]
) -> tuple[type[Method], dict[str, Any]]:
    """The method's class, and all its options."""
    if isinstance(method, Mapping):
        return _named(method["name"], {key: value for key, value in method.items() if key != "name"} | options)
    return (methods.get(method) if isinstance(method, str) else method), options


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Raises UsageError where these cannot be the weights of so many classes."""
    if len(weights) != num_classes:
        raise UsageError(f"class_weights has {len(weights)} weights for {num_classes} classes: give one a class")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise UsageError(f"class_weights must be 0 or more, and not all 0, got {list(weights)[:10]}")


def _check_reads_logits_alone(method: type[Method]) -> None:
    if not method.logits_only:
        able = ", ".join(name for name in methods.names() if methods.get(name).logits_only)
        raise UsageError(
            f"{method.__name__} reads more of its peers than their logits, all that there is with example_input=; use "
            f"one of the methods {able}"
        )


def _modules(
    peers: str | Sequence[nn.Module | str], image_shape: tuple[int, int, int] | None, num_classes: int
) -> list[nn.Module]:
    """The peers, those that are named built."""
    modules: list[nn.Module] = []
    for peer in [peers] if isinstance(peers, str) else peers:
        if isinstance(peer, nn.Module):
            modules.append(peer)
            continue
        if image_shape is None:
            raise UsageError(f"{peer!r} names networks that classify images; with example_input= give modules")
        for name in networks.parse_peers(peer):
            shape: dict[str, Any] = dict(in_channels=image_shape[0], image_size=image_shape[1:])
            modules.append(networks.build(name, num_classes=num_classes, **shape))
    return modules


def _check_alike(cohort: Cohort, method: str) -> None:
    peers = [cohort.peer(k) for k in range(cohort.num_peers)]
    shapes = {tuple((name, p.shape) for name, p in peer.named_parameters()) for peer in peers}
    if len(shapes) > 1:
        raise UsageError(
            f"{method} averages weights, so its peers must be equal networks, but the weights of "
            f"{', '.join(cohort.names)} differ in names or shapes; use one network for all peers"
        )


def accumulate(gradients: Gradients, found: Gradients, share: float | Tensor) -> None:
    """Adds a share of the gradients of a micro-batch to those of the micro-batches before it."""
    for player, own in found.items():
        if not isinstance(share, float) or share != 1:
            own = [None if g is None else g * share for g in own]
        before = gradients.get(player, [None] * len(own))
        gradients[player] = [a if b is None else b if a is None else a + b for a, b in zip(before, own, strict=True)]


def _average(mean: nn.Module, newest: nn.Module, decay: float) -> None:
    """Moves the weights and running statistics of ``mean`` towards those of ``newest``; counts are copied."""
    tensors = [*mean.parameters(), *mean.buffers()], [*newest.parameters(), *newest.buffers()]
    pairs = list(zip(*tensors, strict=True))
    real = [(a, b) for a, b in pairs if a.is_floating_point()]
    get_ema_multi_avg_fn(decay)([a for a, _ in real], [b for _, b in real], None)  # type: ignore[no-untyped-call]
    for stale, count in pairs:
        if not stale.is_floating_point():
            stale.copy_(count)


def _means(networks: list[list[Tensor]]) -> list[Tensor]:
    """The mean of each tensor over equal networks; a single network's own tensors."""
    if len(networks) == 1:
        return networks[0]
    return [in_double(torch.stack(tensors)).mean(0).to(tensors[0]) for tensors in zip(*networks, strict=True)]


def _sum(outs: Sequence[DistillerOutput]) -> DistillerOutput:
    """Micro-batches as one: the sum of their terms, and all logits."""
    terms = {
        player: {name: torch.stack([out.by_player[player][name] for out in outs]).sum() for name in named}
        for player, named in outs[0].by_player.items()
    }
    return DistillerOutput(terms, torch.cat([out.logits for out in outs], 1))


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor | None]:
    """In the parameters' memory layout, which fused optimizers require."""
    if not loss.requires_grad:  # the player's peers are in other processes
        return [None] * len(parameters)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [None if g is None else torch.empty_like(p).copy_(g) for p, g in zip(parameters, found, strict=True)]


def _save_steps(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(module, Distiller)
    if module.steps:  # in a loop that counts itself there are none
        state[prefix + STEPS] = torch.tensor(module.steps)


def _load_steps(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(module, Distiller)
    module.steps = int(state.pop(prefix + STEPS, 0))
