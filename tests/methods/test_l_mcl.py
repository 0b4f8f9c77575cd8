import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.methods.l_mcl import LMCL
from collegium.networks import build
from collegium.training.loop import Interrupted, Run
from collegium.training.recipe import Recipe
from collegium.training.run import restore, train

SHAPES = ((4, 6, 6), (4, 6, 6), (6, 3, 3), (8, 2, 2))
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])  # the fourth image is the only one of its class
NAMES = ["ce", "ce_aggregated", "logit_kd", "vcl", "soft_vcl", "icl", "soft_icl"]


def outputs(peers: int) -> tuple[PeerOutputs, CohortSpec]:
    g = torch.Generator().manual_seed(peers)
    maps = tuple(tuple(torch.randn(6, *s, generator=g).requires_grad_() for s in SHAPES) for _ in range(peers))
    spec = CohortSpec(("net",) * peers, 5, (SHAPES,) * peers)
    return PeerOutputs((2 * torch.randn(peers, 6, 5, generator=g)).requires_grad_(), maps), spec


def contrast(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    losses = []
    for i in range(len(y)):
        rest = [j for j in range(len(y)) if j != i]
        alike = [j for j in rest if y[j] == y[i]]
        if alike:
            scale = np.log(sum(np.exp(s[i, j]) for j in rest))
            losses.append(-w[i] * np.mean([s[i, p] - scale for p in alike]))
    return float(np.mean(losses))


def linear(layer: torch.nn.Module, x: np.ndarray, array) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


@pytest.mark.parametrize("peers", [2, 3])
@pytest.mark.parametrize(
    ("options", "weights", "tau", "temperature", "stages"),
    [
        ({}, (0.1, 1, 0.1, 1), 0.1, 3, 3),
        (
            dict(vcl=0.3, soft_vcl=0.5, icl=2.0, soft_icl=0.7, tau=0.2, temperature=2.0, embedding=5, stages=2),
            (0.3, 0.5, 2, 0.7),
            0.2,
            2,
            2,
        ),
        ({"stages": 1}, (0.1, 1, 0.1, 1), 0.1, 3, 1),
    ],
)
def test_all_terms_are_the_paper_s(naive, array, at, peers, options, weights, tau, temperature, stages):
    out, spec = outputs(peers)
    method = LMCL(spec, blocks=1, **options).eval()  # norms by their running statistics
    terms = method(out, LABELS, at(0))["peers"]
    y, logits, pooled, vectors, units = array(LABELS), [], [], [], []
    for i in range(peers):
        layers = method.layers[i]
        maps = [array(r(f)) for r, f in zip(layers.refine, out.features[i][-stages:-1], strict=True)]
        h = [f.mean((2, 3)) for f in (*maps, array(out.features[i][-1]))]
        logits.append([linear(c.linear, x, array) for c, x in zip(layers.classifiers, h, strict=False)])
        logits[i].append(array(out.logits[i]))
        for k, x in enumerate(h):
            v = linear(layers.embeddings[k].mlp[2], np.maximum(linear(layers.embeddings[k].mlp[0], x, array), 0), array)
            u = linear(method.matching.projections[stages * i + k], x, array)
            vectors.append(v / np.sqrt((v**2).sum(1, keepdims=True)))
            units.append(u / np.sqrt((u**2).sum(1, keepdims=True)))
        pooled.append(h)
    aggregated = []
    for i, h in enumerate(pooled):
        first, _, second = method.aggregators[i].mlp
        share = naive.softmax(linear(second, np.maximum(linear(first, np.concatenate(h, 1), array), 0), array))
        aggregated.append(sum(share[:, k : k + 1] * z for k, z in enumerate(logits[i])))
    expected = dict.fromkeys(NAMES, 0.0)
    for i in range(peers):
        expected["ce"] += sum(naive.cross_entropy(z, y) for z in logits[i])
        expected["ce_aggregated"] += naive.cross_entropy(aggregated[i], y)
        expected["logit_kd"] += sum(naive.kd(logits[i][-1], told, temperature) for told in aggregated)
    for a in range(peers * stages):  # pair by pair, both ways, as the authors' loops go
        for b in range(peers * stages):
            if a // stages == b // stages:
                continue
            w = 1 / (1 + np.exp(-(units[a] * units[b]).sum(1)))
            s = {(p, q): vectors[p] @ vectors[q].T / tau for p in (a, b) for q in (a, b)}

            def kd(student: np.ndarray, teacher: np.ndarray, w: np.ndarray = w) -> float:
                rows = [w[n] * naive.kd(student[n : n + 1], teacher[n : n + 1], temperature) for n in range(6)]
                return float(np.mean(rows))

            expected["vcl"] += weights[0] * (contrast(s[a, a], y, w) + contrast(s[b, b], y, w))
            expected["soft_vcl"] += weights[1] * (kd(s[a, a], s[b, b]) + kd(s[b, b], s[a, a]))
            expected["icl"] += weights[2] * (contrast(s[a, b], y, w) + contrast(s[b, a], y, w))
            expected["soft_icl"] += weights[3] * (kd(s[a, b], s[b, a]) + kd(s[b, a], s[a, b]))
    assert list(terms) == NAMES
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name
    predicted = method.predict(out)
    assert list(predicted) == [f"aggregated{i}" for i in range(peers)]
    for z, wanted in zip(predicted.values(), aggregated, strict=True):
        np.testing.assert_allclose(array(z), wanted, rtol=1e-4, atol=1e-5)


def test_a_map_is_refined_at_the_shape_of_every_following_stage():
    method = LMCL(outputs(2)[1], blocks=2)
    refined = [refine(torch.randn(2, *SHAPES[k + 1])).shape[1:] for k, refine in enumerate(method.layers[0].refine)]
    assert refined == [(8, 2, 2), (8, 2, 2)]
    assert [len(refine) for refine in method.layers[0].refine] == [4, 2]


def test_the_weights_of_layers_are_constants_to_the_peers_and_aggregated_logits_to_those_that_imitate_them(at):
    out, spec = outputs(2)
    method = LMCL(spec, blocks=1)
    terms = method(out, LABELS, at(0))["peers"]
    matching = list(method.matching.parameters())
    assert torch.autograd.grad(sum(terms.values()), matching, retain_graph=True, allow_unused=True) == (None,) * 6 * 2
    assert not any(
        g.any()
        for g in torch.autograd.grad(
            terms["logit_kd"], [*method.aggregators.parameters()], retain_graph=True, materialize_grads=True
        )
    )
    own, aux = torch.autograd.grad(
        terms["logit_kd"], [out.logits, method.layers[0].classifiers[0].linear.weight], materialize_grads=True
    )
    assert own.any() and not aux.any()


def test_a_layer_that_imitates_does_not_move_what_it_imitates(at):
    """Similarities within a layer are pulled towards those of the other peers' layers, which stand still."""
    out, spec = outputs(2)
    method = LMCL(spec, stages=1)
    v = torch.nn.functional.normalize(torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(0)), dim=-1)
    weights = torch.zeros(2, 2, 6)
    weights[0, 1] = 1.0  # peer 0 learns from peer 1, and not the other way
    v.requires_grad_()
    (gradient,) = torch.autograd.grad(method._contrast(v, LABELS, weights)["soft_vcl"], v)
    assert gradient[0].any() and not gradient[1].any()


