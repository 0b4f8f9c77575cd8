"""Methods that read logits alone, beside the code of others."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Union
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F
from sides import (
    BATCH,
    CLASSES,
    Bar,
    Batches,
    Comparison,
    Meter,
    Side,
    Table,
    labels,
    left_in,
    logits,
    no_accuracy,
    of,
    options,
    progress,
    random,
    says,
    silence,
    spec,
    standing,
    state,
    terms,
    total,
)
from torch import Tensor, nn
from torch.autograd import Variable

from collegium import Distiller
from collegium.losses import distill
from collegium.methods.codistillation import Codistillation
from collegium.methods.competitive import Competitive
from collegium.methods.dkd import DKD
from collegium.methods.dml import DML
from collegium.methods.kd import KD
from collegium.methods.kdcl import KDCL
from collegium.methods.tf_kd_reg import TfKDReg
from collegium.methods.two_views import TwoViews

Loss = Callable[[Tensor, Tensor], Tensor]

TORCH: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "np": np, "math": math, "Variable": Variable, "time": time}
CONSTANT = "theirs with a constant target"
NO_ADDITION = "theirs without the 1e-7 that it adds to the target"


def taught() -> tuple[nn.Parameter, Tensor, Tensor]:
    """A student's logits, a teacher's, labels."""
    return logits(BATCH, CLASSES), logits(BATCH, CLASSES).detach(), labels()


def kd_repdistiller(comparison: Comparison) -> None:
    z, told, y = taught()
    loss = train_distill(comparison, "kd", Table(z), Table(nn.Parameter(told)), y, gamma=0.1, alpha=0.9, beta=0.0)
    ours = terms(KD(spec(1, teacher=[])), says([z], teacher=told), y)
    comparison.record("0.1 CE + 0.9 KL, T = 4: one step of the training loop", left_in(loss, [z]), of(total(ours), [z]))


def train_distill(
    comparison: Comparison,
    kind: str,
    student: Table,
    teacher: Table,
    y: Tensor,
    *,
    gamma: float,
    alpha: float,
    beta: float,
    criterion: nn.Module | None = None,
    between: Sequence[nn.Module] = (),
) -> float:
    """RepDistiller's loop over one batch: the loss that it counts. It leaves gradients in all but the teacher."""
    given = TORCH | {"AverageMeter": Meter, "accuracy": no_accuracy, "sys": MagicMock()}
    loop = comparison.load("helper/loops.py", "train_distill", given=given).train_distill
    kl = comparison.load("distiller_zoo/KD.py", given=TORCH).DistillKL(4)
    modules = nn.ModuleList([student, *between, teacher])
    criteria = nn.ModuleList([nn.CrossEntropyLoss(), kl, criterion or nn.Identity()])
    settings = options(distill=kind, gamma=gamma, alpha=alpha, beta=beta, print_freq=1, hint_layer=2)
    trained = [p for module in modules[:-1] for p in module.parameters()]
    with silence():
        _, loss = loop(1, [(random(1), y, y)], modules, criteria, standing(trained), settings)
    return float(loss)


def kd_mdistiller(comparison: Comparison) -> None:
    z, told, y = taught()
    theirs = comparison.load("mdistiller/distillers/KD.py", given=TORCH | {"Distiller": nn.Module})
    ours = terms(KD(spec(1, teacher=[]), teacher_weight=1.0), says([z], teacher=told), y)
    comparison.record("KL, T = 4", of(theirs.kd_loss(z, told, 4.0), [z]), of(ours["kd"], [z]))


def kd_standardised(comparison: Comparison) -> None:
    z, told, y = taught()
    theirs = comparison.load("mdistiller/distillers/KD.py", given=TORCH | {"Distiller": nn.Module})
    method = KD(spec(1, teacher=[]), temperature=2, teacher_weight=9, standardise=True)
    ours = terms(method, says([z], teacher=told), y)
    loss = 9 * theirs.kd_loss(z, told, 2.0, True)
    comparison.record("9 KL of standardised logits, T = 2", of(loss, [z]), of(ours["kd"], [z]))


