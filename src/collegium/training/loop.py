"""The training loop."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from collegium import ranks
from collegium.data import BatchSource, ClassificationData, Samples, Share
from collegium.errors import TrainingError, UsageError
from collegium.files import write_whole
from collegium.method import ParameterGroup, Progress, Terms
from collegium.seeds import generator
from collegium.signals import at_first_stop_signal
from collegium.student import save_peer
from collegium.training.cost import costs
from collegium.training.engine import make_fabric, own_random_state
from collegium.training.experiment import Experiment, Learner, build
from collegium.training.launch import elsewhere, launch
from collegium.training.memory import freed_memory_kept
from collegium.training.metrics import score, summary
from collegium.training.mixing import Mixing
from collegium.training.optimizers import make_optimizer, set_learning_rate, soften
from collegium.training.peer_layout import bring_home, peer_groups
from collegium.training.places import Layout, Places, places
from collegium.training.progress import Display
from collegium.training.recipe import Recipe, provenance
from collegium.training.result import last_and_best
from collegium.training.run_folder import RunFolder
from collegium.training.sync_batchnorm import SynchronisedBatchNorm
from collegium.training.tally import Seen, Tally, observe

EVALUATION_BATCH = 500
NETWORKS = 2  # what a stream of random numbers is for, besides those of the data

S = TypeVar("S", bound=Samples)


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    devices: int | None = None,
    num_nodes: int | None = None,
    layout: Layout = "data",
    fastest: bool = False,
) -> dict[str, Any]:
    """Trains what a recipe says, or goes on where the same call was interrupted, and returns the result.

    Args:
        recipe: the run.
        run: its folder, see :mod:`collegium.training.run_folder`.
        peers: networks from Python in place of those that the recipe names.
        data: data from Python in place of those that the recipe names.
        teacher: a trained network from Python in place of the one that the recipe names.
        overwrite: start over where the folder holds a run.
        quiet: show nothing.
        devices: how many devices of each machine train together; by default one, or what torchrun or SLURM started.
            The result is the same up to what docs/many_devices.md says, and a run may go on with another number.
        num_nodes: how many machines, each of which torchrun or SLURM starts.
        layout: what each process has for itself: a share of every batch ("data"), or one or several of the peers
            ("peers", for methods that read logits alone).
        fastest: take the precision, fp32 or bf16, and the memory layout of which a few steps are fastest here, in
            place of the recipe's, and on a GPU compiled steps and CUDA graphs too; a run that goes on keeps its own.

    Returns:
        The content of result.json.

    Raises:
        UsageError: the recipe cannot be built, or the folder holds something else; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: a loss is not finite, or a checkpoint is damaged.
        Interrupted: SIGINT, SIGTERM or SIGUSR1 came; the state is saved, the same call goes on from there.
        ProcessLost: another process of this run ended.
    """
    found = places(devices, num_nodes)
    if fastest:
        recipe = _fastest(recipe, RunFolder(run), found, overwrite, quiet, peers=peers, data=data, teacher=teacher)
    how: dict[str, Any] = dict(peers=peers, data=data, teacher=teacher, overwrite=overwrite, quiet=quiet, layout=layout)
    if found.devices > 1 and not found.started:
        return launch(partial(train, recipe, run, **how), found.devices)
    if found.processes == 1:
        return _train(recipe, RunFolder(run), make_fabric(recipe), found, **how)
    with ranks.together():
        return _train(recipe, RunFolder(run), make_fabric(recipe, found), found, **how)


def _fastest(recipe: Recipe, folder: RunFolder, found: Places, overwrite: bool, quiet: bool, **given: Any) -> Recipe:
    if found.started and found.processes > 1:
        raise UsageError(
            "--fastest measures in one process, before others are started; "
            "say --precision and --channels-last where torchrun or SLURM starts them"
        )
    from collegium.training import probe

    if folder.recipe_file.exists() and not overwrite:
        known = folder.recipe()
        return dataclasses.replace(recipe, **{name: getattr(known, name) for name in probe.FOUND})
    folder.check(recipe, overwrite=overwrite)

    if found.devices == 1:
        found_recipe, verdict = probe.fastest(recipe, **given)
    else:  # whose processes need the memory that measuring would keep here
        found_recipe, verdict = elsewhere(partial(probe.fastest, recipe, compiling=False, **given))
    Console(stderr=True, quiet=quiet).print(verdict, highlight=False, soft_wrap=True)
    return found_recipe


def _train(
    recipe: Recipe,
    folder: RunFolder,
    fabric: Fabric,
    found: Places,
    *,
    peers: Sequence[nn.Module] | None,
    data: ClassificationData[Any] | None,
    teacher: nn.Module | None,
    overwrite: bool,
    quiet: bool,
    layout: Layout,
) -> dict[str, Any]:
    begun = ranks.by_first(lambda: bool(folder.saved_checkpoints()) and not overwrite)

    def prepare() -> Experiment:
        known = teacher or (folder.teacher() if begun else None)
        experiment = build(recipe, peers=peers, data=data, teacher=known, begun=begun)
        if fabric.is_global_zero:
            folder.check(experiment.recipe, overwrite=overwrite)
        return experiment

    experiment = ranks.in_turn(prepare, first_here=fabric.local_rank == 0, device=fabric.device)
    prepared = Run(experiment, folder, fabric, quiet=quiet, layout=layout)
    with ExitStack() as held:
        if fabric.device.type == "cpu":
            held.enter_context(freed_memory_kept())

        def begin() -> dict[str, Any] | None:
            held.enter_context(folder.locked())
            folder.check(experiment.recipe, overwrite=overwrite)  # another process may have been here since
            where = provenance(fabric.device, found.devices, found.nodes) | {"layout": layout}
            folder.open(experiment.recipe, where, overwrite=overwrite)
            if recipe.teacher is not None and not recipe.teacher.startswith("python:"):
                folder.keep_teacher(recipe.teacher)
            return folder.result()

        result = ranks.by_first(begin)
        if result is not None and peers is not None:
            prepared.recall()
        result = result or prepared.complete()
        for k, peer in enumerate(peers or ()):  # a trunk is the first peer's own, and the others are whole too
            peer.load_state_dict(prepared.learner.cohort.peer(k).plain().state_dict())
        return result


def restore(
    run: str | Path,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
) -> "Run":
    """A run with its newest saved state, for looking at; ``peers``, ``data`` and ``teacher`` as for :func:`train`.

    Data given here are normalised as the run's own were.

    A run that was trained on a GPU is restored on the CPU where there is none, in fp32 if its precision was fp16, and
    without CUDA graphs.

    Raises:
        UsageError: there is no run, or nothing has been saved yet.
        TrainingError: the newest checkpoint is damaged.
    """
    folder = RunFolder(run)
    recipe = folder.recipe()
    state = folder.load_checkpoint()
    if state is None:
        raise UsageError(f"{folder.path} cannot be restored: it has no checkpoint")
    if not torch.cuda.is_available():
        precision = "fp32" if recipe.precision == "fp16" else recipe.precision
        recipe = dataclasses.replace(recipe, device="cpu", precision=precision, cuda_graphs=False)
    if data is not None:
        data = data.normalised_like(tuple(state["mean"]), tuple(state["std"]))
    experiment = build(recipe, peers=peers, data=data, teacher=teacher or folder.teacher(), begun=True)
    restored = Run(experiment, folder, make_fabric(recipe), quiet=True)
    with own_random_state(restored.fabric.device):
        restored.load_state_dict(state)
    return restored


class _OnItsWay:
    """Numbers of a device that the host will read later, without waiting for what the device is told meanwhile."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.arrived = numbers, None
        if numbers.device.type == "cuda":
            self.numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self.numbers.copy_(numbers, non_blocking=True)
            self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrived.record()

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return list(self.numbers.tolist())