def cohort_and_method(**options: object) -> tuple[Cohort, LMCL, Tensor, Tensor]:
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(2)]).double()
    method = LMCL(describe(cohort, (3, 8, 8), 5), blocks=1, embedding=4, **options).double()
    return cohort, method, torch.randn(6, 3, 8, 8), LABELS


@pytest.fixture
def in_float64(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def outer(cohort: Cohort, method: LMCL, images: Tensor, target: Tensor, rate: float, steps: int) -> Tensor:
    """The labels' loss after steps that an optimizer of torch takes on the weights themselves."""
    parameters = [*cohort.parameters(), *method.layers.parameters()]
    sgd = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4)
    for step in range(steps + 1):
        out = cohort(images)
        seen = method.layers(method._last(out), out.logits)
        if step < steps:
            weights = method.matching(seen.pooled)
            loss = sum(method._contrast(seen.embedded, target, weights).values())
        else:
            loss = sum(torch.nn.functional.cross_entropy(z, target) for z in seen.logits.flatten(0, 1))
        for p in parameters:
            p.grad = torch.zeros_like(p)
        loss.backward()
        sgd.step()
    out = cohort(images)
    seen = method.layers(method._last(out), out.logits)
    return sum(torch.nn.functional.cross_entropy(z, target) for z in seen.logits.flatten(0, 1)).detach()


