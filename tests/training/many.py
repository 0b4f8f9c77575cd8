"""What several processes do in the tests of training on many devices; started anew, they import it."""

import hashlib
import os
import pickle
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from helpers import tiny
from torch import Tensor, nn
from torch.multiprocessing import get_context

from collegium import methods, networks, ranks
from collegium.training.devices import Devices, Layout
from collegium.training.engine import make_fabric, own_random_state
from collegium.training.experiment import build
from collegium.training.loop import Interrupted, Run
from collegium.training.metrics import summary
from collegium.training.run import train
from collegium.training.run_folder import RunFolder

GENTLE = dict(batch_size=8, learning_rate=0.001)  # so that no difference in the last bit can grow

NORMS = nn.modules.batchnorm._BatchNorm

CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": {"name": name}} for name in methods.names()},
    **{f"kdcl {target}": {"method": {"name": "kdcl", "target": target}} for target in ("naive", "linear", "general")},
    "afd mutual": {"method": {"name": "afd", "scheme": "mutual"}, "peers": "3xresnet8"},
    "dml mixed": {"method": {"name": "dml"}, "mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1},
    "dml weighted": {"method": {"name": "dml"}, "class_weights": "balanced", "sampling": "balanced", "mixup": 0.4},
    "pcl mixed views": {"method": {"name": "pcl"}, "mixup": 0.4},
}


@contextmanager
def in_float64() -> Iterator[None]:
    """Networks, and the losses too, which are in float32 otherwise."""
    wide, default = torch.Tensor.float, torch.get_default_dtype()
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float = wide  # type: ignore[method-assign]
        torch.set_default_dtype(default)


def running(case: str, devices: Devices, layout: Layout = "data", **changes: Any) -> Run:
    """A run of a case that is ready for its first step."""
    chosen = CASES[case] | changes
    kind = methods.get(chosen["method"]["name"])
    chosen = {"peers": f"{max(2, kind.min_peers)}xresnet8"} | chosen
    teacher = None
    if kind.needs_teacher:
        torch.manual_seed(1)
        teacher = networks.build("resnet8", num_classes=10, in_channels=1)
        chosen["teacher"] = "python:teacher"
    recipe = tiny(**chosen)
    experiment = build(recipe, teacher=teacher)
    return Run(experiment, RunFolder("unused"), make_fabric(recipe, devices), quiet=True, layout=layout)


def prepared(run: Run) -> tuple[Tensor, Tensor]:
    """Makes the run's random state that of its start, and gives the last batch of its first epoch."""
    torch.manual_seed(0)
    run.learner.train()
    return next(run.training_batches.epoch(0, 3))


def gradients(
    case: str, devices: Devices, *, synchronised: bool, layout: Layout = "data", **changes: Any
) -> dict[str, Tensor]:
    """Of every player, by a batch of 20 images; norms frozen, or by the whole batch. Of what this process computes."""
    run = running(case, devices, layout, sync_batchnorm=synchronised, **changes)
    found: dict[str, Tensor] = {}

    def keep(player: str) -> None:
        names = {id(p): name for name, p in run.learner.named_parameters()}
        owned = run.players.parameters[player]
        found.update({f"{player} {names[id(p)]}": p.grad.clone() for p in owned if p.grad is not None})

    for player, optimizer in run.players.wrapped.items():
        optimizer.step = partial(keep, player)  # type: ignore[method-assign]
    with own_random_state(run.fabric.device):
        images, target = prepared(run)
        if not synchronised:
            for module in run.learner.modules():
                if isinstance(module, NORMS):
                    module.eval()
        run.train_step(images.to(torch.get_default_dtype()), target, 0.5)
    computed = {id(b) for b in run.players.statistics}
    buffers = {name: b for name, b in run.learner.named_buffers() if id(b) in computed and synchronised}
    return found | {f"buffer {name}": b.clone() for name, b in buffers.items()}


def trained(case: str, devices: Devices) -> dict[str, Tensor]:
    """All weights after an epoch of four steps, norms by the whole batch."""
    run = running(case, devices, sync_batchnorm=True)
    with own_random_state(run.fabric.device):
        prepared(run)
        for images, target in run.training_batches.epoch(0):
            run.train_step(images.double(), target, 0.5)
    return {name: p.detach().clone() for name, p in run.learner.named_parameters()}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Of compiled and of eager steps, in float32. What a player's loss does not reach has zeros or nothing."""
    assert found.keys() >= expected.keys()
    for name, gradient in found.items():
        wanted = expected.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()) + 1e-9)


def compiled_gradients(devices: Devices, cases: list[str]) -> dict[str, dict[str, Tensor]]:
    """Of every case with norms frozen, by compiled steps, in float32."""
    torch.compile = partial(torch.compile, backend="aot_eager")  # all of it but the code  # type: ignore[assignment]
    return {case: gradients(case, devices, synchronised=False, compile=True) for case in cases}


def weights_after_a_step(case: str, devices: Devices) -> str:
    """A digest of all weights and statistics, norms by the images of the own process."""
    run = running(case, devices)
    with own_random_state(run.fabric.device):
        run.train_step(*prepared(run), 0.5)
    digest = hashlib.sha1()
    for tensor in run.learner.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def scores(devices: Devices) -> dict[str, dict[str, float]]:
    """Of untrained peers on the 450 test images."""
    run = running("independent", devices)
    return summary(run.evaluator.score(run.evaluator.scored["test"]))


