import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.methods.mcl import MCL, contrastive_loss
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.loop import Interrupted, Run
from collegium.training.recipe import Recipe
from collegium.training.run import restore, train
from collegium.training.run_folder import RunFolder

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])  # the fourth image is the only one of its class


def embedded(method: MCL, out: PeerOutputs, array) -> list[np.ndarray]:
    vectors = []
    for embed, f in zip(method.embeddings, out.last_features, strict=True):
        first, _, second = embed.mlp
        x = np.maximum(array(f).mean((2, 3)) @ array(first.weight).T + array(first.bias), 0)
        x = x @ array(second.weight).T + array(second.bias)
        vectors.append(x / np.sqrt((x**2).sum(1, keepdims=True)))
    return vectors


def supervised_contrast(s: np.ndarray, y: np.ndarray) -> float:
    losses = []
    for i in range(len(y)):
        rest = [j for j in range(len(y)) if j != i]
        alike = [j for j in rest if y[j] == y[i]]
        if alike:
            scale = np.log(sum(np.exp(s[i, j]) for j in rest))
            losses.append(-np.mean([s[i, p] - scale for p in alike]))
    return float(np.mean(losses))


@PEERS
@pytest.mark.parametrize(
    ("options", "weights", "tau", "temperature"),
    [
        ({}, (0.1, 1, 0.1, 1), 0.1, 3),
        (
            {"vcl": 0.3, "soft_vcl": 0.5, "icl": 2.0, "soft_icl": 0.7, "tau": 0.2, "temperature": 2.0, "embedding": 5},
            (0.3, 0.5, 2, 0.7),
            0.2,
            2,
        ),
    ],
)
def test_all_terms_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, peers, options, weights, tau, temperature
):
    out = random_outputs(peers)
    method = MCL(spec_of(out), logit_kd=True, **options)
    terms = method(out, LABELS, at(0))["peers"]
    z, y, v = array(out.logits), array(LABELS), embedded(method, out, array)
    s = {(a, b): v[a] @ v[b].T / tau for a in range(peers) for b in range(peers)}
    unlike = [(a, b) for a, b in s if a != b]
    expected = {
        "ce": sum(naive.cross_entropy(one, y) for one in z),
        "vcl": weights[0] * sum(supervised_contrast(s[a, a], y) for a in range(peers)),
        "soft_vcl": weights[1] * sum(naive.kd(s[a, a], s[b, b], temperature) for a, b in unlike),
        "icl": weights[2] * sum(supervised_contrast(s[a, b], y) for a, b in unlike),
        "soft_icl": weights[3] * sum(naive.kd(s[a, b], s[b, a], temperature) for a, b in unlike),
        "logit_kd": sum(naive.kd(one, z.mean(0), temperature) for one in z),
    }
    assert list(terms) == list(expected)
    assert v[0].shape == (6, options.get("embedding", 128))
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name


def test_logits_are_not_imitated_unless_asked(at, random_outputs, spec_of):
    out = random_outputs(2)
    assert list(MCL(spec_of(out))(out, LABELS, at(0))["peers"]) == ["ce", "vcl", "soft_vcl", "icl", "soft_icl"]


def test_a_batch_without_two_images_of_a_class_has_no_contrast_and_no_bad_gradient(at, random_outputs, spec_of):
    out = random_outputs(2, batch=5)
    terms = MCL(spec_of(out))(out, torch.arange(5), at(0))["peers"]
    assert terms["vcl"].item() == terms["icl"].item() == 0
    sum(terms.values()).backward()
    assert all(f.grad.isfinite().all() and f.grad.any() for f in out.last_features)


def test_the_likeliest_class_of_a_mixed_label_counts(at, random_outputs, spec_of):
    out = random_outputs(2)
    torch.manual_seed(0)
    hard = MCL(spec_of(out))(out, LABELS, at(0))["peers"]
    torch.manual_seed(0)
    soft = MCL(spec_of(out))(out, 0.7 * torch.eye(5)[LABELS] + 0.3 / 5, at(0))["peers"]
    assert {name: hard[name] for name in hard if name != "ce"} == {name: soft[name] for name in soft if name != "ce"}


def test_contrast_is_least_where_like_images_are_near():
    classes = torch.tensor([0, 0, 1, 1])
    near = torch.eye(2)[classes] @ torch.eye(2)[classes].T * 3
    # Each image has one other of its class and two of the other, which are 3 farther or 3 nearer.
    assert contrastive_loss(near, classes).item() == pytest.approx(np.log(1 + 2 * np.exp(-3)), rel=1e-5)
    assert contrastive_loss(-near, classes).item() == pytest.approx(np.log(1 + 2 * np.exp(3)), rel=1e-5)
    assert contrastive_loss(torch.zeros(3, 4, 4), classes).tolist() == pytest.approx([np.log(3)] * 3)


def test_contrast_agrees_with_finite_differences():
    s = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, LABELS), [s])


def test_contrast_trains_both_peers_of_a_pair(at, random_outputs, spec_of):
    out = random_outputs(2)
    terms = MCL(spec_of(out))(out, LABELS, at(0))["peers"]
    for term in ("vcl", "icl"):
        gradients = torch.autograd.grad(terms[term], out.last_features, retain_graph=True)
        assert all(g.any() for g in gradients)
        assert torch.autograd.grad(terms[term], out.logits, retain_graph=True, allow_unused=True) == (None,)


