"""The training loop: the epochs and steps of one run."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from collegium import ranks
from collegium.cohort import AVERAGED
from collegium.distiller import Distiller, Gradients
from collegium.errors import CollegiumError, Interrupted, TrainingError, UsageError
from collegium.files import auxiliary, write_whole
from collegium.method import Progress
from collegium.model_card import CARD, card
from collegium.seeds import generator
from collegium.signals import at_first_stop_signal
from collegium.student import save_peer
from collegium.training.callbacks import Callbacks, TrainingView
from collegium.training.checks import check_run
from collegium.training.cost import peer_costs
from collegium.training.devices import Layout
from collegium.training.display import Display
from collegium.training.engine import move, own_random_state, random_state, set_random_state
from collegium.training.evaluation import Evaluator
from collegium.training.experiment import Experiment
from collegium.training.fabric import Fabric
from collegium.training.gradients import Players
from collegium.training.loggers import Loggers
from collegium.training.metrics import summary
from collegium.training.mixing import Mixing
from collegium.training.notes import run_notes
from collegium.training.optimizers import soften
from collegium.training.overview import overview
from collegium.training.partition import gather_to_rank0, make_partition
from collegium.training.result import early_stop, make_result
from collegium.training.run_folder import RunFolder
from collegium.training.sync_batchnorm import SynchronisedBatchNorm
from collegium.training.tally import Tally, joined, observe
from collegium.training.votes import Votes

NETWORK_DRAWS = 2  # the use of a stream of random numbers, see collegium.seeds; the data have the uses before it
DISPLAY_EVERY = 0.5  # seconds


class Run:
    """One training run: networks, optimizers and batches, and the loop over epochs and steps.

    Args:
        experiment: what is trained, in place.
        folder: where checkpoints, metrics, peers and the result are written.
        fabric: device and precision.
        quiet: show nothing.
        callbacks: functions of the user's, which the first process calls.
        loggers: where the rows of metrics.csv go besides, see :mod:`collegium.training.loggers`.
        layout: what the processes divide among themselves.

    Raises:
        UsageError: the recipe cannot be trained on these data, or by so many processes.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        fabric: Fabric,
        *,
        quiet: bool,
        callbacks: Callbacks | None = None,
        loggers: Sequence[str] = (),
        layout: Layout = "data",
    ) -> None:
        recipe, data, device = experiment.recipe, experiment.data, fabric.device
        check_run(experiment, fabric.world_size, layout)
        self.experiment, self.recipe, self.folder, self.fabric = experiment, recipe, folder, fabric
        self.quiet = quiet or not fabric.is_global_zero
        self.loggers = loggers
        self.callbacks = callbacks if callbacks is not None and fabric.is_global_zero else Callbacks()
        self.partition = make_partition(experiment, layout)
        self.share = self.partition.share
        self.peer_costs = None if self.quiet else peer_costs(experiment.learner.cohort, data.image_shape)
        self.overview = [] if self.peer_costs is None else overview(experiment, fabric, folder.path, self.peer_costs)
        self.learner = move(experiment.learner, device, self.partition.peers, channels_last=experiment.channels_last)
        self.players = Players(self.learner, recipe, fabric, self.partition)
        # Called under autocast rather than through Fabric's wrapper, which would round progress and targets too.
        self.forward = _compiled(self.learner, cuda_graphs=recipe.cuda_graphs) if recipe.compile else self.learner
        self.mixing = Mixing(data.num_classes, mixup=recipe.mixup, cutmix=recipe.cutmix, before=self.share.before)
        self.batch_size = min(recipe.batch_size, len(data.train))
        self.training_batches = data.training_batches(
            batch_size=recipe.batch_size,
            seed=recipe.resolved_data_seed,
            device=device,
            channels_last=experiment.channels_last,
            views=self.learner.views,
            images_per_class=self.learner.method.images_per_class,
            balanced=recipe.sampling == "balanced",
            share=self.share,
        )
        self.evaluator = Evaluator(experiment, fabric, self.share)
        # Written in place at every step: tensors, so that neither a compiled step nor a CUDA graph is made again.
        zero = torch.zeros((), device=device)
        self.progress = Progress(zero.clone(), zero.clone() + recipe.epochs, zero.clone())
        self.votes = Votes(device, first=fabric.is_global_zero)
        self.stop_requested = False

        self.epoch = 0
        self.step = 0  # within the epoch
        self.tally = Tally()
        self.history: list[dict[str, float]] = []  # the rows of metrics.csv
        self.class_accuracy: dict[str, list[float | None]] = {}  # of every predictor at the last evaluation
        self.seconds = {"training": 0.0, "evaluation": 0.0}

    def complete(self) -> dict[str, Any]:
        """Trains from the newest checkpoint, or from the start, to the last epoch, and writes peers and result."""
        table = self.experiment.data.split_table()
        if table is not None and self.fabric.is_global_zero:
            with auxiliary(self.folder.split_file):
                write_whole(self.folder.split_file, table)
        with own_random_state(self.fabric.device):
            torch.manual_seed(self.recipe.resolved_data_seed)
            state = ranks.on_rank0(self.folder.load_checkpoint)
            if state is not None:
                self.load_state_dict(state)
            ranks.broadcast([*self.learner.parameters(), *self.learner.buffers()], self.fabric.device)
            self._train_epochs()
        result = ranks.on_rank0(self._finish)
        self._call("on_train_end", self.history[-1])
        return result

    def _train_epochs(self) -> None:
        display = Display(
            self.recipe.epochs,
            len(self.training_batches),
            deployed=self.learner.deployed_peer,
            split="validation" if "validation" in self.evaluator.scored else "test",
            quiet=self.quiet,
        )
        own = run_notes(self.recipe, len(self.training_batches), self.share.size(self.batch_size))
        notes = (*self.experiment.notes, *own, *self.partition.describe(self.recipe, self.batch_size))
        display.begin(self.overview, notes, self.epoch, self.step, stopped=self._ended())
        config, first = self.recipe.to_dict(), self.fabric.is_global_zero
        loggers = Loggers(self.loggers, self.folder.path, config, self.epoch + 1, write=first)
        with display, at_first_stop_signal(self._request_stop), loggers:
            self._call("on_train_start", self.history[-1] if self.history else {})
            while not self._ended():
                self.train_epoch(display)
                self.end_epoch(display, loggers)
            stopped = early_stop(self.history, self.recipe)
            if stopped is not None:
                display.note(stopped["reason"])

    def _ended(self) -> bool:
        return self.epoch == self.recipe.epochs or early_stop(self.history, self.recipe) is not None

    def train_epoch(self, display: Display) -> None:
        """The steps of the epoch that have not been taken yet."""
        self.learner.train()
        first, steps = self.step, len(self.training_batches)
        begun = shown = time.perf_counter()
        for images, target in self.training_batches.epoch(self.epoch, self.step):
            self.train_step(images, target, (self.epoch + self.step / steps) / self.recipe.epochs)
            self.step += 1
            self._call("on_step_end")
            now = time.perf_counter()
            read, stop = self.votes.agree(now - shown > DISPLAY_EVERY, self.stop_requested)
            if read or stop or self.step == steps:
                self.read_tally()
                shown = time.perf_counter()
                speed = (self.step - first) * self.batch_size / (shown - begun)
                display.step(self.epoch, self.step, speed, self.tally.loss(), self.tally.accuracy())
            if stop and self.step < steps:
                self.seconds["training"] += time.perf_counter() - begun
                self._interrupt(self.save())
        self.seconds["training"] += time.perf_counter() - begun

    def train_step(self, images: Tensor, target: Tensor, fraction: float) -> None:
        """One step of every player on a batch: forward, terms, gradients, step, tally.

        Args:
            images: (B, C, H, W), or (M, B, C, H, W) with a view for every peer.
            target: (B,) class indices.
            fraction: share of all steps taken before this one.
        """
        steps_before = self.epoch * len(self.training_batches) + self.step
        self.progress.epoch.fill_(self.epoch)
        self.progress.fraction.fill_(fraction)
        self.players.set_learning_rate(self.recipe, fraction)
        soft = soften(target, self.experiment.spec.num_classes, self.recipe.label_smoothing)
        images, soft = self.mixing(images, soft)
        parts = self.recipe.micro_batches
        dim = int(self.learner.cohort.has_views(images))
        target = target[self.share.before :]
        divided = [(images, soft, target)]  # as they are: compiled steps treat views as other inputs
        if parts > 1:
            x, y = images.tensor_split(parts, dim), soft.tensor_split(parts)
            divided = list(zip(x, y, target.tensor_split(parts), strict=True))
        gradients, measured = Gradients(), []
        for part, (some_images, some_soft, some_target) in enumerate(divided):
            with self.fabric.autocast(), self._own_draws(steps_before, part):
                out = self.forward(some_images, some_soft, self.progress)
            measured.append(observe(out.by_player, out.logits, some_target))
            self.players.accumulate(gradients, out, parts)
        seen = joined(measured)
        self.players.exchange(gradients, seen)
        self.players.step(gradients)
        self.learner.after_step(steps_before + 1, len(self.training_batches))
        self.tally.add(seen._replace(images=seen.images * self.share.ranks))

    @contextmanager
    def _own_draws(self, step: int, part: int) -> Iterator[None]:
        """With several processes networks draw (dropout) from a stream of each process; the common one stays equal."""
        if self.partition.processes == 1:
            yield
            return
        norms = SynchronisedBatchNorm() if self.recipe.sync_batchnorm and self.share.ranks > 1 else nullcontext()
        with own_random_state(self.fabric.device), norms:
            use = (NETWORK_DRAWS, step, self.fabric.global_rank, *([part] if part else []))
            draws = generator(self.recipe.resolved_data_seed, *use)
            torch.manual_seed(draws.initial_seed())
            yield

    def end_epoch(self, display: Display, loggers: Loggers) -> None:
        """Scores, records and saves what is due after an epoch; stops where a signal has come."""
        row = {"epoch": self.epoch + 1, "learning_rate": self.players.learning_rate, **self.tally.row()}
        self.epoch, self.step = self.epoch + 1, 0
        if self.epoch == self.recipe.epochs or self.epoch % self.recipe.evaluate_every == 0:
            row |= self._evaluate()
        row["seconds"] = self.seconds["training"]
        self.history.append(row)
        display.epoch_ended(row, self.tally.loss(), sum(self.seconds.values()))
        self.tally = Tally()
        loggers.add(row, self.epoch)
        self._call("on_epoch_end", row)
        # One question to all processes: a signal that reaches one of them after it stops the next epoch.
        last, stop = self._ended(), ranks.any_process(self.stop_requested, self.fabric.device)
        if last or stop or self.epoch % self.recipe.checkpoint_every == 0:
            saved = self.save()
            if stop and not last:
                self._interrupt(saved)

    def _evaluate(self) -> dict[str, float]:
        """Scores on every split, as columns of metrics.csv."""
        begun = time.perf_counter()
        columns: dict[str, float] = {}
        for split, batches in self.evaluator.scored.items():
            found = self.evaluator.score(batches)
            scores = summary(found)
            columns |= {f"{split}/{name}/{metric}": v for name, s in scores.items() for metric, v in s.items()}
            if split == "test":
                self.class_accuracy = {name: s.class_accuracy() for name, s in found.items()}
        self.seconds["evaluation"] += time.perf_counter() - begun
        self._call("on_evaluate_end", columns)
        return columns

    def _call(self, name: str, metrics: Mapping[str, float] | None = None) -> None:
        """Calls a function of the user's, where there is one.

        Args:
            name: of the callback.
            metrics: what it is shown; by default the means over the epoch so far.

        Raises:
            TrainingError: it raised an error.
        """
        function = getattr(self.callbacks, name)
        if function is None:
            return

        def measured() -> Mapping[str, float]:
            if metrics is not None:
                return metrics
            self.read_tally()
            return self.tally.row()

        view = TrainingView(
            run=self.folder.path,
            epoch=self.epoch,
            epochs=self.recipe.epochs,
            step=self.step,
            steps=len(self.training_batches),
            cohort=self.learner.cohort,
            measured=measured,
        )
        with own_random_state(self.fabric.device), torch.no_grad():
            try:
                answer = function(view)
            except CollegiumError:
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                saved = self.folder.saved_checkpoints()
                kept = f"the last saved state is {saved[-1]}" if saved else "nothing had been saved yet"
                raise TrainingError(
                    f"the callback {name} failed after epoch {self.epoch}, step {self.step} ({reason}); {kept}"
                ) from error
        if name == "on_step_end":
            self.learner.train()  # it may have evaluated
        self.stop_requested |= answer is False

    def read_tally(self) -> None:
        """Adds the steps since the last call to the tally; waits for the device.

        Raises:
            TrainingError: a term was not finite.
        """
        try:
            self.tally.read(self.epoch)
        except TrainingError as error:
            raise TrainingError(f"{error}{self._advice()}") from None

    def _advice(self) -> str:
        saved = self.folder.saved_checkpoints()
        last = f"the last good state is {saved[-1]}" if saved else "nothing had been saved yet"
        return f"; {last}. Try a lower --learning-rate or --gradient-clip 1, in another --run or with --overwrite"

    def _request_stop(self) -> None:
        self.stop_requested = True

    def _interrupt(self, saved: Path) -> None:
        raise Interrupted(
            f"stopped after epoch {self.epoch}, step {self.step}; saved as {saved}. "
            "Repeat the command to go on (without --overwrite)"
        )

    def save(self) -> Path:
        """Writes a checkpoint.

        Raises:
            TrainingError: a term or a weight is not finite; nothing is written.
        """
        self.read_tally()
        if self.partition.groups > 1:
            gather_to_rank0(self.learner, self.players.optimizers, self.players.parameters)
        if not _all_finite(self.learner.state_dict().values()):
            raise TrainingError(
                f"weights are no longer finite after epoch {self.epoch}, step {self.step}{self._advice()}"
            )
        steps = self.epoch * len(self.training_batches) + self.step

        def write() -> Path:
            self.folder.write_metrics(self.history)
            return self.folder.save_checkpoint(self.state_dict(), steps, self.recipe.keep_checkpoints)

        return ranks.on_rank0(write)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "learner": self.learner.state_dict(),
            "optimizers": self.players.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "mean": list(self.experiment.data.mean),
            "std": list(self.experiment.data.std),
            "random": torch.get_rng_state(),
            "random_cuda": random_state(self.fabric.device),  # or of MPS
            "epoch": self.epoch,
            "step": self.step,
            "tally": self.tally.state_dict(),
            "history": self.history,
            "class_accuracy": self.class_accuracy,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises TrainingError where the state is that of other networks."""
        with self.folder.translate_misfit():
            self.learner.load_state_dict(state["learner"])
            self.players.load_state_dict(state["optimizers"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        torch.set_rng_state(state["random"])
        set_random_state(self.fabric.device, state["random_cuda"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.tally.load_state_dict(state["tally"])
        self.history, self.seconds = list(state["history"]), dict(state["seconds"])
        self.class_accuracy = dict(state.get("class_accuracy", {}))

    def load_trained_weights(self) -> None:
        """Loads the newest checkpoint of a finished run.

        Raises:
            UsageError: there is none.
        """
        state = ranks.on_rank0(self.folder.load_checkpoint)
        if state is None:
            raise UsageError(
                f"{self.folder.path} is finished but its checkpoints are gone, so that the networks given from Python "
                "cannot get their trained weights back; train them again in another --run or with --overwrite"
            )
        with own_random_state(self.fabric.device):
            self.load_state_dict(state)

    def _finish(self) -> dict[str, Any]:
        """Writes the peers and the result."""
        data, cohort = self.experiment.data, self.learner.cohort
        move(self.learner, self.fabric.device, range(cohort.num_peers))
        trained = {f"peer{k}": cohort.peer(k) for k in range(cohort.num_peers)}
        if self.learner.average is not None:
            trained |= {f"peer{k}{AVERAGED}": self.learner.average.peer(k) for k in range(cohort.num_peers)}
        configs = {
            name: save_peer(
                peer,
                self.folder.peer(name),
                num_classes=data.num_classes,
                class_names=list(data.class_names),
                **data.preprocessing(),
            )
            for name, peer in trained.items()
        }
        result = make_result(
            self.experiment,
            history=self.history,
            class_accuracy=self.class_accuracy,
            seconds=self.seconds,
            images=len(self.training_batches) * self.batch_size * self.epoch,
            processes=self.partition.processes,
            of_peers=self.peer_costs,
        )
        for name, config in configs.items():
            write_whole(self.folder.peer(name) / CARD, card(name, config, result, self.recipe.to_dict()))
        self.folder.remove_old_checkpoints(self.recipe.keep_checkpoints)  # a kill may have come before it
        self.folder.write_result(result)
        return result


def _compiled(learner: Distiller, *, cuda_graphs: bool) -> nn.Module:
    """The learner compiled for batches of one size, whatever this process has compiled for other runs."""
    torch.compiler.reset()  # else later runs are compiled for any batch size, and after a few of them not at all
    mode = "reduce-overhead" if cuda_graphs else "default"
    return cast(nn.Module, torch.compile(learner, mode=mode))


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """Waits once for each device that the tensors lie on."""
    answers: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        answers.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(finite).all()) for finite in answers.values())
