"""Layer-wise mutual contrastive learning."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from collegium.cohort import Cohort, CohortSpec, PeerOutputs, Rerun
from collegium.errors import UsageError
from collegium.heads import Embedding, Shape
from collegium.layers import BasicBlock, GlobalPoolClassifier
from collegium.losses import class_probabilities, contrastive_loss, cross_entropy, distill
from collegium.method import Method, ParameterGroup, Progress, Terms, not_negative, positive, trainable
from collegium.ranks import gather_batch, mean_over_ranks

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of the unrolled steps
MATCHED_WIDTH = 128
COHORT, LAYERS = "cohort.", "layers."  # how the names of the unrolled weights begin


class Seen(NamedTuple):
    """What M peers say at S layers each, A = M S in all; the layers of one peer stand next to each other."""

    logits: Tensor  # (M, S, B, C)
    pooled: tuple[Tensor, ...]  # layer -> (B, D)
    embedded: Tensor  # (A, B, E), of unit length


class PeerLayers(nn.Module):
    """The auxiliary classifiers and the embeddings of one peer.

    The map of a stage below the last is refined by residual blocks, as many at the shape of each following stage, and
    classified as the last one is.
    """

    def __init__(self, shapes: Sequence[Shape], num_classes: int, embedding: int, blocks: int) -> None:
        super().__init__()
        width = shapes[-1][0]
        self.refine = nn.ModuleList(self._refinement(shapes[k:], blocks) for k in range(len(shapes) - 1))
        self.classifiers = nn.ModuleList(GlobalPoolClassifier(width, num_classes) for _ in self.refine)
        self.embeddings = nn.ModuleList(Embedding(width, embedding) for _ in shapes)

    def _refinement(self, shapes: Sequence[Shape], blocks: int) -> nn.Module:
        layers = []
        for (channels, height, _), (width, smaller, _) in zip(shapes, shapes[1:], strict=False):
            layers.append(BasicBlock(channels, width, math.ceil(height / smaller)))
            layers += [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(*layers)

    def forward(self, features: Sequence[Tensor], logits: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """S maps (B, D_s, H_s, W_s), (B, C) -> logits (B, C), pooled (B, D) and embedded (B, E) for each layer."""
        maps = [*(refine(f) for refine, f in zip(self.refine, features, strict=False)), features[-1]]
        auxiliary = [classify(f).float() for classify, f in zip(self.classifiers, maps, strict=False)]
        embedded = [embed(f) for embed, f in zip(self.embeddings, maps, strict=True)]
        return [*auxiliary, logits], [f.mean((2, 3)) for f in maps], embedded


class CohortLayers(nn.ModuleList):
    """Those of all peers."""

    def forward(self, features: Sequence[Sequence[Tensor]], logits: Tensor) -> Seen:
        """Peer -> stage -> map, (M, B, C) -> their logits, pooled and embedded."""
        by_peer = [layers(features[k], logits[k]) for k, layers in enumerate(self)]
        by_layer, pooled, embedded = zip(*by_peer, strict=True)
        return Seen(
            logits=torch.stack([torch.stack(one) for one in by_layer]),
            pooled=tuple(f for one in pooled for f in one),
            embedded=torch.stack([v for one in embedded for v in one]),
        )


class Aggregator(nn.Module):
    """How much each layer of a peer counts for an image: its pooled maps, linear, ReLU, linear, softmax."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(layers * channels, channels), nn.ReLU(), nn.Linear(channels, layers))

    def forward(self, pooled: Sequence[Tensor], logits: Tensor) -> Tensor:
        """S times (B, D), (S, B, C) -> (B, C)"""
        weights = self.mlp(torch.cat(list(pooled), dim=1)).float().softmax(-1)  # (B, S)
        return cast(Tensor, (weights.T[..., None] * logits).sum(0))


