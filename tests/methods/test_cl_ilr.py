import dataclasses

import pytest
import torch
from torch import Tensor

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.methods.cl_ilr import CLILR
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3])


def cohort_of(peers: int, share_until: str | None = "stage2") -> Cohort:
    torch.manual_seed(0)
    return Cohort([build("resnet8", num_classes=5) for _ in range(peers)], share_until=share_until)


def gradients(cohort: Cohort, at, *, times: int = 1, **options: object) -> dict[str, Tensor]:
    """Of every weight, after the players were asked for ``times`` times."""
    method = CLILR(describe(cohort, (3, 8, 8), 5), **options)
    for _ in range(times):
        method.players(cohort)
    cohort.zero_grad()
    sum(method(cohort(IMAGES), TARGET, at(0))["peers"].values()).backward()
    return {name: p.grad.clone() for name, p in cohort.named_parameters()}


@PEERS
@pytest.mark.parametrize(
    ("options", "temperature", "beta"),
    [({}, 2, 0.5), ({"temperature": 3.0, "beta": 0.2}, 3, 0.2), ({"beta": 1.0}, 2, 1)],
)
def test_every_head_learns_from_the_labels_and_the_mean_of_the_others(
    naive, array, at, random_outputs, spec_of, labels, peers, options, temperature, beta
):
    out = random_outputs(peers)
    terms = CLILR(spec_of(out), **options)(out, labels, at(0))["peers"]
    z = array(out.logits)
    assert list(terms) == ["hard", "soft"]
    hard = beta * sum(naive.cross_entropy(one, array(labels)) for one in z)
    rest = [sum(z[j] for j in range(peers) if j != i) / (peers - 1) for i in range(peers)]
    soft = (1 - beta) * sum(naive.kd(z[i], rest[i], temperature) for i in range(peers))
    assert terms["hard"].item() == pytest.approx(hard, rel=1e-5)
    assert terms["soft"].item() == pytest.approx(soft, rel=1e-4, abs=1e-7)


@PEERS
def test_each_head_moves_towards_the_others_which_stand_still(naive, array, at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    CLILR(spec_of(out))(out, labels, at(0))["peers"]["soft"].backward()
    z = array(out.logits)
    rest = naive.softmax((z.sum(0) - z) / (peers - 1) / 2)
    expected = 0.5 * 2 * (naive.softmax(z / 2) - rest) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-6)


def test_heads_that_agree_teach_each_other_nothing(at, random_outputs, spec_of, labels):
    out = random_outputs(4)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(4, -1, -1))
    assert abs(CLILR(spec_of(out))(equal, labels, at(0))["peers"]["soft"].item()) < 1e-5


@PEERS
@pytest.mark.parametrize("times", [1, 3])
def test_the_trunk_gets_the_gradient_of_the_output_divided_by_the_heads(at, peers, times):
    plain = gradients(cohort_of(peers), at, rescale=False)
    rescaled = gradients(cohort_of(peers), at, times=times)
    assert any(name.startswith("trunk") for name in plain)
    for name, gradient in plain.items():
        share = 1 / peers if name.startswith("trunk") else 1
        torch.testing.assert_close(rescaled[name], gradient * share, rtol=1e-4, atol=1e-6)


def test_dividing_the_gradient_of_the_trunk_s_weights_is_dividing_that_of_its_output(at):
    cohort = cohort_of(3)
    expected = gradients(cohort_of(3), at)
    out = cohort(IMAGES)
    out.trunk.register_hook(lambda gradient: gradient / 3)
    terms = CLILR(describe(cohort, (3, 8, 8), 5))(out, TARGET, at(0))["peers"]
    sum(terms.values()).backward()
    for name, parameter in cohort.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_in_a_tree_the_gradient_is_divided_at_every_split_by_what_meets_there(at):
    """As the paper does it: the outputs of trunk and limbs are forwarded as they are, and halve what comes back."""
    cohort = cohort_of(4, "stage1,stage2")
    expected = gradients(cohort_of(4, "stage1,stage2"), at)
    method = CLILR(describe(cohort, (3, 8, 8), 5))
    for part, _ in cohort.shared:
        last = list(part.values())[-1]
        last.register_forward_hook(lambda *call: call[2].register_hook(lambda gradient: gradient / 2) and None)
    sum(method(cohort(IMAGES), TARGET, at(0))["peers"].values()).backward()
    for name, parameter in cohort.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rescale", [True, False])