class _TwoNetworks(nn.Module):
    """In place of mdistiller's base class."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher


class _LogitsFirst(Table):
    """As mdistiller's networks, which give logits and maps."""

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.logits, {}


def _dkd(comparison: Comparison, *, standardise: bool, temperature: float, alpha: float, beta: float) -> None:
    z, told, y = taught()
    theirs = comparison.load("mdistiller/distillers/DKD.py", given=TORCH | {"Distiller": _TwoNetworks})
    settings = options(
        DKD=options(CE_WEIGHT=1.0, ALPHA=alpha, BETA=beta, T=temperature, WARMUP=20),
        EXPERIMENT=options(LOGIT_STAND=standardise),
    )
    run = theirs.DKD(_LogitsFirst(z), _LogitsFirst(nn.Parameter(told)), settings)
    method = DKD(spec(1, teacher=[]), temperature=temperature, alpha=alpha, beta=beta, standardise=standardise)
    for epoch in (1, 7, 20, 21):  # theirs counts from 1
        _, losses = run.forward_train(random(1), y, epoch=epoch)
        ours = terms(method, says([z], teacher=told), y, progress(epoch - 1, 240))
        both = total(ours, "tckd", "nckd")
        compared = f"TCKD + NCKD, warm-up of 20 epochs, in epoch {epoch} of 240"
        comparison.record(compared, of(losses["loss_kd"], [z]), of(both, [z]))
    comparison.record("CE", of(losses["loss_ce"], [z]), of(ours["ce"], [z]))


def dkd(comparison: Comparison) -> None:
    _dkd(comparison, standardise=False, temperature=4, alpha=1, beta=8)


def dkd_standardised(comparison: Comparison) -> None:
    _dkd(comparison, standardise=True, temperature=2, alpha=9, beta=72)


def tf_kd(comparison: Comparison) -> None:
    theirs = comparison.load("my_loss_function.py", given=TORCH).loss_kd_regularization
    for classes, factor in ((100, 100.0), (10, 100.0), (10, 10.0)):
        z, y = logits(BATCH, classes), labels(classes=classes)
        loss = theirs(z, y, options(reg_alpha=0.1, reg_temperature=20.0, multiplier=factor))
        ours = terms(TfKDReg(spec(1, classes=classes)), says([z]), y)
        changed = "" if factor == 100 else "theirs with a factor of 10, not 100"
        compared = f"0.9 CE + 0.1 KL, {classes} classes"
        comparison.record(compared, of(loss, [z]), of(total(ours), [z]), changed=changed)


def _tensorflow() -> SimpleNamespace:
    """As much of TensorFlow 1 as the loss of Deep-Mutual-Learning names, on torch's tensors."""

    def softmax_cross_entropy(logits: Tensor, onehot_labels: Tensor, label_smoothing: float, weights: float) -> Tensor:
        return weights * F.cross_entropy(logits, onehot_labels, label_smoothing=label_smoothing)

    return SimpleNamespace(
        nn=SimpleNamespace(softmax=lambda z: z.softmax(-1)),
        log=torch.log,
        reduce_sum=torch.sum,
        reduce_mean=torch.mean,
        add_n=lambda losses, name: torch.stack(losses).sum(),
        losses=SimpleNamespace(softmax_cross_entropy=softmax_cross_entropy),
        get_collection=lambda *_, **__: [],
        identity=lambda x: x,
        control_dependencies=lambda _: Bar(),
        summary=MagicMock(),
        train=MagicMock(),
        GraphKeys=MagicMock(),
    )