class Matching(nn.Module):
    """How much any two layers learn from each other: the sigmoid of the cosine of their projections."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, MATCHED_WIDTH) for width in widths)

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """A times (B, D) -> (A, A, B)"""
        units = [F.normalize(p(f).float()) for p, f in zip(self.projections, pooled, strict=True)]
        u = gather_batch(torch.stack(units), 1)
        with torch.autocast(u.device.type, enabled=False):
            return torch.einsum("abe,cbe->acb", u, u).sigmoid()


class LMCL(Method):
    r"""Every layer contrasts with every layer of the other peers, by learned weights; aggregated logits teach.

    Peer i has S layers: its last stages, of which those below the last are refined and classified by auxiliary
    modules. With a = (i, k) for layer k of peer i, and (a, b) for layers of two different peers, in both orders,

    .. math:: \tilde z_i = \sum_k \pi_{ik}(x) \, z_{ik}, \qquad
        L_{cls} = \sum_{i, k} CE(z_{ik}, y) + \sum_i CE(\tilde z_i, y), \qquad
        L_{logit} = \sum_{i, j} T^2 KL(\sigma_T(\tilde z_j) \,\|\, \sigma_T(z_{iS}))
    .. math:: L_{mcl} = 2 \sum_{(a, b)} \big[ \alpha \, S_w(s_{aa}) + \gamma \, K_w(s_{aa}, s_{bb})
        + \beta \, S_w(s_{ab}) + \lambda \, K_w(s_{ab}, s_{ba}) \big]
    .. math:: s_{ab}(n, m) = v_a(x_n) \cdot v_b(x_m) / \tau, \qquad
        w_{ab}(n) = \mathrm{sigmoid} \cos\big(\phi_a(h_a(x_n)), \phi_b(h_b(x_n))\big)

    v are embeddings of unit length, h pooled maps, :math:`\phi` linear. S is the contrast of MCL, and
    :math:`K(s, t) = T^2 KL(\sigma_T(t) \,\|\, \sigma_T(s))` the imitation of t, a constant; in both image n counts by
    w(n). The peers descend :math:`L_{cls} + L_{logit} + L_{mcl}`, in which w is a constant. In every n-th batch
    :math:`\phi` takes a step of its own on

    .. math:: \sum_{i, k} CE(z_{ik}, y) \text{ at } \theta_3, \qquad \theta_0 \xrightarrow{L_{mcl}(\phi)} \theta_1
        \xrightarrow{L_{mcl}(\phi)} \theta_2 \xrightarrow{\sum CE} \theta_3

    where the arrows are steps of SGD, on the same batch, of the peers and their layers from where they are now, and
    are forgotten afterwards.

    Source: Yang, An, Zhou, Zhuang, Xu and Zhang, "Online Knowledge Distillation via Mutual Contrastive Learning for
    Visual Recognition", TPAMI 2023, https://arxiv.org/abs/2207.11518; code https://github.com/winycg/L-MCL, whose
    CIFAR form this is. The factor 2 is its: each pair of layers counts from both its sides. The predictors
    ``aggregated0``, ``aggregated1`` and so on are the aggregated logits. The authors train two networks that share no
    layers for 300 epochs with ``--weight-decay 5e-4 --schedule cosine``; as theirs, batches hold two images of every
    class that is in them. The unrolled steps have their momentum, 0.9, their weight decay, 5e-4, and a learning rate
    that falls along a cosine, there from epoch to epoch. Second derivatives are taken through all of them, with several
    processes too; what is imitated stays a constant in these as well, as in the source.

    Differs from the source: the unrolled steps begin at the weights before the peers' own step on the batch, there
    after it. Going back through a step, its code adds the gradient of the momentum to that of the weights whole, where
    the derivative has the weight decay times it, as here. The refinement is made of basic residual blocks for every
    network, there of the network's own. Its best accuracy is that of the best layer and epoch, a peer here is its last
    layer. As in MCL an epoch takes an image once at most, images without another of their class are left out of S, and
    where labels are mixed or smoothed the likeliest class counts.

    Known from: the authors' code; the paper's text was not read.

    When to use: for the most accurate of two networks, where training may cost several times as much: auxiliary
    classifiers in every batch, and four passes with second derivatives in one of 50. Activation checkpointing is
    refused.

    Args:
        spec: the cohort's shapes.
        vcl: alpha, weight of the contrast within each layer.
        soft_vcl: gamma, weight of the imitation of similarities within.
        icl: beta, weight of the contrast between layers.
        soft_icl: lambda, weight of the imitation of similarities between.
        tau: temperature of the similarities.
        temperature: T, softens all that is imitated.
        embedding: width of the embeddings.
        stages: S, how many of the last stages have a layer; 3 are all but the stem of ResNets and wide ResNets for
            small images. Where a network has fewer, as many as it has.
        blocks: residual blocks that refine a map at the shape of each following stage; the source has as many as the
            network itself: 5 for ResNet-32, 9 for ResNet-56.
        meta_interval: n, batches from one step of the weights to the next, counted within an epoch from its first.
        meta_steps: how many unrolled steps follow the contrast, before the one that follows the labels.
        meta_learning_rate: of the unrolled steps, at the beginning of training.
        pairs: whether batches hold two images at least of every class that is in them; the batch size is then even.
    """

    may_rest = frozenset({"matching"})

    def __init__(
        self,
        spec: CohortSpec,
        *,
        vcl: float = 0.1,
        soft_vcl: float = 1.0,
        icl: float = 0.1,
        soft_icl: float = 1.0,
        tau: float = 0.1,
        temperature: float = 3.0,
        embedding: int = 128,
        stages: int = 3,
        blocks: int = 5,
        meta_interval: int = 50,
        meta_steps: int = 2,
        meta_learning_rate: float = 0.1,
        pairs: bool = True,
    ) -> None:
        super().__init__(spec)
        counts = {"embedding": embedding, "stages": stages, "blocks": blocks}
        for name, value in (counts | {"meta_interval": meta_interval, "meta_steps": meta_steps}).items():
            if value < 1:
                raise UsageError(f"LMCL's {name} must be 1 or more, not {value}")
        self.vcl = not_negative("LMCL's vcl", vcl)
        self.soft_vcl = not_negative("LMCL's soft_vcl", soft_vcl)
        self.icl = not_negative("LMCL's icl", icl)
        self.soft_icl = not_negative("LMCL's soft_icl", soft_icl)
        self.tau = positive("LMCL's tau", tau)
        self.temperature = positive("LMCL's temperature", temperature)
        self.meta_interval = meta_interval
        self.meta_steps = meta_steps
        self.meta_learning_rate = positive("LMCL's meta_learning_rate", meta_learning_rate)
        self.images_per_class = 2 if pairs else 1
        self.num_classes = spec.num_classes
        self.stages = min(stages, *map(len, spec.feature_shapes))
        shapes = [shapes[-self.stages :] for shapes in spec.feature_shapes]
        self.layers = CohortLayers(PeerLayers(s, spec.num_classes, embedding, blocks) for s in shapes)
        self.aggregators = nn.ModuleList(Aggregator(s[-1][0], self.stages) for s in shapes)
        self.matching = Matching([s[-1][0] for s in shapes for _ in s])
        peer = torch.arange(spec.num_peers).repeat_interleave(self.stages)
        self.pairs: Tensor  # (2, P), layers of two different peers
        self.register_buffer("pairs", (peer[:, None] != peer).nonzero().T, persistent=False)
        # Second derivatives are not compiled. As a decorator this would load the compiler with every import.
        self._uncompiled_meta = torch.compiler.disable(self._meta)  # type: ignore[no-untyped-call]
        # How many batches of the epoch are over: a tensor for checkpoints, a number that is read without waiting.
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self._batches = 0
        self.register_load_state_dict_post_hook(_read_batches)  # type: ignore[no-untyped-call]

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        own = [*trainable(self.layers), *trainable(self.aggregators)]
        return {"peers": [{"params": [*trainable(cohort), *own]}], "matching": [{"params": trainable(self.matching)}]}

    def after_step(self, cohort: Cohort, step: int, epoch_steps: int) -> None:
        self._batches = step % epoch_steps
        self.batches.fill_(self._batches)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        seen = self.layers(self._last(out), out.logits)
        aggregated = self._aggregate(seen)
        # Not under no_grad: with torch 2.8 the meta step would use what autocast casts there, without gradients.
        weights = self.matching([f.detach() for f in seen.pooled]).detach()
        terms = {
            "ce": cross_entropy(seen.logits, target),
            "ce_aggregated": cross_entropy(aggregated, target),
            "logit_kd": distill(out.logits[:, None], aggregated[None], self.temperature),
            **self._contrast(seen.embedded, target, weights),
        }
        meta = torch.zeros_like(terms["ce"], requires_grad=False)
        if self._batches % self.meta_interval == 0 and out.rerun is not None:
            meta = self._uncompiled_meta(out.rerun, target, progress.fraction)
        return {"peers": terms, "matching": {"ce": meta}}

    def _last(self, out: PeerOutputs) -> list[Sequence[Tensor]]:
        return [stages[-self.stages :] for stages in out.features]

    def _aggregate(self, seen: Seen) -> Tensor:
        """(M, B, C)"""
        s = self.stages
        pairs = zip(self.aggregators, seen.logits, strict=True)
        return torch.stack([aggregate(seen.pooled[i * s : (i + 1) * s], z) for i, (aggregate, z) in enumerate(pairs)])

    def _contrast(self, embedded: Tensor, target: Tensor, weights: Tensor) -> Terms:
        """L_mcl by its four kinds of terms: (A, B, E), labels, (A, A, B)"""
        v = gather_batch(embedded, 1)
        with torch.autocast(v.device.type, enabled=False):
            s = torch.einsum("aie,bje->abij", v, v) / self.tau  # (A, A, B, B)
        classes = gather_batch(target if target.ndim == 1 else target.argmax(1))
        (a, b), layer = self.pairs, torch.arange(len(v), device=v.device)
        own, between, w = s[layer, layer], s[a, b], weights[a, b]
        with_others = torch.zeros_like(weights[0]).index_add(0, a, w)  # what a layer contrasts within is one for all
        return {
            "vcl": 2 * self.vcl * contrastive_loss(own, classes, with_others).sum(),
            "soft_vcl": 2 * self.soft_vcl * distill(own[a], own[b], self.temperature, w),
            "icl": 2 * self.icl * contrastive_loss(between, classes, w).sum(),
            "soft_icl": 2 * self.soft_icl * distill(between, s[b, a], self.temperature, w),
        }

    def _meta(self, rerun: Rerun, target: Tensor, fraction: Tensor) -> Tensor:
        """The labels' loss after the unrolled steps, as a function of the matching."""
        rate = self.meta_learning_rate * (1 + torch.cos(math.pi * fraction)) / 2
        target = class_probabilities(target, self.num_classes)
        weights = {COHORT + name: p for name, p in rerun.weights.items()}
        weights |= {LAYERS + name: p for name, p in self.layers.named_parameters()}
        velocity = {name: torch.zeros_like(p) for name, p in weights.items()}
        inner, outer = (partial(loss, rerun, target) for loss in (self._inner, self._outer))
        for objective in [inner] * self.meta_steps + [outer]:
            gradients = torch.autograd.grad(
                objective(weights), list(weights.values()), create_graph=True, materialize_grads=True
            )
            of_the_batch = mean_over_ranks(torch.cat([g.flatten() for g in gradients]))
            parts = torch.split(of_the_batch, [g.numel() for g in gradients])
            for name, part in zip(list(weights), parts, strict=True):
                p = weights[name]
                velocity[name] = MOMENTUM * velocity[name] + part.view(p.shape) + WEIGHT_DECAY * p
                weights[name] = p - rate * velocity[name]
        return outer(weights)

    def _inner(self, rerun: Rerun, target: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        seen = self._rerun(rerun, weights)
        return torch.stack(list(self._contrast(seen.embedded, target, self.matching(seen.pooled)).values())).sum()

    def _outer(self, rerun: Rerun, target: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        return cross_entropy(self._rerun(rerun, weights).logits, target)

    def _rerun(self, rerun: Rerun, weights: Mapping[str, Tensor]) -> Seen:
        """The outputs with other weights of peers and layers; running statistics stay as they are."""
        cohort, layers = (
            {name.removeprefix(part): p for name, p in weights.items() if name.startswith(part)}
            for part in (COHORT, LAYERS)
        )
        out = rerun(cohort)
        statistics = {name: b.clone() for name, b in self.layers.named_buffers()}
        return cast(Seen, functional_call(self.layers, {**layers, **statistics}, (self._last(out), out.logits)))

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        aggregated = self._aggregate(self.layers(self._last(out), out.logits))
        return {f"aggregated{i}": z for i, z in enumerate(aggregated)}


def _read_batches(method: nn.Module, _: object) -> None:
    assert isinstance(method, LMCL)
    method._batches = int(method.batches)