class Interrupted(TrainingError):
    """Training was told to stop and has saved its state."""


class Run:
    """One training run: what it holds, and the loop over epochs and steps."""

    def __init__(
        self, experiment: Experiment, folder: RunFolder, fabric: Fabric, *, quiet: bool, layout: Layout = "data"
    ) -> None:
        recipe, data, learner = experiment.recipe, experiment.data, experiment.learner
        self.experiment, self.recipe, self.folder, self.fabric = experiment, recipe, folder, fabric
        self.processes, self.first = fabric.world_size, fabric.is_global_zero
        self.quiet = quiet or not self.first
        self.learner: Learner = learner.to(fabric.device)
        self.groups = 1 if layout == "data" else peer_groups(experiment, self.processes)
        if self.groups > 1:
            group, each = ranks.lay_out(self.groups), learner.cohort.num_peers // self.groups
            learner.keep(range(group * each, (group + 1) * each))
        if recipe.channels_last:
            for tensor in (*learner.parameters(), *learner.buffers()):
                if tensor.ndim == 4:  # Module.to(memory_format=...) refuses the 5-D weights of 3-D convolutions
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        groups = learner.method.players(learner.cohort)
        _check_players(learner, groups)
        if len(groups) > 1 and recipe.precision == "fp16":
            raise UsageError(f"{recipe.method_name} has several players, which fp16 does not scale; take bf16")
        if self.processes > 1 and recipe.compile and recipe.sync_batchnorm:
            raise UsageError("a compiled step cannot synchronise batch norms; leave out --compile or --sync-batchnorm")
        if recipe.activation_checkpointing and recipe.compile:
            raise UsageError("a compiled step decides itself what it keeps; leave out one of the two")
        if recipe.activation_checkpointing and recipe.sync_batchnorm and self.processes > 1:
            raise UsageError("stages that are computed again cannot synchronise batch norms; leave out one of the two")
        mixing = bool(recipe.mixup or recipe.cutmix)
        self.share = Share(ranks.rank(), ranks.count(), before=int(mixing and ranks.count() > 1))
        self.batch_size = min(recipe.batch_size, len(data.train))
        seen_by_norms = (
            self.batch_size if recipe.sync_batchnorm else self.share.size(self.batch_size) - self.share.before
        )
        if seen_by_norms < 2:
            raise UsageError(
                "batch norm needs batches of 2 images or more"
                + (" on each device; take a larger one, or --sync-batchnorm true" if self.share.ranks > 1 else "")
            )
        self.parameters = {player: [p for group in g for p in group["params"]] for player, g in groups.items()}
        self.optimizers: dict[str, Optimizer] = {
            player: make_optimizer(recipe, g, learner.method.optimizers.get(player)) for player, g in groups.items()
        }
        if recipe.cutmix and not data.labels_areas:
            raise UsageError(
                f"a label of {data.name} is that of the centre pixel, which CutMix pastes over; take mixup"
            )
        self.mixing = Mixing(data.num_classes, mixup=recipe.mixup, cutmix=recipe.cutmix, before=self.share.before)
        # Called under autocast rather than through Fabric's wrapper, which would round progress and targets too.
        self.compiled = _compiled(learner, cuda_graphs=recipe.cuda_graphs) if recipe.compile else learner
        self.steppers = {
            player: cast(_FabricOptimizer, fabric.setup_optimizers(optimizer))
            for player, optimizer in self.optimizers.items()
        }
        self.training_batches = data.training_batches(
            batch_size=recipe.batch_size,
            seed=recipe.resolved_data_seed,
            device=fabric.device,
            channels_last=recipe.channels_last,
            views=experiment.spec.num_peers if learner.method.own_views else learner.method.views,
            images_per_class=learner.method.images_per_class,
            share=self.share,
        )
        self.scored = {"test": self.evaluation_batches(self._own_part(data.test))}
        if data.validation is not None:
            self.scored["validation"] = self.evaluation_batches(self._own_part(data.validation))
        # Written in place every step: tensors, so that neither a compiled step nor a CUDA graph is made again.
        zero = torch.zeros((), device=fabric.device)
        self.progress = Progress(zero.clone(), zero.clone() + recipe.epochs, zero.clone())

        self.epoch = 0
        self.step = 0  # within the epoch
        self.tally = Tally()
        self.history: list[dict[str, float]] = []
        self.class_accuracy: dict[str, list[float | None]] = {}  # of every predictor after the last epoch
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.stop_requested = False

        computed = [learner.method, learner.cohort.present(), *([learner.shadow.present()] if learner.shadow else [])]
        self.statistics = [b for module in computed for b in module.buffers() if b.is_floating_point()]
        self.wishes = torch.zeros(2, device=fabric.device)  # of this process: to look at the tally, to stop
        self.told: deque[_OnItsWay] = deque()  # how many processes had each wish, in the last steps

    def _own_part(self, split: S) -> S:
        """The images that this process scores."""
        rank, count, _ = self.share
        if count == 1:
            return split
        if len(split) < count:
            raise UsageError(f"{len(split)} images cannot be scored by {count} processes; take fewer --devices")
        ends = [len(split) * r // count for r in (rank, rank + 1)]
        return split.subset(torch.arange(*ends))

    def evaluation_batches(self, split: Samples) -> BatchSource:
        """All images of a split in their own order, unchanged."""
        return self.experiment.data.scoring_batches(
            split,
            batch_size=EVALUATION_BATCH,
            device=self.fabric.device,
            channels_last=self.recipe.channels_last,
        )

    def complete(self) -> dict[str, Any]:
        """Trains to the end, from the newest checkpoint if there is one, and writes peers and result."""
        table = self.experiment.data.split_table()
        if table is not None and self.first:
            write_whole(self.folder.split_file, table)
        with own_random_state(self.fabric.device):
            torch.manual_seed(self.recipe.resolved_data_seed)
            self._train()
        return ranks.by_first(self._finish)

    def recall(self) -> None:
        """Gives the networks the weights that they were trained to.

        Raises:
            UsageError: no state is there.
        """
        state = ranks.by_first(self.folder.load_checkpoint)
        if state is None:
            raise UsageError(
                f"{self.folder.path} is finished but its checkpoints are gone, so that the networks given from Python "
                "cannot have their trained weights back; train them again in another --run or with --overwrite"
            )
        with own_random_state(self.fabric.device):
            self.load_state_dict(state)

    def _train(self) -> None:
        state = ranks.by_first(self.folder.load_checkpoint)
        if state is not None:
            self.load_state_dict(state)
        ranks.follow_first([*self.learner.parameters(), *self.learner.buffers()], self.fabric.device)
        title = f"{self.recipe.method_name} on {self.experiment.data.name}"
        display = Display(title, self.recipe.epochs, len(self.training_batches), quiet=self.quiet)
        for note in (*self.experiment.notes, *self._sharing()):
            display.note(note)
        with display, at_first_stop_signal(self._request_stop), self._tensorboard() as events:
            while self.epoch < self.recipe.epochs:
                self._train_epoch(display)
                self._end_epoch(display, events)

    def _train_epoch(self, display: Display) -> None:
        self.learner.train()
        steps = len(self.training_batches)
        begun = time.perf_counter()
        shown = begun
        for images, target in self.training_batches.epoch(self.epoch, self.step):
            self._one_step(images, target, (self.epoch + self.step / steps) / self.recipe.epochs)
            self.step += 1
            now = time.perf_counter()
            look, stop = self._agree(now - shown > 0.5, self.stop_requested)
            if look or stop or self.step == steps:
                self._read_tally()
                display.step(self.epoch, self.step, self.tally.loss(), self.tally.accuracy())
                shown = now
            if stop and self.step < steps:
                self.seconds["training"] += time.perf_counter() - begun
                self._stop()
        self.told.clear()
        self.seconds["training"] += time.perf_counter() - begun

    def _agree(self, look: bool, stop: bool) -> tuple[bool, bool]:
        """Whether to look at the tally (the first process's wish) and to stop (any one's), the same in all processes.

        With several the answer is that to the wishes of some steps ago, so that nobody waits for a device.
        """
        if self.processes == 1:
            return look, stop
        self.wishes[0], self.wishes[1] = float(look and self.first), float(stop)
        if len(self.told) < 2:
            return False, False
        look, stop = (count > 0 for count in self.told.popleft().read())
        return look, stop

    def _sharing(self) -> list[str]:
        """How the work is shared, where it is."""
        count, notes = self.share.ranks, []
        if self.groups > 1:
            peers, processes = self.learner.cohort.num_peers // self.groups, self.processes // self.groups
            what = f"{peers} peer{'s' * (peers > 1)}"
            each = "process trains" if processes == 1 else f"group of {processes} processes trains"
            notes.append(f"Each {each} {what} of {self.learner.cohort.num_peers} and hears the others' logits.")
        if count > 1:
            norms = "go by the whole batch" if self.recipe.sync_batchnorm else "go by the images of their own process"
            notes.append(
                f"{count} processes share every batch of {self.batch_size} images, "
                f"{self.batch_size // count} each. The learning rate {self.recipe.learning_rate:g} is that of the "
                f"whole batch, for any number of processes. Batch norms {norms}."
            )
        return notes

    def _one_step(self, images: Tensor, target: Tensor, fraction: float) -> None:
        self.progress.epoch.fill_(self.epoch)
        self.progress.fraction.fill_(fraction)
        set_learning_rate(self.optimizers, self.recipe, fraction)
        soft = soften(target, self.experiment.spec.num_classes, self.recipe.label_smoothing)
        mixed, soft = self.mixing(images, soft)
        step = self.epoch * len(self.training_batches) + self.step
        with self.fabric.autocast(), self._as_one_of_many(step):
            terms, logits = self.compiled(mixed, soft, self.progress)
        seen = observe(terms, logits, target[self.share.before :])
        self.descend(terms, seen)
        self.learner.after_step(step + 1, len(self.training_batches))
        self.tally.add(seen._replace(images=seen.images * self.share.ranks))

    @contextmanager
    def _as_one_of_many(self, step: int) -> Iterator[None]:
        """Networks that draw (dropout) do so by themselves in every process; the random state of all stays common."""
        if self.processes == 1:
            yield
            return
        norms = SynchronisedBatchNorm() if self.recipe.sync_batchnorm and self.share.ranks > 1 else nullcontext()
        with own_random_state(self.fabric.device), norms:
            draws = generator(self.recipe.resolved_data_seed, NETWORKS, step, self.fabric.global_rank)
            torch.manual_seed(draws.initial_seed())
            yield

    def descend(self, terms: Mapping[str, Terms], seen: Seen) -> None:
        """Each player takes one step on the sum of its terms, or rests; all gradients are computed before any step.

        Where processes share a batch, gradients, running statistics and ``seen`` become those of all before.
        """
        totals = {player: torch.stack(list(named.values())).sum() for player, named in terms.items()}
        if len(totals) == 1:
            (player,) = totals
            self.steppers[player].zero_grad()
            self.fabric.backward(totals[player])
            self._exchange([p.grad for p in self.parameters[player] if p.grad is not None], seen)
            self._clip_and_step(player)
            return
        gradients = {p: self._gradients(p, total) for p, total in totals.items() if not self._rests(p, total)}
        self._exchange([g for gradient in gradients.values() for g in gradient if g is not None], seen)
        for player, gradient in gradients.items():
            for parameter, g in zip(self.parameters[player], gradient, strict=True):
                parameter.grad = g
            self._clip_and_step(player)
            self.steppers[player].zero_grad()

    def _rests(self, player: str, total: Tensor) -> bool:
        """Whether the player takes no step, the same in every process."""
        if player not in self.learner.method.may_rest:
            return False
        if self.groups == 1 and not total.requires_grad:
            return True  # known without waiting for the device
        return bool(ranks.sum_over_ranks(total) == 0)

    def _gradients(self, player: str, total: Tensor) -> list[Tensor | None]:
        """Of the player's total, in the layout of its parameters, which fused optimizers take for granted."""
        parameters = self.parameters[player]
        if not total.requires_grad:  # the player's peers are in other processes
            return [None] * len(parameters)
        found = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
        return [None if g is None else torch.empty_like(p).copy_(g) for p, g in zip(parameters, found, strict=True)]

    def _exchange(self, gradients: list[Tensor], seen: Seen) -> None:
        """Makes everything that a step found that of the whole batch, by one message, and hears all wishes."""
        if self.processes == 1:
            return
        wishes = self.wishes.clone()
        if self.share.ranks > 1:
            own = [wishes] if self.groups == 1 else []
            ranks.exchange([*gradients, *self.statistics, seen.values], [seen.correct, *own])
        if self.groups > 1:
            ranks.add_up(wishes)
        self.told.append(_OnItsWay(wishes))

    def _clip_and_step(self, player: str) -> None:
        # A norm that is not finite is found with its term by the tally, without waiting for the device here.
        if self.recipe.gradient_clip is not None and self.groups > 1:
            found = [p for p in self.parameters[player] if p.grad is not None]
            own = nn.utils.get_total_norm([p.grad for p in found if p.grad is not None]).to(self.fabric.device)
            norm = ranks.norm_over_peers(own)
            nn.utils.clip_grads_with_norm_(found, self.recipe.gradient_clip, norm)
        elif self.recipe.gradient_clip is not None:
            self.fabric.clip_gradients(
                self.learner,
                self.steppers[player],
                max_norm=self.recipe.gradient_clip,
                error_if_nonfinite=False,
            )
        self.steppers[player].step()

    def _read_tally(self) -> None:
        try:
            self.tally.read(self.epoch)
        except TrainingError as error:
            raise TrainingError(f"{error}{self._advice()}") from None

    def _advice(self) -> str:
        saved = self.folder.saved_checkpoints()
        last = f"the last good state is {saved[-1]}" if saved else "nothing had been saved yet"
        return f"; {last}. Try a lower --learning-rate or --gradient-clip 1, in another --run or with --overwrite"

    def _end_epoch(self, display: Display, events: Any) -> None:
        row: dict[str, float] = {"epoch": self.epoch + 1, "learning_rate": self._learning_rate(), **self.tally.row()}
        self.epoch, self.step = self.epoch + 1, 0
        last = self.epoch == self.recipe.epochs
        if last or self.epoch % self.recipe.evaluate_every == 0:
            begun = time.perf_counter()
            for split, batches in self.scored.items():
                found = score(self.predict, batches.epoch(0), self.experiment.spec.num_classes)
                scores = summary(found)
                row |= {f"{split}/{name}/{metric}": v for name, s in scores.items() for metric, v in s.items()}
                if split == "test":
                    errors = {name: s["top1_error"] for name, s in scores.items() if name != "mean_peer"}
                    self.class_accuracy = {name: s.class_accuracy() for name, s in found.items()}
            self.seconds["evaluation"] += time.perf_counter() - begun
            display.evaluated(self.epoch, self.tally.loss(), sum(self.seconds.values()), errors)
        row["seconds"] = self.seconds["training"]
        self.history.append(row)
        self.tally = Tally()
        for key, value in row.items() if self.first else ():
            events.add_scalar(key, value, self.epoch)
        # Asked once: a signal that comes now, to one of several processes, is heard in the next epoch.
        stop = ranks.any_process(self.stop_requested, self.fabric.device)
        if last or stop or self.epoch % self.recipe.checkpoint_every == 0:
            self.save()
        if stop and not last:
            self._stop()

    def evaluate(self, batches: BatchSource) -> dict[str, dict[str, float]]:
        """Scores of every predictor: predictor -> metric -> value."""
        return summary(score(self.predict, batches.epoch(0), self.experiment.spec.num_classes))

    @torch.inference_mode()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) of every predictor, in evaluation mode and the run's precision."""
        self.learner.eval()
        with self.fabric.autocast():
            return self.learner.predict(images)

    def _learning_rate(self) -> float:
        return float(next(iter(self.optimizers.values())).param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        cuda = self.fabric.device.type == "cuda"
        return {
            "learner": self.learner.state_dict(),
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "mean": list(self.experiment.data.mean),
            "std": list(self.experiment.data.std),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.fabric.device) if cuda else None,
            "epoch": self.epoch,
            "step": self.step,
            "tally": self.tally.state_dict(),
            "history": self.history,
            "class_accuracy": self.class_accuracy,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state["learner"])
            for player, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][player])
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"the checkpoints in {self.folder.checkpoints} do not fit the recipe's networks: "
                f"{str(error).splitlines()[0]}; start over with --overwrite"
            ) from error
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.fabric.device)
        self.epoch, self.step = state["epoch"], state["step"]
        self.tally.load_state_dict(state["tally"])
        self.history, self.seconds = list(state["history"]), dict(state["seconds"])
        self.class_accuracy = dict(state.get("class_accuracy", {}))

    def save(self) -> Path:
        """Writes a checkpoint, unless the last step has spoilt the weights."""
        self._read_tally()
        if self.groups > 1:
            bring_home(self.learner, self.optimizers, self.parameters)
        if not _all_finite(self.learner.state_dict().values()):
            raise TrainingError(
                f"weights are no longer finite after epoch {self.epoch}, step {self.step}{self._advice()}"
            )
        steps = self.epoch * len(self.training_batches) + self.step

        def write() -> Path:
            self.folder.write_metrics(self.history)
            return self.folder.save_checkpoint(self.state_dict(), steps, self.recipe.keep_checkpoints)

        return ranks.by_first(write)

    def _stop(self) -> None:
        saved = self.save()
        raise Interrupted(
            f"stopped after epoch {self.epoch}, step {self.step}; saved as {saved}. "
            "Repeat the command to go on (without --overwrite)"
        )

    def _request_stop(self) -> None:
        self.stop_requested = True

    @contextmanager
    def _tensorboard(self) -> Iterator[Any]:
        if not self.first:
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        events = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.epoch + 1)
        try:
            yield events
        finally:
            events.close()

    def _finish(self) -> dict[str, Any]:
        """Writes the peers and the result."""
        data, cohort = self.experiment.data, self.learner.cohort
        if self.groups > 1:
            self.learner.keep(range(cohort.num_peers))
            self.learner.to(self.fabric.device)
        for k in range(cohort.num_peers):
            save_peer(
                cohort.peer(k),
                self.folder.peer(k),
                num_classes=data.num_classes,
                class_names=list(data.class_names),
                **data.preprocessing(),
            )
        images = len(self.training_batches) * self.batch_size * self.recipe.epochs
        result = {
            "method": self.recipe.method_name,
            "reconstructed": self.learner.method.reconstructed,
            "notes": list(self.experiment.notes),
            "peers": list(self.experiment.spec.names),
            "deployed_peer": self.learner.deployed_peer,
            "share_until": self.recipe.share_until,
            "data": data.name,
            "training_images": len(data.train),
            "test_images": len(data.test),
            "seed": self.recipe.seed,
            "epochs": self.recipe.epochs,
            "complete": True,
            **last_and_best(self.history),
            "class_names": list(data.class_names),
            "test_images_per_class": torch.bincount(data.test.targets, minlength=data.num_classes).tolist(),
            "class_accuracy": self.class_accuracy,
            "cost": costs(self.learner, data.image_shape),
            "processes": self.processes,
            "seconds": sum(self.seconds.values()),
            "training_seconds": self.seconds["training"],
            "images_per_second": images / self.seconds["training"],
        }
        self.folder.write_result(result)
        return result


def _compiled(learner: Learner, *, cuda_graphs: bool) -> nn.Module:
    """The learner for batches of one size, whatever other runs this process has compiled before."""
    torch.compiler.reset()  # else later runs are compiled for any batch size, and after a few of them not at all
    mode = "reduce-overhead" if cuda_graphs else "default"
    return cast(nn.Module, torch.compile(learner, mode=mode))


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """Waits once for each device that the tensors lie on."""
    answers: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        answers.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(finite).all()) for finite in answers.values())


def _check_players(learner: Learner, groups: Mapping[str, list[ParameterGroup]]) -> None:
    """A parameter that no player owns would silently never learn."""
    owned = {id(p) for player in groups.values() for group in player for p in group["params"]}
    lost = [name for name, p in learner.named_parameters() if p.requires_grad and id(p) not in owned]
    assert not lost, f"no player of {type(learner.method).__name__} owns {lost}"
