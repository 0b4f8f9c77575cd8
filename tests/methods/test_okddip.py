import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.methods.okddip import OKDDip
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [3, 4])
MIX = pytest.mark.parametrize("mix", ["logits", "probs"])


def method_of(spec: CohortSpec, **options: object) -> OKDDip:
    """With projections large enough that attention is far from equal."""
    torch.manual_seed(0)
    method = OKDDip(spec, reduction=2, **options)
    for projection in (method.attention.l, method.attention.e):
        torch.nn.init.normal_(projection.weight)
    return method


def alpha(naive, method: OKDDip, features: list[np.ndarray]) -> np.ndarray:
    """(B, listener, listened to), image by image and pair by pair."""
    listen, speak = (p.weight.detach().double().numpy() for p in (method.attention.l, method.attention.e))
    h = [f.mean((2, 3)) for f in features]
    energy = np.array([[[(listen @ a[i]) @ (speak @ b[i]) for b in h] for a in h] for i in range(len(h[0]))])
    return naive.softmax(energy)


def mixtures(naive, weights: np.ndarray, z: np.ndarray, mix: str, temperature: float) -> np.ndarray:
    """What the auxiliary peers are taught, as softened probabilities (K, B, C)."""
    if mix == "logits":
        return naive.softmax(np.einsum("bij,jbc->ibc", weights, z) / temperature)
    return np.einsum("bij,jbc->ibc", weights, naive.softmax(z / temperature))


def kl(q: np.ndarray, p: np.ndarray) -> float:
    return (p * (np.log(p) - np.log(q))).sum(-1).mean(-1).sum()


@PEERS
@MIX
@pytest.mark.parametrize(("epoch", "w"), [(0, math.exp(-5)), (40, math.exp(-1.25)), (80, 1), (299, 1)])
def test_all_terms_are_the_paper_s(naive, array, at, random_outputs, spec_of, labels, peers, mix, epoch, w):
    out = random_outputs(peers)
    method = method_of(spec_of(out), mix=mix)
    terms = method(out, labels, at(epoch))["peers"]
    z = array(out.logits)
    weights = alpha(naive, method, [array(f) for f in out.last_features[:-1]])
    taught = mixtures(naive, weights, z[:-1], mix, 3)
    assert list(terms) == ["ce", "dis1", "dis2"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, array(labels)) for one in z), rel=1e-5)
    assert terms["dis1"].item() == pytest.approx(w * 9 * kl(naive.softmax(z[:-1] / 3), taught), rel=1e-4)
    assert terms["dis2"].item() == pytest.approx(w * naive.kd(z[-1], z[:-1].mean(0), 3), rel=1e-4)


