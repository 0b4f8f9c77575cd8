"""Methods whose heads and trunks learn too, in whole steps of small networks, beside the code of others.

Both sides have the same weights: a ResNet-8 of each repository and Collegium's, with what the method adds.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock, patch

import torch
from by_logits import NO_ADDITION, TORCH, okddip_losses, okddip_training
from differences import gradients
from sides import (
    BATCH,
    CLASSES,
    Bar,
    Batches,
    Comparison,
    Meter,
    Side,
    copied,
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

from collegium import Distiller
from collegium.losses import distill, ramp_up
from collegium.methods import l_mcl as l_mcl_module
from collegium.methods.mcl import MCL

EPOCHS = (0, 37, 80, 225)  # of 300: of one step each
Held = Sequence[nn.Module | Tensor]


class Steps(NamedTuple):
    """What some steps gave."""

    losses: list[Tensor]
    held: Held


def resnet8(method: str | Mapping[str, Any], peers: int, *, share: bool = True, **more: Any) -> Distiller:
    shape = dict(image_shape=(3, 32, 32), num_classes=CLASSES, steps_per_epoch=100)
    return Distiller(method, f"{peers}xresnet8", share_until="stage2" if share else None, **shape, **more)


def parts(distiller: Distiller) -> list[nn.Module]:
    """What the peers are made of: the trunk, then each one's own stages and classifier."""
    cohort = distiller.cohort
    return [cohort.trunk, *(part for branch in cohort.branches for part in (branch.stages, branch.head))]


def batches(count: int, size: int = BATCH, views: int | None = None) -> list[tuple[Tensor, Tensor]]:
    shape = (size, 3, 32, 32) if views is None else (views, size, 3, 32, 32)
    return [(random(*shape), labels(size)) for _ in range(count)]


def sgd(groups: Any, decay: float = 1e-4) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=decay)


def steps(
    distiller: Distiller, data: Sequence[tuple[Tensor, Tensor]], epochs: Sequence[int], decay: float = 1e-4
) -> list[Tensor]:
    """Trains by Distiller.step; the losses."""
    optimizers = {player: sgd(groups) for player, groups in distiller.players(lr=0.1, weight_decay=decay).items()}
    found = [distiller.step(*batch, progress(e), optimizers) for batch, e in zip(data, epochs, strict=True)]
    return [out.loss for out in found]


def record(comparison: Comparison, compared: str, theirs: Steps, ours: Steps, *, changed: str = "") -> None:
    """Two rows: the losses of the steps, then the weights and running statistics after them."""
    count = len(theirs.losses)
    comparison.record(f"{compared}: losses of {count} steps", Side(theirs.losses), Side(ours.losses), changed=changed)
    comparison.record(
        f"{compared}: weights and statistics after them", state(theirs.held), state(ours.held), changed=changed
    )


def ffl(comparison: Comparison) -> None:
    network = comparison.load("our_network.py", given=TORCH)
    data = batches(len(EPOCHS))
    for replaced, changed in (([], ""), ([("+10**(-7)", "")], NO_ADDITION)):
        utils = comparison.load("utils.py", "KLLoss", "sigmoid_rampup", given=TORCH, replaced=replaced)
        model, module = network.FFL_ResNet(8, CLASSES), network.Fusion_module(64, CLASSES, 8)
        distiller = resnet8("ffl", 2)
        trunk = [model.conv1, model.bn1, model.layer1, model.layer2]
        theirs = [*trunk, model.layer3_1, model.classfier3_1, model.layer3_2, model.classfier3_2]
        theirs += [module.conv1, module.bn1, module.conv1_1, module.bn1_1, module.fc2]
        fusion = distiller.method.fusion
        ours = [*parts(distiller), fusion.depthwise, fusion.norm1, fusion.pointwise, fusion.norm2, fusion.classifier]
        copied(theirs, ours)
        given = TORCH | dict(DEVICE="cpu", utils=utils, criterion_CE=nn.CrossEntropyLoss(), criterion_kl=utils.KLLoss())
        given |= dict(args=options(consistency_rampup=80.0))
        given |= dict(optimizer=sgd(model.parameters()), optimizer_FM=sgd(module.parameters(), 1e-5))
        code = comparison.load("train_FFL.py", "get_current_consistency_weight", "train", given=given)
        losses = []
        for batch, epoch in zip(data, EPOCHS, strict=True):
            code.train.__globals__["trainloader"] = [batch]
            with silence():
                losses.append(torch.as_tensor(code.train(model, module, epoch)[0]))
        found = Steps(steps(distiller, data, EPOCHS), ours)
        record(comparison, "two ResNet-8 on a trunk, epochs 0 to 225", Steps(losses, theirs), found, changed=changed)