def dml(comparison: Comparison) -> None:
    z, y = [logits(BATCH, CLASSES) for _ in range(3)], labels()
    networks = {str(i): lambda *_, own=own, **__: (own, {"Predictions": own}) for i, own in enumerate(z)}
    given = {"tf": _tensorflow(), "FLAGS": options(num_networks=3, label_smoothing=0.0)}
    for replaced, changed in (([], ""), ([("1e-8", "0")], "theirs without its 1e-8")):
        code = comparison.load("train_models.py", "kl_loss_compute", "_tower_loss", given=given, replaced=replaced)
        found, _ = code._tower_loss(networks, random(1), F.one_hot(y, CLASSES).double())
        losses = [found[str(i)] for i in range(3)]
        # The optimizer of a network has its weights alone.
        gradient = [torch.autograd.grad(loss, own, retain_graph=True)[0] for loss, own in zip(losses, z, strict=True)]
        theirs = Side([torch.stack(losses).sum()], gradient)
        ours = of(total(terms(DML(spec(3), reduction="sum"), says(z), y)), z)
        compared = 'CE + sum of KL to the others, T = 1, three networks (reduction="sum")'
        comparison.record(compared, theirs, ours, changed=changed)


def dml_okddip(comparison: Comparison) -> None:
    branches, y = logits(BATCH, CLASSES, 3), labels()
    z = [branches[:, :, i] for i in range(3)]
    train = okddip_training(comparison, "train_DML.py")

    def run(loss: Loss, *, pairwise: bool) -> Side:
        branches.grad = None
        batches, optimizer = Batches([(random(1), y)]), standing([branches])
        settings = options(num_branches=3, type=pairwise)
        found = train(batches, Table(branches), optimizer, nn.CrossEntropyLoss(), loss, no_accuracy, settings)
        return left_in(found["train_loss"], [branches])

    for loss, changed in okddip_losses(comparison):
        ours = terms(DML(spec(3), temperature=3.0), says(z), y)
        compared = "CE + mean of KL to the others, T = 3, three networks: one step of the training loop"
        comparison.record(compared, run(loss, pairwise=True), of(total(ours), [branches]), changed=changed)
    ours = terms(DML(spec(3), temperature=3.0, target="ensemble"), says(z), y)
    compared = 'CE + KL to the ensemble of the others (target="ensemble"): one step of the training loop'
    comparison.record(compared, run(loss, pairwise=False), of(total(ours), [branches]), changed=changed)
    rest = [torch.stack(z[:i] + z[i + 1 :]).mean(0) for i in range(3)]
    by_logits = ours["ce"] + torch.stack([distill(z[i], rest[i], 3.0) for i in range(3)]).sum()
    changed += "; ours with the mean of logits, not of probabilities, as the target"
    comparison.record(compared, run(loss, pairwise=False), of(by_logits, [branches]), changed=changed)


def okddip_losses(comparison: Comparison) -> list[tuple[Loss, str]]:
    """OKDDip's divergence at T = 3 as it is, without what it adds to the target, and with a constant target too."""
    as_it_is, exact = (
        comparison.load("utils.py", "KL_Loss", given=TORCH, replaced=replaced).KL_Loss(3.0)
        for replaced in ([], [("+ 10**(-7)", "")])
    )
    return [
        (as_it_is, ""),
        (exact, NO_ADDITION),
        (lambda z, told: exact(z, told.detach()), f"{NO_ADDITION}, {CONSTANT.removeprefix('theirs ')}"),
    ]


def okddip_training(comparison: Comparison, file: str) -> Any:
    """OKDDip's loop over batches."""
    given = TORCH | {"utils": SimpleNamespace(RunningAverage=Meter), "tqdm": Bar, "logging": MagicMock()}
    return comparison.load(file, "train", given=given).train