def test_every_part_of_a_tree_gets_its_heads_gradients_or_their_mean(at, rescale):
    """By hand: the losses are sums over heads, each head's loss teaches its own logits alone."""
    found = gradients(cohort_of(4, "stage1,stage2"), at, rescale=rescale)
    cohort = cohort_of(4, "stage1,stage2")
    z = cohort(IMAGES).logits
    label = torch.nn.functional.one_hot(TARGET, 5)
    rest = torch.stack([(z.sum(0) - z[k]) / 3 for k in range(4)]).detach()
    p, q = (z / 2).softmax(-1), (rest / 2).softmax(-1)
    with torch.no_grad():
        towards = (0.5 * (z.softmax(-1) - label) + 0.5 * 2 * (p - q)) / len(TARGET)  # dL / dz
    named = {id(p): name for name, p in cohort.named_parameters()}
    counted = 0
    for part, heads in [*cohort.shared, *((branch, [k]) for k, branch in enumerate(cohort.branches))]:
        weights = list(part.parameters())
        each = [torch.autograd.grad(z[h], weights, towards[h], retain_graph=True) for h in heads]
        for weight, *by_head in zip(weights, *each, strict=True):
            expected = sum(by_head) / (len(heads) if rescale else 1)
            torch.testing.assert_close(found[named[id(weight)]], expected, rtol=1e-3, atol=1e-6)
            counted += 1
    assert counted == len(found)


@pytest.mark.parametrize("times", [1, 3])
def test_a_tree_is_rescaled_once_however_often_its_players_are_asked_for(at, times):
    cohort = cohort_of(4, "stem,stage2")
    found = gradients(cohort, at, times=times)
    plain = gradients(cohort_of(4, "stem,stage2"), at, rescale=False)
    for name, gradient in plain.items():
        share = {"trunk": 1 / 4, "limbs": 1 / 2, "branches": 1}[name.partition(".")[0]]
        torch.testing.assert_close(found[name], gradient * share, rtol=1e-4, atol=1e-6)


def test_asked_again_without_rescaling_it_takes_the_rescaling_away(at):
    cohort = cohort_of(2)
    method = CLILR(describe(cohort, (3, 8, 8), 5))
    method.players(cohort)
    method.rescale = False
    method.players(cohort)
    found = gradients(cohort, at, rescale=False)
    torch.testing.assert_close(found, gradients(cohort_of(2), at, rescale=False))


def test_peers_without_a_trunk_learn_each_at_its_own_pace(at):
    plain = gradients(cohort_of(3, None), at, rescale=False)
    torch.testing.assert_close(gradients(cohort_of(3, None), at), plain)


def test_rescaling_serves_a_gradient_that_is_asked_for_by_name_too(at):
    cohort = cohort_of(2)
    expected = gradients(cohort_of(2), at)
    method = CLILR(describe(cohort, (3, 8, 8), 5))
    method.players(cohort)
    total = sum(method(cohort(IMAGES), TARGET, at(0))["peers"].values())
    found = torch.autograd.grad(total, list(cohort.parameters()))
    for name, gradient in zip(dict(cohort.named_parameters()), found, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_beta_that_is_no_share_is_refused(random_outputs, spec_of, beta):
    with pytest.raises(UsageError, match=f"CLILR's beta must be a share from 0 to 1, not {beta}"):
        CLILR(spec_of(random_outputs(2)), beta=beta)