def one(comparison: Comparison) -> None:
    network = comparison.load("models/cifar/resnet.py", given=TORCH)
    ramps = comparison.load("utils/ramps.py", "sigmoid_rampup", given=TORCH)
    new = [("async=True", "non_blocking=True"), (".data[0]", ".data.item()")]
    data = batches(len(EPOCHS))
    for replaced, changed in (([], ""), ([("+10**(-7)", "")], NO_ADDITION)):
        kl = comparison.load("loss/kl_loss.py", "KLLoss", given=TORCH, replaced=replaced).KLLoss()
        given = TORCH | dict(ramps=ramps, args=options(consistency_rampup=80.0), AverageMeter=Meter, Bar=Bar)
        names = "get_current_consistency_weight", "train"
        code = comparison.load("cifar_one.py", *names, given=given | {"accuracy": no_accuracy}, replaced=new)
        model, distiller = network.ONE_ResNet(8, CLASSES), resnet8("one", 3)
        theirs = [model.conv1, model.bn1, model.layer1, model.layer2]
        for k in (1, 2, 3):
            theirs += [getattr(model, f"layer3_{k}"), getattr(model, f"classfier3_{k}")]
        theirs += [model.control_v1, model.bn_v1]
        ours = [*parts(distiller), distiller.method.gate.linear, distiller.method.gate.norm]
        copied(theirs, ours)
        optimizer, losses, ce = sgd(model.parameters()), [], nn.CrossEntropyLoss()
        for batch, epoch in zip(data, EPOCHS, strict=True):
            with silence():
                losses.append(torch.as_tensor(code.train([batch], model, ce, kl, optimizer, epoch, False)[0]))
        found = Steps(steps(distiller, data, EPOCHS), ours)
        record(comparison, "three ResNet-8 on a trunk, epochs 0 to 225", Steps(losses, theirs), found, changed=changed)


def _okddip_resnet(comparison: Comparison, file: str) -> Any:
    names = ("conv3x3", "conv1x1", "BasicBlock", "Bottleneck", "ResNet")
    if file.endswith("one.py"):
        names += ("ILR",)
    return comparison.load(f"models/model_cifar/{file}", *names, given=TORCH)


def _okddip_weight(comparison: Comparison, file: str) -> Callable[[int], float]:
    given = TORCH | {"args": options(length=80.0)}
    found: Callable[[int], float] = comparison.load(
        file, "get_current_consistency_weight", given=given
    ).get_current_consistency_weight
    return found


def okddip(comparison: Comparison) -> None:
    code = _okddip_resnet(comparison, "resnet_GL.py")
    weight, train = _okddip_weight(comparison, "train_GL.py"), okddip_training(comparison, "train_GL.py")
    data, losses_of = batches(len(EPOCHS)), okddip_losses(comparison)
    for loss, changed in losses_of[:2]:
        model = code.ResNet(code.BasicBlock, [1, 1, 1], num_classes=CLASSES, num_branches=4)
        distiller = resnet8("okddip", 4)
        theirs = [model.conv1, model.bn1, model.layer1, model.layer2]
        for k in range(4):
            theirs += [getattr(model, f"layer3_{k}"), getattr(model, f"classifier3_{k}")]
        theirs += [model.query_weight, model.key_weight]
        ours = [*parts(distiller), distiller.method.attention.l, distiller.method.attention.e]
        copied(theirs, ours)
        optimizer, losses = sgd(model.parameters()), []
        for batch, epoch in zip(data, EPOCHS, strict=True):
            ce, settings = nn.CrossEntropyLoss(), options(num_branches=4, alpha=1.0)
            found = train(Batches([batch]), model, optimizer, ce, loss, no_accuracy, settings, weight(epoch))
            losses.append(torch.as_tensor(found["train_loss"]))
        ended = Steps(steps(distiller, data, EPOCHS), ours)
        record(comparison, "four ResNet-8 on a trunk, epochs 0 to 225", Steps(losses, theirs), ended, changed=changed)