def renyi(comparison: Comparison) -> None:
    z, y = [nn.Parameter(random(BATCH, CLASSES, scale=8.0)) for _ in range(3)], labels()
    given = TORCH | {"tqdm": Bar, "Union": Union, "Path": str, "logging": MagicMock()}
    given |= {"F1Score": nn.Identity, "Accuracy": lambda: Table(nn.Parameter(torch.zeros(())))}
    names = "cosine_annealing", "RenyiLoss", "DeepMutualLearner"
    code = comparison.load("torchversion/core/dml.py", *names, given=given)
    unclipped = "theirs without clipping"
    orders = (
        (2.0, 1e-8, ""),
        (2.0, 0.0, unclipped),
        (0.5, 0.0, unclipped),
        (1.0, 0.0, unclipped),
        (1.0005, 0.0, unclipped),
    )
    for alpha, eps, changed in orders:
        learner = code.DeepMutualLearner([Table(own) for own in z], [standing([own]) for own in z], renyi_alpha=alpha)
        learner.dm_loss.eps = eps
        with silence():
            losses = learner.train_one_epoch(Batches([(random(1), y)]), 0, 1)
        ours = terms(DML(spec(3), divergence="renyi", alpha=alpha), says(z), y)
        compared = f"CE + mean of divergences of order {alpha:g}, three networks: one step of the training loop"
        comparison.record(compared, left_in(sum(losses), z), of(total(ours), z), changed=changed)
    annealed = DML(spec(3), divergence="renyi", alpha=2.0, anneal=True)
    learner = code.DeepMutualLearner([Table(own) for own in z], [None] * 3, renyi_alpha=2.0, renyi_annealing="cos")
    learner.dm_loss.eps = 0.0
    for epoch in (7, 29):
        with silence():
            learner.dm_loss.anneal_step(epoch, 30)
        loss = sum(learner.dm_loss(z[j].detach(), z[i]) / 2 for i in range(3) for j in range(3) if i != j)
        ours = terms(annealed, says(z), y, progress(epoch, 30))
        compared = f"annealed divergence, as it is set after epoch {epoch} of 30 (ours: in it)"
        comparison.record(compared, of(torch.as_tensor(loss), z), of(ours["mutual"], z), changed=unclipped)


def competitive(comparison: Comparison) -> None:
    y = labels()
    for peers, features in ((2, 0.0), (4, 0.0), (2, 0.1)):
        z = [logits(BATCH, CLASSES) for _ in range(peers)]
        h = [nn.Parameter(random(BATCH, 5)) for _ in range(peers)]
        kind = _WithFeatures if features else Table
        # The terms of the features are there as comments.
        replaced = [("# l2_loss", "l2_loss"), ("(kl_loss) /", "(0.1 * l2_loss + kl_loss) /")] if features else []
        given = TORCH | {"CeiT": _WithFeatures, "tqdm": Bar}
        given["utils"] = comparison.load("utils.py", "get_lr", "compute_models_output_invo", given=given)
        given["get_disturb_return"] = lambda images, labels: (images, labels, 0)
        file = "train_competitive_distillation.py"
        train = comparison.load(file, "train_one_epoch", given=given, replaced=replaced).train_one_epoch
        kept = [_Losses() for _ in z]
        criteria, settings = (nn.CrossEntropyLoss(), nn.KLDivLoss(reduction="batchmean")), options(epochs=1, topk=1)
        models, batches = [kind(*own) for own in zip(z, [[f] for f in h], strict=True)], Batches([(random(1), y)])
        with silence():
            train(0, models, batches, [standing(m.parameters()) for m in models], *criteria, kept, settings)
        leaves = [*z, *h]
        theirs = left_in(sum(losses.loss for losses in kept), leaves)
        best: Any = "best" if peers == 2 else "better"
        method = Competitive(spec(peers, maps=[(5, 1, 1)]), teachers=best, features=features)
        ours = of(total(terms(method, says(z, maps=[[f[:, :, None, None]] for f in h]), y)), leaves)
        option = "" if peers == 2 else ' (teachers="better")'
        compared = f"CE + mean of KL to the better ones, {peers} networks{option}: one step of the training loop"
        changed = "theirs without the perturbed images"
        if features:
            compared = compared.replace("KL to", "KL and 0.1 features to")
            changed += ", with the comments of the features as code"
        comparison.record(compared, theirs, ours, changed=changed)


class _WithFeatures(Table):
    """As the networks of the code whose features are compared."""

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.logits, self.maps[0]


class _Losses:
    """Takes the place of the record of a network's losses."""

    loss = acc = 0.0

    def update(self, ce: float, kl: float, loss: float, *_: Any) -> None:
        self.loss = loss


STEPS = 12  # of SwitOKD