@PEERS
def test_what_is_imitated_stands_still(naive, array, at, random_outputs, spec_of, peers):
    """The gradient of the features is that of similarities which move towards constants."""
    out = random_outputs(peers)
    method = MCL(spec_of(out))
    terms = method(out, LABELS, at(0))["peers"]
    v = [torch.from_numpy(x).requires_grad_() for x in embedded(method, out, array)]
    heads = [embed(f) for embed, f in zip(method.embeddings, out.last_features, strict=True)]
    for term in ("soft_vcl", "soft_icl"):
        total = torch.zeros((), dtype=torch.float64)
        for a in range(peers):
            for b in range(peers):
                if a == b:
                    continue
                first, second = ((a, a), (b, b)) if term == "soft_vcl" else ((a, b), (b, a))
                live, told = (v[i] @ v[j].T / 0.1 for i, j in (first, second))
                q, p = (naive.softmax(array(x) / 3) for x in (live, told))
                total = total + (live * torch.from_numpy(3 * (q - p) / 6)).sum()  # the closed form of d KL / d live
        wanted = torch.autograd.grad(total, v)
        expected = torch.autograd.grad(heads, list(out.last_features), [g.float() for g in wanted], retain_graph=True)
        found = torch.autograd.grad(terms[term], list(out.last_features), retain_graph=True)
        for g, e in zip(found, expected, strict=True):
            torch.testing.assert_close(g, e, rtol=1e-3, atol=1e-6)


def test_peers_with_equal_embeddings_have_nothing_to_imitate(at, random_outputs, spec_of):
    out = random_outputs(2)
    equal = dataclasses.replace(out, features=(out.features[0],) * 2)
    method = MCL(spec_of(out))
    method.embeddings[1].load_state_dict(method.embeddings[0].state_dict())
    terms = method(equal, LABELS, at(0))["peers"]
    assert terms["soft_vcl"].item() == 0 and abs(terms["soft_icl"].item()) < 1e-6
    assert terms["icl"].item() == pytest.approx(terms["vcl"].item(), rel=1e-5)


def test_unlike_peers_have_embeddings_of_one_width(at):
    spec = CohortSpec(("net", "other"), 5, (((4, 3, 3),), ((7, 2, 5),)))
    out = PeerOutputs(torch.randn(2, 6, 5), ((torch.randn(6, 4, 3, 3),), (torch.randn(6, 7, 2, 5),)))
    assert all(term.isfinite() for term in MCL(spec)(out, LABELS, at(0))["peers"].values())


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"temperature": -1.0}, {"embedding": 0}])
def test_impossible_settings_are_refused(random_outputs, spec_of, options):
    with pytest.raises(UsageError, match=f"MCL's {next(iter(options))}"):
        MCL(spec_of(random_outputs(2)), **options)


@pytest.mark.parametrize("pairs", [True, False])
def test_in_the_loop_every_image_has_another_of_its_class(tmp_path, pairs):
    method = {"name": "mcl", "pairs": pairs}
    recipe = Recipe.from_dict(
        dict(method=method, peers="2xresnet8", data={"name": "digits", "per_class": 7}, batch_size=12, device="cpu")
    )
    running = Run(build(recipe), RunFolder(tmp_path), make_fabric(recipe), quiet=True)
    counts = [torch.bincount(target, minlength=10) for _, target in running.training_batches.epoch(0)]
    assert len(counts) == 5
    held = torch.stack(counts)
    assert set(held.flatten().tolist()) == {0, 2} if pairs else bool((held == 1).any())


def test_batches_that_pairs_do_not_fill_are_refused(tmp_path):
    recipe = Recipe.from_dict(dict(method={"name": "mcl"}, peers="2xresnet8", batch_size=21, device="cpu"))
    with pytest.raises(UsageError, match="the batch size is 21, .* a multiple of 2"):
        Run(build(recipe), RunFolder(tmp_path), make_fabric(recipe), quiet=True)


def test_a_run_on_pairs_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    recipe = Recipe.from_dict(
        dict(
            method={"name": "mcl"},
            peers="2xresnet8",
            data={"name": "digits", "per_class": 7},
            batch_size=12,
            epochs=2,
            device="cpu",
        )
    )
    train(recipe, tmp_path / "whole", quiet=True)
    step = Run.train_step

    def stop(self, *arguments):
        step(self, *arguments)
        self.stop_requested = (self.epoch, self.step) == (1, 2)

    monkeypatch.setattr(Run, "train_step", stop)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    train(recipe, tmp_path / "run", quiet=True)
    whole, again = (restore(tmp_path / name).learner.state_dict() for name in ("whole", "run"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_defaults_are_the_authors(random_outputs, spec_of):
    method = MCL(spec_of(random_outputs(2)))
    weights = (method.vcl, method.soft_vcl, method.icl, method.soft_icl, method.tau, method.temperature)
    assert weights == (0.1, 1, 0.1, 1, 0.1, 3)
    assert method.images_per_class == 2 and method.logit_kd is False
    assert MCL(spec_of(random_outputs(2)), embedding=1)


def test_the_images_of_all_processes_are_contrasted(monkeypatch, at, random_outputs, spec_of):
    out = random_outputs(2)
    method = MCL(spec_of(out)).eval()
    whole = {name: term.item() for name, term in method(out, LABELS, at(0))["peers"].items()}
    # This process has the first half of the batch, and is given the embeddings of the other half.
    halves = [
        dataclasses.replace(out, logits=out.logits[:, k], features=tuple((f[k],) for (f,) in out.features))
        for k in (slice(3), slice(3, None))
    ]
    embedded = torch.stack([e(f) for e, f in zip(method.embeddings, halves[1].last_features, strict=True)])
    other = {3: embedded, 1: LABELS[3:]}
    monkeypatch.setattr("collegium.methods.mcl.gather_batch", lambda x, dim=0: torch.cat([x, other[x.ndim]], dim))
    found = method(halves[0], LABELS[:3], at(0))["peers"]
    for name in ("vcl", "soft_vcl", "icl", "soft_icl"):
        assert found[name].item() == pytest.approx(whole[name], rel=1e-5), name