def cl_ilr(comparison: Comparison) -> None:
    code = _okddip_resnet(comparison, "resnet_one.py")
    train = okddip_training(comparison, "train_one.py")
    data = batches(1)
    (images, y), ce = data[0], nn.CrossEntropyLoss()
    for loss, changed in okddip_losses(comparison):
        model = code.ResNet(code.BasicBlock, [1, 1, 1], num_classes=CLASSES, num_branches=4, avg=True, bpscale=True)
        distiller = resnet8("cl_ilr", 4, temperature=3.0)
        theirs = [model.conv1, model.bn1, model.layer1, model.layer2]
        for k in range(4):
            theirs += [getattr(model, f"layer3_{k}"), getattr(model, f"classifier3_{k}")]
        pairs = copied(theirs, parts(distiller))
        settings = options(num_branches=4, alpha=1.0, ind=False, avg=True)
        found = train(Batches(data), model, standing(model.parameters()), ce, loss, no_accuracy, settings, 1.0)
        seen = left_in(found["train_loss"], [a for a, _ in pairs])
        distiller.players(lr=0.1)  # from here on gradients of the trunk are divided
        out = distiller(images, y, progress(300))
        twice = "twice ours, with T = 3"
        compared = "CE + KL to the mean of the other heads, four ResNet-8 on a trunk, weights' gradients"
        ours = of(2 * out.loss, [b for _, b in pairs])
        comparison.record(compared, seen, ours, changed=f"{changed}; {twice}" if changed else twice)


def pcl(comparison: Comparison) -> None:
    names = "conv3x3", "conv1x1", "BasicBlock", "Bottleneck", "Branch", "ResNet"
    network = comparison.load("src/models/resnet.py", *names, given=TORCH | {"deepcopy": copy.deepcopy})
    given = TORCH | {"List": list, "optim": torch.optim}
    kd = comparison.load("src/losses/kd_loss.py", given=given)
    wrapper = comparison.load("src/losses/loss_wrapper.py", "LossWrapper", given=given).LossWrapper(
        [nn.CrossEntropyLoss(), kd.KDLoss(3.0), kd.PMLoss(3.0)], [1.0] * 3
    )
    control = comparison.load("src/controller.py", "Controller", given=given | {"LossWrapper": Any}).Controller
    follow = comparison.load("src/utils/ema.py", "update_ema_variables", given=given).update_ema_variables

    def run(data: list[tuple[Tensor, Tensor]], epoch: int, *, training: bool) -> tuple[Steps, Steps]:
        model = network.ResNet(network.BasicBlock, [1, 1, 1], num_classes=CLASSES)
        distiller = resnet8("pcl", 3)
        theirs: list[Any] = [model.conv1, model.bn1, model.layer1, model.layer2]
        for branch in (model.branch1, model.branch2, model.branch3):
            theirs += [branch.layer, branch.fc]
        theirs.append(model.en_fc)
        ours = [*parts(distiller), distiller.method.classifier]
        copied(theirs, ours)
        assert distiller.shadow is not None
        distiller.shadow.load_state_dict(distiller.cohort.state_dict())
        mean = copy.deepcopy(model)
        mean.ema = True
        model.train(training)
        mean.train(training)
        distiller.train(training)
        optimizer = sgd(model.parameters())
        controller, losses = control(wrapper, model, mean, optimizer), []
        for step, (views, y) in enumerate(data):
            losses.append(controller.train_step(views.transpose(0, 1), y, epoch)[0].detach())
            follow(model, mean, global_step=step)
        found = steps(distiller, data, [epoch] * len(data))
        return Steps(losses, theirs), Steps(found, ours)

    compared = "three ResNet-8 on a trunk, a view for each"
    data = batches(3, views=3)
    record(comparison, compared, *run(data, 90, training=True))
    changed = "both with norms in evaluation mode"
    record(comparison, compared, *run(data, 90, training=False), changed=changed)
    theirs, ours = run([(views[:1].repeat(3, 1, 1, 1, 1), y) for views, y in data], 90, training=True)
    compared = "three ResNet-8 on a trunk, one view for all"
    comparison.record(f"{compared}: losses of 3 steps", Side(theirs.losses), Side(ours.losses))
    weights = [Side([p.detach() for m in held for p in m.parameters()]) for held in (theirs.held, ours.held)]
    comparison.record(f"{compared}: weights after them", *weights)
    for epoch in (0, 40, 90):
        theirs_, ours_ = wrapper.compute_rampup_weight(epoch), ramp_up(progress(epoch), 80 / 300)
        comparison.record(f"weight w of the imitation in epoch {epoch}", Side([torch.tensor(theirs_)]), Side([ours_]))