def switokd(comparison: Comparison) -> None:
    peers, batches = _linear(2)
    student, teacher = copy.deepcopy(peers)
    given = TORCH | dict(model=teacher, model_ks2=student, trainloader=batches, criterion=nn.CrossEntropyLoss())
    given |= dict(optimizer=_sgd(teacher, 0.1), optimizer_ks2=_sgd(student, 0.01))
    folder = "SwitOKD_code/CIFAR-100/WRN16-2_0.5mobilenetv2"
    functions = "kl_div", "dist_s_label", "dist_s_t", "compute_entropy", "train"
    with silence():
        comparison.load(f"{folder}/main.py", *functions, given=given).train(1)
    waits = _switokd_steps(peers, batches, [0.01])
    compared = f"weights after {STEPS} steps, in {waits} of which the teacher waits"
    comparison.record(compared, state([student, teacher]), state(peers))


def switokd_two_students(comparison: Comparison) -> None:
    file = "SwitOKD_code/multi-net results (table 7)/1T2S/CIFAR_100_wrn16-10_wrn16-2_mobilenet/main.py"
    start, batches = _linear(3)
    for momentum, decay, changed in ((0.9, 5e-4, ""), (0.0, 0.0, "both with plain SGD")):
        peers = copy.deepcopy(start)
        first, second, teacher = copy.deepcopy(start)
        sgd = dict(momentum=momentum, decay=decay)
        given = TORCH | dict(model=first, model2=teacher, model_ks2=second, trainloader=batches)
        given |= dict(optimizer=_sgd(first, 0.1, **sgd), optimizer2=_sgd(teacher, 0.1, **sgd))
        given |= dict(optimizer_ks2=_sgd(second, 0.01, **sgd), criterion=nn.CrossEntropyLoss())
        with silence():
            comparison.load(file, "kl_div", "dist_s_label", "dist_s_t", "train", given=given).train(1)
        waits = _switokd_steps(peers, batches, [0.1, 0.01], **sgd)
        compared = f"weights of a teacher and two students after {STEPS} steps, in {waits} of which the teacher waits"
        comparison.record(compared, state([first, second, teacher]), state(peers), changed=changed)


def _linear(count: int) -> tuple[list[nn.Module], list[tuple[Tensor, Tensor]]]:
    """Linear networks of 100 classes, the last ahead of the others, and batches of what they classify.

    It waits in some of them and learns in others.
    """
    peers: list[nn.Module] = [nn.Linear(8, 100) for _ in range(count)]
    with torch.no_grad():
        peers[-1].weight.mul_(3)
    images = [random(BATCH, 8, scale=3.0) for _ in range(STEPS)]
    noise = [random(BATCH, 100, scale=8.0 * (step % 2)) for step in range(STEPS)]
    return peers, [(x, (peers[-1](x) + e).argmax(1)) for x, e in zip(images, noise, strict=True)]


def _switokd_steps(
    peers: Sequence[nn.Module], batches: Sequence[tuple[Tensor, Tensor]], rates: Sequence[float], **sgd: float
) -> int:
    """Trains the peers, the last of which is the teacher; in how many steps it waits."""
    images, _ = batches[0]
    method = {"name": "switokd", "teacher": len(peers) - 1}
    distiller = Distiller(method, peers, num_classes=100, example_input=images)
    rated = [dict(params=peer.parameters(), lr=rate) for peer, rate in zip(peers[:-1], rates, strict=True)]
    optimizers = {"peers": _sgd(rated, 0.1, **sgd), "teacher": _sgd(peers[-1], 0.1, **sgd)}
    found = [distiller.step(images, y, progress(0), optimizers).losses["teacher"] for images, y in batches]
    return sum(float(loss) == 0 for loss in found)


def _sgd(
    held: nn.Module | list[dict[str, Any]], rate: float, momentum: float = 0.9, decay: float = 5e-4
) -> torch.optim.SGD:
    trained = held.parameters() if isinstance(held, nn.Module) else held
    return torch.optim.SGD(trained, lr=rate, momentum=momentum, weight_decay=decay)