def gathered_gradients(devices: Devices) -> list[Tensor]:
    """What is gathered of what the ranks hold, and d/dx of a loss of it, which differs on every rank."""
    make_fabric(tiny(), devices)
    x = torch.arange(6.0).reshape(3, 2) + ranks.rank()
    x.requires_grad_()
    (ranks.gather_batch(x).square().sum() * (1 + ranks.rank()) + ranks.mean_over_ranks(x).pow(3).sum()).backward()
    assert x.grad is not None
    return [ranks.gather_batch(x.detach()), x.grad]


WHATS = [f"{case}: {what}" for case in CASES for what in ("norms frozen", "norms synchronised")]
WHATS += [f"{case}: trained" for case in ("ffl", "codistillation", "dml mixed", "kdcl general")]


def one_of(what: str, devices: Devices) -> dict[str, Tensor]:
    """What must be the same for any number of processes, in float64."""
    case, _, how = what.partition(": ")
    if how == "trained":
        return trained(case, devices)
    return gradients(case, devices, synchronised=how == "norms synchronised")


def everything(devices: Devices, reference: Path) -> dict[str, Any]:
    """What this rank finds: among it the gradients that differ from those of one process."""
    different: dict[str, list[str]] = {}
    alone = torch.load(reference, weights_only=True)
    with in_float64():
        # Synchronised norms ask more than frozen ones; four processes on few cores are slow.
        for what, expected in alone.items():
            if what.endswith("frozen") and devices.processes > 2:
                continue
            found = one_of(what, devices)
            assert found.keys() == expected.keys(), what
            wrong = [name for name, g in expected.items() if not torch.allclose(found[name], g, rtol=1e-8, atol=1e-10)]
            if wrong:
                different[what] = wrong
    return {
        "different": different,
        "digests": {case: weights_after_a_step(case, devices) for case in CASES},
        "scores": scores(devices),
        "gathered": gathered_gradients(devices),
    }


PARTED: dict[str, dict[str, Any]] = {
    **{case: chosen for case, chosen in CASES.items() if methods.get(chosen["method"]["name"]).logits_only},
    "dml clipped": {"method": {"name": "dml"}, "gradient_clip": 0.01},
    "four peers": {"method": {"name": "dml"}, "peers": "4xresnet8"},
    "unlike peers": {"method": {"name": "switokd"}, "peers": "resnet8,resnet14"},
}


def whole_gradients(case: str, devices: Devices, layout: Layout) -> dict[str, Tensor]:
    """Of a batch of 20 images and the peers of this process, norms by the whole batch."""
    CASES.update(PARTED)
    return gradients(case, devices, synchronised=True, layout=layout, share_until=None)


def parted(devices: Devices, cases: list[str]) -> dict[str, dict[str, Tensor]]:
    """The gradients of every case, where the peers are laid out on the processes."""
    with in_float64():
        return {case: whole_gradients(case, devices, "peers") for case in cases}


def stopped_and_repeated(devices: Devices, whole: Path, stopped: Path, layout: Layout, changes: dict[str, Any]) -> str:
    """A run, and the same stopped by a signal to the last rank, copied, and repeated; the message of the stop."""
    recipe = tiny(**GENTLE, **changes, sync_batchnorm=True)
    ports = iter(os.environ["FREE_PORTS"].split(","))
    os.environ["MASTER_PORT"] = next(ports)  # each run's own: a fast process would find the store of the one before
    train(recipe, whole, quiet=True, layout=layout)
    original, message = Run.train_step, ""

    def step(self: Run, *arguments: Any) -> None:
        original(self, *arguments)
        if (self.epoch, self.step) == (1, 2) and self.fabric.global_rank == devices.devices - 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    Run.train_step = step  # type: ignore[method-assign]
    os.environ["MASTER_PORT"] = next(ports)
    try:
        train(recipe, stopped, quiet=True, layout=layout)
    except Interrupted as error:
        message = str(error)
    if os.environ["LOCAL_RANK"] == "0":
        shutil.copytree(stopped, stopped.with_name("copy"))
    Run.train_step = original  # type: ignore[method-assign]
    os.environ["MASTER_PORT"] = next(ports)
    train(recipe, stopped, quiet=True, layout=layout)
    return message


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function returns in each of so many processes, which find each other."""
    with ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in range(4)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        port, *others = (str(one.getsockname()[1]) for one in free)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "FREE_PORTS": ",".join(others), "OMP_NUM_THREADS": "1"}
    devices = Devices(count, started=True)
    context = get_context("spawn")
    crew = []
    for k in range(count):
        receiver, sender = context.Pipe(duplex=False)
        own = shared | {"LOCAL_RANK": str(k), "LOCAL_WORLD_SIZE": str(count), "WORLD_SIZE": str(count)}
        process = context.Process(target=_call, args=(function, (devices, *arguments), own, sender))
        process.start()
        sender.close()
        crew.append((process, receiver))
    answers: dict[int, Any] = {}
    try:
        while len(answers) < count:  # one that fails leaves the others waiting
            wait([receiver for k, (_, receiver) in enumerate(crew) if k not in answers])
            for k, (_, receiver) in enumerate(crew):
                if k not in answers and receiver.poll():
                    try:
                        answers[k] = pickle.loads(receiver.recv_bytes())
                    except EOFError:
                        raise RuntimeError(f"rank {k} of {count} failed; see its traceback on standard error") from None
        return [answers[k] for k in range(count)]
    finally:
        for process, _ in crew:
            process.join(20 if len(answers) == count else 0)
            process.kill()
            process.join()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str], sender: Any) -> None:
    os.environ.update(environment)
    with ranks.process_group():
        sender.send_bytes(pickle.dumps(function(*arguments)))
