"""Methods that read maps, beside the code of others."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from by_logits import CONSTANT, TORCH, taught, train_distill
from sides import (
    BATCH,
    CLASSES,
    Comparison,
    Shape,
    Side,
    Table,
    copied,
    labels,
    left_in,
    logits,
    of,
    progress,
    random,
    says,
    spec,
    terms,
    total,
)
from torch import Tensor, nn

from collegium.losses import attention_transfer
from collegium.methods.ab import AB, boundary_loss
from collegium.methods.afd import AFD
from collegium.methods.at import AT
from collegium.methods.dualnet import DualNet
from collegium.methods.fitnets import FitNets

STUDENT: tuple[Shape, ...] = ((4, 16, 16), (4, 16, 16), (6, 8, 8), (8, 4, 4))  # of a ResNet for small images
TEACHER: tuple[Shape, ...] = ((5, 32, 32), (5, 16, 16), (6, 4, 4), (12, 4, 4))


def student(z: nn.Parameter) -> Table:
    """A network with these logits, whose maps are weights; as RepDistiller's, its last is the pooled feature."""
    return Table(z, [nn.Parameter(random(BATCH, *shape)) for shape in (*STUDENT, (2,))])


def teacher(told: Tensor, shapes: tuple[Shape, ...] = TEACHER) -> Table:
    return Table(nn.Parameter(told), [nn.Parameter(random(BATCH, *shape)) for shape in (*shapes, (2,))])


def at(comparison: Comparison) -> None:
    z, told, y = taught()
    own, taught_by = student(z), teacher(told)
    criterion = comparison.load("distiller_zoo/AT.py", given=TORCH).Attention()
    weights = dict(gamma=1.0, alpha=0.0, beta=1000.0)
    loss = train_distill(comparison, "attention", own, taught_by, y, **weights, criterion=criterion)
    method = AT(spec(1, maps=STUDENT, teacher=TEACHER))
    ours = terms(method, _seen(own, taught_by), y)
    compared = "CE + 1000 attention of three stages of unlike widths and sizes: one step of the training loop"
    leaves = list(own.parameters())
    comparison.record(compared, left_in(loss, leaves), of(total(ours), leaves))


def _seen(own: Table, taught_by: Table) -> Any:
    """What RepDistiller's networks say, as a method sees it: without the pooled feature."""
    return says(
        [own.logits],
        maps=[list(own.maps)[:-1]],
        teacher=(taught_by.logits.detach(), [m.detach() for m in taught_by.maps][:-1]),
    )


def at_authors(comparison: Comparison) -> None:
    code = comparison.load("utils.py", "at", "at_loss", given=TORCH)
    s, t = nn.Parameter(random(BATCH, 4, 8, 8)), random(BATCH, 7, 8, 8)
    comparison.record("attention of two maps", of(code.at_loss(s, t), [s]), of(attention_transfer(s, t), [s]))


def fitnets(comparison: Comparison) -> None:
    criterion = comparison.load("distiller_zoo/FitNet.py", given=TORCH).HintLoss()
    regressors = comparison.load("models/util.py", "ConvReg", given=TORCH)
    for shape, how in (((9, 8, 8), "of its size"), ((9, 4, 4), "half as large"), ((9, 16, 16), "twice as large")):
        z, told, y = taught()
        shapes = (*TEACHER[:2], shape, TEACHER[3])
        own, taught_by = student(z), teacher(told, shapes)
        regress = regressors.ConvReg((BATCH, *STUDENT[2]), (BATCH, *shape))
        method = FitNets(spec(1, maps=STUDENT, teacher=shapes))
        convolution, norm, _ = (m for m in method.modules() if not list(m.children()))
        pairs = copied([regress.conv.weight, regress.bn], [convolution.weight, norm])
        weights = dict(gamma=1.0, alpha=0.0, beta=100.0)
        loss = train_distill(comparison, "hint", own, taught_by, y, **weights, criterion=criterion, between=[regress])
        ours = terms(method, _seen(own, taught_by), y)
        theirs = left_in(loss, [*own.parameters(), *(a for a, _ in pairs)])
        compared = f"CE + 100 hint, the teacher's map {how}: one step of the training loop"
        comparison.record(compared, theirs, of(total(ours), [*own.parameters(), *(b for _, b in pairs)]))