def okdph(comparison: Comparison) -> None:
    code = comparison.load("src/OKDPH.py", "update_hwm", "fusion", "train", given=TORCH | {"tqdm": Bar})
    images, y = random(3, 4, 2, 3, 32, 32), [labels(4) for _ in range(3)]
    # A view of its own for the network of the mean weights: here the first peer's.
    batches = [(torch.cat([views, views[:, :1]], 1), target) for views, target in zip(images, y, strict=True)]
    settings = options(device="cpu", hwm="mean", T=4.0, omega=0.8, beta=0.8, gamma=0.5, gap=1, level="")

    def run(interval: int, gamma: float, *, returns_after: bool) -> tuple[Side, Side]:
        shape = dict(image_shape=(3, 32, 32), num_classes=CLASSES)
        distiller = Distiller("okdph", "2xresnet8", **shape, gamma=gamma, interval=interval, steps_per_epoch=3)
        optimizer = _sgd(distiller.cohort, 0.1)
        nets = [copy.deepcopy(distiller.cohort.peer(k)) for k in (0, 1, 0)]
        optimizers = [_sgd(net, 0.1) for net in nets[:-1]]
        with silence():
            for batch in batches:
                code.train(settings, nets, [batch], optimizers)
                if returns_after:
                    mean = code.update_hwm(nets, "mean")
                    nets[:-1] = [code.fusion(net, mean, gamma) for net in nets[:-1]]
        for (views, target), _ in zip(batches, y, strict=True):
            distiller.step(views[:, :2].transpose(0, 1), target, progress(0), {"peers": optimizer})
        return state(nets[:-1]), state([distiller.cohort.peer(k) for k in range(2)])

    compared = "weights and statistics after 3 steps of two ResNet-8 that start alike"
    comparison.record(f"{compared}, none returns", *run(9, 0.5, returns_after=False))
    settings.level = "batch"
    comparison.record(f"{compared} and return half way to their mean in each", *run(1, 0.5, returns_after=False))
    settings.level = ""
    changed = "theirs with the return to the mean after the step"
    theirs, ours = run(1, 0.5, returns_after=True)
    comparison.record(f"{compared} and return half way to their mean in each", theirs, ours, changed=changed)


def kdcl_mean(comparison: Comparison) -> None:
    z, y = [logits(BATCH, 100) for _ in range(3)], labels(classes=100)
    given = TORCH | {"args": options(T=4.0, alpha=0.5), "AverageMeter": Meter, "accuracy": no_accuracy}
    double = [("dtype=torch.float)", "dtype=torch.double)")]
    train = comparison.load("train.py", "train_one_epoch", given=given, replaced=double).train_one_epoch
    losses, _ = train([Table(own) for own in z], [standing([own]) for own in z], [(random(BATCH, 3, 1), y)])
    theirs = left_in(sum(losses), z)
    method = KDCL(spec(3, classes=100), temperature=4.0)
    ours = total(terms(method, says(z), y)) / 2
    compared = "(CE + KL to a common target) / 2, T = 4, three networks: one step of the training loop"
    comparison.record(compared, theirs, of(ours, z), changed="theirs in float64")
    with torch.no_grad():
        mean = torch.stack(list(z)).mean(0)
    method._soft_target = lambda *_: mean
    changed = "theirs in float64; ours with the mean of the logits as the target"
    comparison.record(compared, theirs, of(total(terms(method, says(z), y)) / 2, z), changed=changed)


def kdcl_targets(comparison: Comparison) -> None:
    utils = comparison.load("utils.py", "kd_loss", given=TORCH)
    given = TORCH | {"utils": utils, "device": "cpu"}
    code = comparison.load("loss.py", "kdcl_naive_loss", "kdcl_minlogit", given=given)
    settings = options(num_branches=3, temp=3.0)
    z, y = logits(3, BATCH, CLASSES), labels()
    scaled = "theirs times images and classes"
    ours = of(terms(KDCL(spec(3)), says(z), y)["kd"], [z])
    loss = code.kdcl_minlogit(z, y, settings)
    comparison.record("KL to the target minlogit, T = 3", of(loss, [z]), ours)
    comparison.record("KL to the target minlogit, T = 3", of(BATCH * CLASSES * loss, [z]), ours, changed=scaled)
    ours = of(terms(KDCL(spec(3), target="naive"), says(z), y)["kd"], [z])
    loss = BATCH * CLASSES * code.kdcl_naive_loss(z, y, settings)
    comparison.record("KL to the target naive, T = 3", of(loss, [z]), ours, changed=scaled)
    by_image = [code.kdcl_naive_loss(z[:, i : i + 1], y[i : i + 1], settings) for i in range(BATCH)]
    loss = CLASSES * torch.stack(by_image).mean()
    changed = f"{scaled}; theirs given one image at a time"
    comparison.record("KL to the target naive, T = 3", of(loss, [z]), ours, changed=changed)