def mcl(comparison: Comparison) -> None:
    code = comparison.load("losses/cifar_sup_mcl_loss.py", given=TORCH)
    kl = comparison.load("utils.py", "DistillKL", given=TORCH).DistillKL(3.0)
    for peers, logit_kd in ((2, True), (3, False), (3, True)):
        z, h = [logits(8, CLASSES) for _ in range(peers)], [nn.Parameter(random(8, 12)) for _ in range(peers)]
        y = torch.arange(4).repeat(2)
        settings = options(number_net=peers, feat_dim=16, rep_dim=[12] * peers, logit_distill=logit_kd, **CONTRAST)
        criterion = code.Sup_MCL_Loss(settings)
        counters = Counters()
        given = TORCH | counters.given | dict(args=settings, log_txt=os.devnull)
        train = comparison.load("main_cifar.py", "train", given=given).train
        train.__globals__.update(trainloader=[(random(1), y)], net=_Answers(z, h))
        method = MCL(spec(peers, maps=[(12, 1, 1)]), embedding=16, logit_kd=logit_kd)
        pairs = copied([e.proj_head for e in criterion.embed_list], [e.mlp for e in method.embeddings])
        with silence():
            train(0, [nn.CrossEntropyLoss(), kl, criterion], standing([*z, *h, *criterion.parameters()]))
        theirs = left_in(counters["train_loss"].avg, [*z, *h, *(a for a, _ in pairs)])
        own = [*z, *h, *(b for _, b in pairs)]
        ours = terms(method, says(z, maps=[[f[:, :, None, None]] for f in h]), y)
        kind = " and logit KD" if logit_kd else ""
        compared = f"CE, the four contrastive terms{kind} of {peers} networks: one step of the training loop"
        comparison.record(compared, theirs, of(total(ours), own))
        if peers == 3 and logit_kd:
            alone = distill(z[-1], torch.stack(list(z)).mean(0), 3.0)
            found = of(total(ours) - ours["logit_kd"] + alone, own)
            comparison.record(compared, theirs, found, changed="ours with the last network alone imitating logits")


CONTRAST = dict(kd_T=3.0, tau=0.1, alpha=0.1, gamma=1.0, beta=0.1, lam=1.0)


class Counters(dict[str, Meter]):
    """What the training scripts of MCL and L-MCL count, by its name."""

    @property
    def given(self) -> dict[str, Any]:
        nothing = (torch.zeros(1), torch.zeros(1))
        return dict(
            AverageMeter=lambda name, _: self.setdefault(name, Meter()),
            adjust_lr=lambda *_: 0.0,
            correct_num=lambda *_, **__: nothing,
            logger=MagicMock(),
        )