def ab(comparison: Comparison) -> None:
    z, told, y = taught()
    own, taught_by = student(z), teacher(told)
    shapes = [[(BATCH, *shape) for shape in stages[1:]] for stages in (STUDENT, TEACHER)]
    connectors = comparison.load("models/util.py", "ConvReg", "Connector", given=TORCH).Connector(*shapes)
    criterion = comparison.load("distiller_zoo/AB.py", given=TORCH).ABLoss(3)
    method = AB(spec(1, maps=STUDENT, teacher=TEACHER))
    found = [m for connector in reversed(method.connectors[0]) for m in connector]
    theirs_ = [part for c in connectors.connectors for part in (c.conv.weight, c.bn)]
    pairs = copied(theirs_, [m.weight if isinstance(m, nn.Conv2d) else m for m in found])
    maps, told_maps = list(own.maps)[1:-1], [m.detach() for m in taught_by.maps][1:-1]
    loss = sum(criterion(connectors(maps), told_maps))
    ours = terms(method, _seen(own, taught_by), y)
    theirs = of(loss, [*maps, *(a for a, _ in pairs)])
    compared = "boundaries of three stages of unlike widths"
    comparison.record(compared, theirs, of(ours["boundary"], [*maps, *(b for _, b in pairs)]))
    loss = train_distill(comparison, "abound", own, taught_by, y, gamma=1.0, alpha=0.0, beta=0.0, between=[connectors])
    afterwards = terms(method, _seen(own, taught_by), y, progress(200, 270))
    leaves = list(own.parameters())
    compared = "after the initialisation: one step of the training loop"
    comparison.record(compared, left_in(loss, leaves), of(total(afterwards), leaves))


def ab_authors(comparison: Comparison) -> None:
    criterion = comparison.load("cifar10_AB_distillation.py", "criterion_alternative_L2", given=TORCH)
    s, t = nn.Parameter(random(BATCH, 4, 8, 8)), random(BATCH, 4, 8, 8)
    loss = criterion.criterion_alternative_L2(s, t, 1.0) / BATCH
    comparison.record("boundaries of two maps", of(loss, [s]), of(boundary_loss(s, t, 1.0), [s]))


def afd(comparison: Comparison) -> None:
    code = comparison.load("models/models.py", "BaseMethod", "AFD", given=TORCH | {"AverageMeter": None})
    z, y = [logits(BATCH, CLASSES) for _ in range(2)], labels()
    maps = [nn.Parameter(random(BATCH, 512, 5, 5).relu()) for _ in range(2)]
    networks = [Table(own, [own_map]) for own, own_map in zip(z, maps, strict=True)]
    theirs = code.AFD(*networks)
    method = AFD(spec(2, maps=[(512, 5, 5)]), discriminator="reimplemented")
    # Its D_1 calls the first network's maps real, ours those that the first network learns from.
    pairs = copied([theirs.D_2, theirs.D_1], [method.discriminators])
    ours = terms(method, says(z, maps=[[m] for m in maps]), y)
    kl = theirs.compute_kl_loss
    for detached in (False, True):
        told = [own.detach() if detached else own for own in z]
        loss = 9 * (kl(z[1], told[0]) + kl(z[0], told[1]))
        compared = "KL of both networks, T = 3"
        comparison.record(compared, of(loss, z), of(ours["kd"], z), changed=CONSTANT if detached else "")
    judged = theirs.compute_discriminator_loss
    loss = (judged(theirs.D_1, *maps) + judged(theirs.D_2, *maps[::-1])).sum()
    compared = "least squares of both discriminators, for their weights"
    found = total(ours, "real", "fake")
    comparison.record(compared, of(loss, [a for a, _ in pairs]), of(found, [b for _, b in pairs]))
    compared = "what the networks' maps get from the adversarial losses"
    comparison.record(compared, of(loss, maps), of(ours["generator"], maps))


def dualnet(comparison: Comparison) -> None:
    """Caffe is not run: the numbers of the released configuration stand in the equations that its layers are."""
    file = "dualnet-dataset/imagenet/model/nincaffe_res_e2/imagenet_nincaffe_res_e2.prototxt"
    layers = _numbers_of_layers(comparison.clone.text(file))
    z, maps, y = logits(2, BATCH, CLASSES), [nn.Parameter(random(BATCH, 4, 3, 3)) for _ in range(2)], labels()
    method = DualNet(spec(2, maps=[(4, 3, 3)]), alternate=False)
    fused = method.fusion.classifier(sum(c * m for c, m in zip(layers["fuse"], maps, strict=True)))
    all_logits = [(layers["loss_fused"], fused), (layers["loss_coarse"], z[0]), (layers["loss_fine"], z[1])]
    loss = sum(weight * F.cross_entropy(answer, y) for (weight,), answer in all_logits)
    leaves = [z, *maps, *method.parameters()]
    out = says(z, maps=[[m] for m in maps])
    compared = "CE of the fused map + 0.3 CE of each extractor"
    comparison.record(compared, of(torch.as_tensor(loss), leaves), of(total(terms(method, out, y)), leaves))
    (of_parts, of_fused), of_each = layers["score_fuse_2"], layers["score_fuse_1"]
    score = of_fused * fused + of_parts * sum(c * own for c, own in zip(of_each, z, strict=True))
    comparison.record("the fused score", Side([score]), Side([method.predict(out)["fused"]]))


def _numbers_of_layers(text: str) -> dict[str, list[float]]:
    """Layer -> weights of its loss or of what it sums, of a configuration of Caffe."""
    found = {}
    for layer in re.split(r"(?m)^layers? *{", re.sub("#.*", "", text)):
        name, numbers = re.search(r'name: "(.+?)"', layer), re.findall(r"(?:loss_weight|coeff): *([\d.]+)", layer)
        if name and numbers:
            found[name[1]] = [float(number) for number in numbers]
    return found