def codistillation(comparison: Comparison) -> None:
    z, y = [logits(BATCH, CLASSES) for _ in range(2)], labels()
    loss = comparison.load(
        "imagenet/train.py", "Trainer.compute_distillation_loss", given=TORCH
    ).compute_distillation_loss
    ours = terms(Codistillation(spec(2), every=0), says(z), y, progress(300, 300))
    compared = "imitation of the other of two networks"
    for kind in ("cross_entropy", "kl_divergence"):
        run = options(options=options(distillation_loss=kind))
        theirs = loss(run, z[0], z[1].detach()) + loss(run, z[1], z[0].detach())
        comparison.record(f"{compared}, its {kind}", of(theirs, z), of(ours["psi"], z))
    run.options.distillation_loss = "cross_entropy"
    theirs = loss(run, z[0], z[1].detach()) + loss(run, z[1], z[0].detach())
    entropy = sum(-(own.softmax(-1) * own.log_softmax(-1)).sum(-1).mean() for own in z)
    changed = "theirs without the entropy of the target"
    minus = of(theirs - torch.as_tensor(entropy).detach(), z)
    comparison.record(f"{compared}, its cross_entropy", minus, of(ours["psi"], z), changed=changed)


def two_views(comparison: Comparison) -> None:
    z, y = [logits(BATCH, CLASSES) for _ in range(2)], labels()
    given = TORCH | {"CrossEntropyLoss": nn.CrossEntropyLoss}
    code = comparison.load("vit_src/models/modeling.py", "VisionTransformer.forward", given=given)
    views = iter(z)
    network = options(num_classes=CLASSES, alpha=0.3)
    network.transformer = lambda x: (torch.zeros(BATCH, 1, 1), None, None)
    network.head = lambda x: next(views)
    theirs = of(code.forward(network, random(1), y), z)
    for alpha, changed in (
        (0.3, "twice ours"),
        (0.3 * BATCH, "twice ours, with alpha times the images"),
    ):
        ours = terms(TwoViews(spec(1), alpha=alpha), says([torch.cat(z)]), y)
        comparison.record("CE + 0.3 KL both ways", theirs, of(2 * total(ours), z), changed=changed)


def two_views_constant(comparison: Comparison) -> None:
    """Of sequences of one frame with one label, whose CTC loss is the cross-entropy."""
    z = [logits(BATCH, CLASSES) for _ in range(2)]
    y = labels(classes=CLASSES - 1) + 1  # class 0 is the blank
    given = TORCH | {"Tuple": tuple, "make_pad_mask": lambda lengths: torch.zeros(len(lengths), 1, dtype=torch.bool)}
    file = "egs/librispeech/ASR/zipformer/model.py"
    code = comparison.load(file, "AsrModel.forward_cr_ctc", given=given)
    model, once = options(ctc_output=lambda x: x.log_softmax(-1)), torch.ones(2 * BATCH, dtype=torch.int64)
    labels_loss, consistency = code.forward_cr_ctc(model, torch.cat(z)[:, None], once, y.repeat(2), once)
    ours = terms(TwoViews(spec(1), alpha=0.2, constant=True), says([torch.cat(z)]), y)
    loss = (labels_loss + 0.2 * consistency) / (2 * BATCH)
    compared = "CE + 0.2 KL both ways to constants (constant=True), its CTC loss of one frame as CE"
    comparison.record(compared, of(loss, z), of(total(ours), z), changed="theirs as a mean over images and views")