def numerical(f: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """The gradient by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-5
        gradient[i] = (f(x + step) - f(x - step)) / 2e-5
    return gradient


@MIX
@pytest.mark.parametrize("detach", [False, True])
def test_the_targets_learn_too_unless_detached_and_the_attention_always(
    naive, array, at, random_outputs, spec_of, labels, mix, detach
):
    out = random_outputs(3)
    method = method_of(spec_of(out), mix=mix, detach_values=detach, ramp=0.0)
    terms = method(out, labels, at(0))["peers"]
    z, features = array(out.logits), [array(f) for f in out.last_features[:-1]]
    weights = alpha(naive, method, features)

    def level1(x: np.ndarray) -> float:
        taught = mixtures(naive, weights, (z if detach else x)[:-1], mix, 3)
        return 9 * kl(naive.softmax(x[:-1] / 3), taught)

    def level2(x: np.ndarray) -> float:
        return naive.kd(x[-1], (z if detach else x)[:-1].mean(0), 3)

    def by_attention(x: np.ndarray) -> float:
        taught = mixtures(naive, alpha(naive, method, [x, *features[1:]]), z[:-1], mix, 3)
        return 9 * kl(naive.softmax(z[:-1] / 3), taught)

    first, second = (torch.autograd.grad(terms[t], out.logits, retain_graph=True)[0] for t in ("dis1", "dis2"))
    torch.testing.assert_close(array(first), numerical(level1, z), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(array(second), numerical(level2, z), rtol=1e-3, atol=1e-5)
    (listening,) = torch.autograd.grad(terms["dis1"], out.last_features[0], retain_graph=True)
    torch.testing.assert_close(array(listening), numerical(by_attention, features[0]), rtol=1e-3, atol=1e-5)
    for parameter in method.parameters():
        (learned,) = torch.autograd.grad(terms["dis1"], parameter, retain_graph=True)
        assert learned.any()


def test_the_attention_and_the_auxiliaries_do_not_see_the_leader(at, random_outputs, spec_of, labels):
    out = random_outputs(4)
    terms = method_of(spec_of(out))(out, labels, at(80))["peers"]
    (by_logits,) = torch.autograd.grad(terms["dis1"], out.logits, retain_graph=True)
    assert by_logits[:-1].any() and not by_logits[-1].any()
    (by_features,) = torch.autograd.grad(
        sum(terms.values()), out.last_features[-1], retain_graph=True, allow_unused=True
    )
    assert by_features is None


@MIX
def test_attention_to_oneself_alone_teaches_nothing_and_to_all_alike_teaches_the_mean(
    naive, array, at, random_outputs, spec_of, labels, mix
):
    out = random_outputs(3)
    method = method_of(spec_of(out), mix=mix)
    z = array(out.logits)[:-1]
    method.attention.register_forward_hook(lambda *_: torch.full((2, 2), -1e4).fill_diagonal_(0)[..., None])
    assert abs(method(out, labels, at(80))["peers"]["dis1"].item()) < 1e-5
    alike = method_of(spec_of(out), mix=mix)
    torch.nn.init.zeros_(alike.attention.l.weight)
    taught = mixtures(naive, np.full((6, 2, 2), 0.5), z, mix, 3)
    assert alike(out, labels, at(80))["peers"]["dis1"].item() == pytest.approx(
        9 * kl(naive.softmax(z / 3), taught), rel=1e-4
    )


@MIX
def test_equal_peers_cost_nothing(at, random_outputs, spec_of, labels, mix):
    out = random_outputs(4)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(4, -1, -1))
    terms = method_of(spec_of(out), mix=mix)(equal, labels, at(80))["peers"]
    assert abs(terms["dis1"].item()) < 1e-5 and abs(terms["dis2"].item()) < 1e-5


def test_the_leader_is_the_last_peer(random_outputs, spec_of):
    out = random_outputs(4)
    predicted = OKDDip(spec_of(out)).predict(out)
    assert list(predicted) == ["leader", "auxiliaries"]
    assert predicted["leader"].equal(out.logits[3])
    torch.testing.assert_close(predicted["auxiliaries"], (out.logits[0] + out.logits[1] + out.logits[2]) / 3)


@pytest.mark.parametrize(("reduction", "width"), [(8, 8), (16, 4), (100, 1)])
def test_the_projections_are_as_narrow_as_the_authors(reduction, width):
    spec = CohortSpec(("resnet32",) * 4, 100, (((64, 8, 8),),) * 4)
    method = OKDDip(spec, reduction=reduction)
    assert [p.shape for p in method.parameters()] == [(width, 64)] * 2


def test_auxiliary_peers_of_unlike_widths_are_brought_to_the_widest(at, spec_of, labels):
    maps = tuple((torch.randn(6, d, s, s),) for d, s in ((8, 3), (5, 6), (8, 2), (3, 4)))
    out = PeerOutputs(torch.randn(4, 6, 5, requires_grad=True), maps)
    method = OKDDip(spec_of(out))
    terms = method(out, labels, at(80))["peers"]
    assert [tuple(p.shape) for p in method.attention.match.parameters()] == [(8, 5)]
    terms["dis1"].backward()
    assert all(p.grad.any() for p in method.parameters())


def test_a_shared_trunk_and_networks_of_their_own_both_serve(at):
    torch.manual_seed(0)
    for stage in (None, "stage2"):
        cohort = Cohort([build("resnet8", num_classes=5) for _ in range(3)], share_until=stage)
        terms = OKDDip(describe(cohort, (3, 8, 8), 5))(cohort(torch.randn(2, 3, 8, 8)), torch.tensor([0, 1]), at(9))
        assert all(term.isfinite() for term in terms["peers"].values())


@pytest.mark.parametrize("reduction", [0, -1])
def test_a_reduction_below_1_is_refused(random_outputs, spec_of, reduction):
    with pytest.raises(UsageError, match=f"reduction must be 1 or more, not {reduction}"):
        OKDDip(spec_of(random_outputs(3)), reduction=reduction)


def test_the_defaults_are_the_authors(spec_of, random_outputs):
    method = OKDDip(spec_of(random_outputs(3, channels=16)))
    assert (method.temperature, method.ramp, method.mix, method.detach_values) == (3, 80 / 300, "logits", False)
    assert method.attention.l.out_features == 2  # an eighth
    assert OKDDip(spec_of(random_outputs(3)), reduction=1).attention.l.out_features == 4