class _Answers(nn.Module):
    """Networks that say the same whatever they see: for (logits, pooled features)."""

    def __init__(self, logits: Sequence[nn.Parameter], pooled: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.logits, self.pooled = nn.ParameterList(logits), nn.ParameterList(pooled)

    def forward(self, _: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return list(self.logits), list(self.pooled)


def l_mcl(comparison: Comparison) -> None:
    data = [(random(4, 3, 32, 32), torch.arange(2).repeat(2)) for _ in range(2)]
    both = _LMCL(comparison, first_batch=1)  # of 50; the matching takes its steps in the batches 0
    optimizer, losses = sgd([p for module in both.modules for p in module.parameters()], 5e-4), []
    for batch in data:
        both.train(batch, optimizer, standing(both.matching.parameters()))
        losses.append(torch.as_tensor(both.counters["train_loss"].avg))
    both.method._batches = 1
    groups = both.distiller.players(lr=0.1, weight_decay=5e-4)
    optimizers = {player: sgd(own, 5e-4) for player, own in groups.items()}
    found = [both.distiller.step(*batch, progress(10), optimizers).losses["peers"] for batch in data]
    compared = "two ResNet-8 with three layers each, no step of the matching"
    record(comparison, compared, Steps(losses, both.theirs), Steps(found, both.ours))

    left_out = "theirs without the main step on the batch"
    for momentum, decay, changed in (
        (0.9, 5e-4, left_out),
        (0.0, 5e-4, f"{left_out}; both without momentum in the unrolled steps"),
        (0.9, 1.0, f"{left_out}; both with a weight decay of 1 in the unrolled steps"),
    ):
        both = _LMCL(comparison, momentum=momentum, decay=decay)
        own = list(both.matching.parameters())
        both.train(data[0], standing([nn.Parameter(torch.zeros(1))]), standing(own))
        with patch.multiple(l_mcl_module, MOMENTUM=momentum, WEIGHT_DECAY=decay):
            loss = both.distiller(*data[0], progress(0)).losses["matching"]
        gradient = gradients(loss, list(both.method.matching.parameters()))
        compared = "gradient of the matching, through three unrolled steps"
        comparison.record(compared, Side([], _left(own)), Side([], gradient), changed=changed)


def _left(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


class _LMCL:
    """Both sides with equal weights: two ResNet-8 whose three stages have a layer each."""

    def __init__(
        self, comparison: Comparison, *, first_batch: int = 0, momentum: float = 0.9, decay: float = 5e-4
    ) -> None:
        load, settings = (
            comparison.load,
            options(number_net=2, number_stage=3, feat_dim=128, rep_dim=[64] * 2, **CONTRAST),
        )
        vars(settings).update(meta_freq=50, times=2)
        network = load("models/lmcl_resnet_cifar.py", given=TORCH)
        net = network.multi_ResNet(8, [16, 16, 32, 64], "basicblock", num_classes=CLASSES, number_net=2)
        criterion = load("losses/cifar_sup_layer_mcl_meta_loss.py", given=TORCH).Sup_MCL_Loss_Meta(settings)
        self.matching = load("models/meta_network.py", given=TORCH).LossWeightNetwork([[64] * 3] * 2)
        aggregator = load("models/aggregator.py", given=TORCH).Aggregator([64, 64], 3, 2)
        kl, ce = load("utils.py", "DistillKL", given=TORCH).DistillKL(3.0), nn.CrossEntropyLoss()
        self.modules, self.criteria = [net, criterion, aggregator], [ce, kl, criterion, aggregator]
        given = TORCH | {"optim": torch.optim, "copy": copy}
        unrolled = load("losses/meta_optimizers.py", "_copy", "MetaSGD", given=given).MetaSGD
        learned = [*net.parameters(), *criterion.parameters()]
        sgd_settings = dict(lr=0.1, momentum=momentum, weight_decay=decay)
        self.unrolled = unrolled(learned, [net, criterion], **sgd_settings, rollback=True)
        # As torch did by default when it was written.
        self.unrolled.zero_grad = partial(torch.optim.SGD.zero_grad, self.unrolled, set_to_none=False)
        self.counters = Counters()
        given = TORCH | self.counters.given | dict(args=settings, net=net, LossWeightNetwork=self.matching)
        given |= dict(criterion_mcl=criterion, criterion_ce=ce, enumerate=partial(enumerate, start=first_batch))
        names = "inner_objective", "outer_objective", "train"
        self.loop = load("main_layer_mcl_cifar_meta.py", *names, given=given).train

        self.distiller = resnet8("l_mcl", 2, share=False, blocks=1)
        self.method: Any = self.distiller.method
        self.theirs: list[nn.Module] = []
        self.ours: list[nn.Module] = []
        for i, whole in enumerate(net.module_list):
            b, a, own, peer = (
                whole.backbone,
                whole.auxiliary_classifier,
                self.method.layers[i],
                self.distiller.cohort.peer(i),
            )
            self.theirs += [b.conv1, b.bn1, b.layer1, b.layer2, b.layer3, b.fc]
            self.theirs += [a.block_extractor1, a.block_extractor2, a.fc1, a.fc2]
            self.theirs += [*(e.proj_head for e in criterion.embed_list[i]), getattr(aggregator, f"proj_head_{i}")]
            self.ours += [peer.stages, peer.head, *own.refine, *own.classifiers]
            self.ours += [*(e.mlp for e in own.embeddings), self.method.aggregators[i].mlp]
        copied([*self.theirs, self.matching], [*self.ours, self.method.matching])

    def train(self, batch: tuple[Tensor, Tensor], optimizer: torch.optim.SGD, of_matching: torch.optim.SGD) -> None:
        """Their loop over one batch."""
        self.loop.__globals__.update(trainloader=[batch], optimizer=optimizer)
        with silence():
            self.loop(0, self.criteria, None, self.unrolled, of_matching)


def ffsd(comparison: Comparison) -> None:
    for kept, changed in ((False, ""), (True, "theirs leaves all of the lowest third where it is")):
        run, theirs, distiller, ours = _ffsd(comparison)
        data, epochs = batches(4), (1, 3, 5, 200)
        sign = (lambda x: torch.where(x == 0, -1.0, x.sign())) if kept else torch.sign
        for batch, epoch in zip(data, epochs, strict=True):
            run.trainLoader = Batches([batch])
            run.lambda_warmup(epoch)
            with silence(), patch.object(torch, "sign", sign):
                run.train_with_test(epoch)
        players = distiller.players(lr=0.1, weight_decay=1e-4)
        optimizers = {"peers": sgd(players["peers"]), "decoders": _adam(players["decoders"])}
        for batch, epoch in zip(data, epochs, strict=True):
            distiller.step(*batch, progress(epoch), optimizers)
        counted = "ours with epochs counted from 1"
        compared = "two students and a leader, ResNet-8: weights and statistics after 4 steps in epochs 1 to 200"
        changes = f"{counted}; {changed}" if changed else counted
        comparison.record(compared, state(theirs), state(ours), changed=changes)


_adam = partial(torch.optim.Adam, weight_decay=1e-4)


def _ffsd(comparison: Comparison) -> tuple[Any, Held, Distiller, Held]:
    """Its trainer and ours with equal weights, each with all that learns."""
    given = TORCH | {"OrderedDict": dict, "optim": torch.optim}
    fusion = comparison.load("models/fusion_module.py", given=given)
    decoders = comparison.load("models/self_distillation.py", given=given)
    names = "conv3x3", "conv1x1", "BasicBlock", "Bottleneck", "ResNet"
    heads = {"TransFusionModule": fusion.TransFusionModule}
    network = comparison.load("models/resnet_cifar.py", *names, given=given | heads)
    counters = dict.fromkeys(("accuracy", "average_accuracy", "ensemble_accuracy"), no_accuracy)
    given["utils"] = SimpleNamespace(AverageMeter=Meter, **counters)
    trainer = comparison.load("CIFARTrainer.py", "Trainer", given=given).Trainer
    run = trainer.__new__(trainer)
    build = partial(network.ResNet, network.BasicBlock, [1, 1, 1], num_classes=CLASSES)
    run.opt = options(train_batch_size=1, display_id=0)
    vars(run.opt).update(lambda_diversity=1e-5, lambda_fusion=10.0, lambda_self_distillation=1000.0)
    run.logger, run.visualizer, run.device, run.temperature, run.model_num = MagicMock(), MagicMock(), "cpu", 2.0, 2
    run.train_batch_size = 1
    run.criterion_CE, run.criterion_KL = nn.CrossEntropyLoss(), nn.KLDivLoss(reduction="batchmean")
    run.models, run.leader_model = [build(), build()], build(leader=True, trans_fusion_info=(64, 2))
    run.fusion_module = fusion.FusionModule(64, CLASSES, 8, model_num=2)
    decoder = partial(decoders.SelfDistillationModel, 64, 2)
    run.sd_models, run.sd_leader_model = [decoder()], decoder()
    run.optimizers, run.leader_optimizer = [sgd(m.parameters()) for m in run.models], sgd(run.leader_model.parameters())
    run.fusion_optimizer = sgd(run.fusion_module.parameters(), 1e-5)
    run.sd_optimizers = [_adam(m.parameters()) for m in run.sd_models]
    run.sd_leader_optimizer = _adam(run.sd_leader_model.parameters())
    distiller = resnet8("ffsd", 3, share=False)
    method = distiller.method
    theirs: list[nn.Module] = []
    for m in (*run.models, run.leader_model):
        theirs += [m.conv1, m.bn1, m.layer1, m.layer2, m.layer3, m.fc]
    f, t = run.fusion_module, run.leader_model.trans_fusion_module
    theirs += [f.conv1, f.bn1, f.conv1_1, f.bn1_1, f.fc2, t.conv1, t.bn1, t.conv1_1, t.bn1_1]
    theirs += [*run.sd_models, run.sd_leader_model]
    g = method.fusion
    ours = [*parts(distiller), g.depthwise, g.norm1, g.pointwise, g.norm2, g.classifier, method.trans_fusion]
    ours += [method.decoders["1"], method.decoders["2"]]
    copied(theirs, ours)
    return run, theirs, distiller, ours