# What is imitated is a constant of every step, in its derivatives too: of two steps, only the contrasts' are all there.
@pytest.mark.parametrize(
    ("epoch", "rate", "steps", "soft"), [(0, 0.02, 2, {"soft_vcl": 0.0, "soft_icl": 0.0}), (150, 0.01, 1, {})]
)
def test_the_matching_descends_the_labels_loss_after_the_unrolled_steps(in_float64, at, epoch, rate, steps, soft):
    """Value and slope are those that steps of torch's SGD have, the slope by finite differences."""
    cohort, method, images, target = cohort_and_method(meta_steps=steps, meta_learning_rate=0.02, **soft)
    out = cohort(images)
    before = copy.deepcopy([cohort.state_dict(), method.layers.state_dict()])
    progress = at(epoch)._replace(fraction=torch.tensor(epoch / 300, dtype=torch.float64))
    term = method._meta(out.rerun, target, progress.fraction)
    parameters = list(method.matching.parameters())
    gradients = torch.autograd.grad(term, parameters)
    for kept, state in zip(before, (cohort.state_dict(), method.layers.state_dict()), strict=True):
        assert all(torch.equal(kept[name], state[name]) for name in kept)

    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator) for p in parameters]

    def value(size: float) -> float:
        peers, moved = copy.deepcopy([cohort, method])
        for p, d in zip(moved.matching.parameters(), directions, strict=True):
            p.data.add_(d, alpha=size)
        return outer(peers, moved, images, target, rate, steps).item()

    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    assert value(0.0) == pytest.approx(term.item(), rel=1e-10)
    assert slope != 0 and (value(1e-8) - value(-1e-8)) / 2e-8 == pytest.approx(slope, rel=1e-3)


def test_the_matching_takes_a_step_in_every_n_th_batch_of_an_epoch(at):
    cohort, method, images, target = cohort_and_method(meta_interval=3)
    cohort, method, images = cohort.float(), method.float(), images.float()
    steps = []
    for step in range(9):
        term = method(cohort(images), target, at(0))["matching"]["ce"]
        assert term.requires_grad == (term.item() != 0)
        steps.append(term.requires_grad)
        method.after_step(cohort, step + 1, 5)
    assert steps == [True, False, False, True, False, True, False, False, True]
    again = LMCL(describe(cohort, (3, 8, 8), 5), blocks=1, embedding=4, meta_interval=3)
    again.load_state_dict(method.state_dict())
    assert not again(cohort(images), target, at(0))["matching"]["ce"].requires_grad


def test_layers_without_anything_to_run_again_rest(at):
    out, spec = outputs(2)
    assert out.rerun is None and not LMCL(spec, blocks=1)(out, LABELS, at(0))["matching"]["ce"].requires_grad


def test_networks_of_few_stages_and_of_unlike_widths_have_as_many_layers_as_the_smaller(at):
    spec = CohortSpec(("net", "other"), 5, (((3, 8, 8), (4, 3, 3)), ((7, 2, 5),)))
    maps = ((torch.randn(6, 3, 8, 8), torch.randn(6, 4, 3, 3)), (torch.randn(6, 7, 2, 5),))
    method = LMCL(spec)
    assert method.stages == 1
    assert all(
        term.isfinite() for term in method(PeerOutputs(torch.randn(2, 6, 5), maps), LABELS, at(0))["peers"].values()
    )


def test_the_images_of_all_processes_are_contrasted(monkeypatch, at):
    out, spec = outputs(2)
    method = LMCL(spec, blocks=1).eval()
    whole = method(out, LABELS, at(0))["peers"]

    def half(images: slice, gather) -> dict[str, Tensor]:
        monkeypatch.setattr("collegium.methods.l_mcl.gather_batch", gather)
        features = tuple(tuple(f[images] for f in stages) for stages in out.features)
        own = dataclasses.replace(out, logits=out.logits[:, images], features=features)
        return method(own, LABELS[images], at(0))["peers"]

    told: list[Tensor] = []  # what the process of the second half gives, in the order of the calls
    half(slice(3, None), lambda x, dim=0: told.append(x) or x)
    found = half(slice(3), lambda x, dim=0: torch.cat([x, told.pop(0)], dim))
    for name in NAMES[3:]:
        assert found[name].item() == pytest.approx(whole[name].item(), rel=1e-5), name


def test_the_likeliest_class_of_a_mixed_label_counts(at):
    out, spec = outputs(2)
    method = LMCL(spec, blocks=1).eval()
    hard, soft = (method(out, y, at(0))["peers"] for y in (LABELS, 0.7 * torch.eye(5)[LABELS] + 0.3 / 5))
    assert all(torch.equal(hard[name], soft[name]) for name in NAMES[2:])


@pytest.mark.parametrize(
    "options", [{"tau": 0.0}, {"temperature": -1.0}, {"meta_learning_rate": 0.0}]
    + [{name: 0} for name in ("embedding", "stages", "blocks", "meta_interval", "meta_steps")]
)  # fmt: skip
def test_impossible_settings_are_refused(options):
    with pytest.raises(UsageError, match=f"LMCL's {next(iter(options))} must be"):
        LMCL(outputs(2)[1], **options)


RECIPE = dict(
    method={"name": "l_mcl", "blocks": 1, "meta_interval": 2, "embedding": 8},
    peers="2xresnet8",
    data={"name": "digits", "per_class": 7},
    batch_size=12,
    epochs=2,
    device="cpu",
)


def test_a_run_goes_on_in_the_middle_of_an_epoch_and_its_matching_rests_between_its_steps(tmp_path, monkeypatch):
    step, matching = Run.train_step, []

    def watched(self, *arguments):
        step(self, *arguments)
        state = self.players.optimizers["matching"].state_dict()["state"]
        matching.append([x.clone() for x in (*self.learner.method.matching.parameters(), *(
            entry["momentum_buffer"] for entry in state.values()))])  # fmt: skip

    monkeypatch.setattr(Run, "train_step", watched)
    train(Recipe.from_dict(RECIPE), tmp_path / "whole", quiet=True)
    assert len(matching) == 10
    moved = [not all(map(torch.equal, a, b)) for a, b in zip(matching, matching[1:], strict=False)]
    assert moved == [False, True, False, True, True, False, True, False, True]

    def stop(self, *arguments):
        step(self, *arguments)
        self.stop_requested = (self.epoch, self.step) == (1, 1)

    monkeypatch.setattr(Run, "train_step", stop)
    with pytest.raises(Interrupted):
        train(Recipe.from_dict(RECIPE), tmp_path / "run", quiet=True)
    monkeypatch.undo()
    train(Recipe.from_dict(RECIPE), tmp_path / "run", quiet=True)
    whole, again = (restore(tmp_path / name).learner.state_dict() for name in ("whole", "run"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_activation_checkpointing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="needs --activation-checkpointing false"):
        train(
            dataclasses.replace(Recipe.from_dict(RECIPE), activation_checkpointing=True), tmp_path / "run", quiet=True
        )
