import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import PeerOutputs
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.method import Shadow
from collegium.methods.codistillation import Codistillation
from collegium.methods.dml import DML

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])
TEMPERATURE = pytest.mark.parametrize("temperature", [1.0, 3.0])


@pytest.fixture
def with_copies(random_outputs):
    """with_copies(peers): outputs beside those of stale copies."""

    def make(peers: int) -> PeerOutputs:
        stale = torch.randn(peers, 6, 5, generator=torch.Generator().manual_seed(9)).requires_grad_()
        return dataclasses.replace(random_outputs(peers), shadow=stale)

    return make


def mean_of_the_others(naive, z: np.ndarray, temperature: float) -> np.ndarray:
    q = naive.softmax(z / temperature)
    return np.stack([sum(q[j] for j in range(len(z)) if j != i) / (len(z) - 1) for i in range(len(z))])


@PEERS
@TEMPERATURE
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_every_peer_imitates_the_mean_prediction_of_the_others_copies(
    naive, array, at, with_copies, spec_of, labels, peers, temperature, weight
):
    out = with_copies(peers)
    method = Codistillation(spec_of(out), temperature=temperature, weight=weight)
    terms = method(out, labels, at(200))["peers"]
    z, p = array(out.logits), mean_of_the_others(naive, array(out.shadow), temperature)
    q = naive.softmax(z / temperature)
    psi = sum(temperature**2 * (p[i] * (np.log(p[i]) - np.log(q[i]))).sum(-1).mean() for i in range(peers))
    assert list(terms) == ["ce", "psi"]
    assert terms["ce"].item() == pytest.approx(sum(naive.cross_entropy(one, array(labels)) for one in z), rel=1e-5)
    assert terms["psi"].item() == pytest.approx(weight * psi, rel=1e-5)


@PEERS
@TEMPERATURE
def test_the_copies_stand_still(naive, array, at, with_copies, spec_of, labels, peers, temperature):
    out = with_copies(peers)
    Codistillation(spec_of(out), temperature=temperature)(out, labels, at(200))["peers"]["psi"].backward()
    p = mean_of_the_others(naive, array(out.shadow), temperature)
    expected = temperature * (naive.softmax(array(out.logits) / temperature) - p) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-6)
    assert out.shadow.grad is None


@pytest.mark.parametrize("burn_in", [0.0, 0.1, 0.5, 1.0])
def test_imitation_begins_after_the_burn_in(at, with_copies, spec_of, labels, burn_in):
    out = with_copies(2)
    method = Codistillation(spec_of(out), burn_in=burn_in)
    for epoch in range(10):
        psi = method(out, labels, at(epoch, 10))["peers"]["psi"]
        assert (psi.item() > 0) == (epoch / 10 >= burn_in)
    assert Codistillation(spec_of(out)).burn_in == 0.1


@PEERS
def test_without_copies_it_is_mutual_learning_from_the_mean_of_the_others(at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    method = Codistillation(spec_of(out), every=0, burn_in=0.0)
    mutual = DML(spec_of(out), target="ensemble")(out, labels, at(0))["peers"]
    assert method.shadow is None
    torch.testing.assert_close(method(out, labels, at(0))["peers"], {"ce": mutual["ce"], "psi": mutual["mutual"]})


def test_copies_that_say_the_same_cost_nothing(at, with_copies, spec_of, labels):
    out = with_copies(3)
    equal = dataclasses.replace(out, logits=out.logits[:1].expand(3, -1, -1), shadow=out.logits[:1].expand(3, -1, -1))
    assert abs(Codistillation(spec_of(out))(equal, labels, at(200))["peers"]["psi"].item()) < 1e-5


def test_copies_are_exchanged_whole_and_only_now_and_then(at, with_copies, spec_of):
    assert Codistillation(spec_of(with_copies(2))).shadow == Shadow(decay=0, every=50)
    torch.manual_seed(0)
    learner = Distiller(Codistillation, "2xresnet8", image_shape=(3, 8, 8), num_classes=5, every=3, burn_in=0.0)
    cohort = learner.cohort
    images, target = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(cohort.parameters(), lr=0.1)
    first = cohort(images).logits.detach()
    for step in range(1, 5):
        terms, now = learner(images, target, at(0))
        told = first if step < 4 else now  # the exchange follows the third step
        expected = learner.method(dataclasses.replace(cohort(images), shadow=told), target, at(0))
        torch.testing.assert_close(terms["peers"]["psi"], expected["peers"]["psi"], rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        sum(terms["peers"].values()).backward()
        optimizer.step()
        learner.after_step(step, epoch_steps=10)


def test_a_negative_interval_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="every -1 steps; take 1 or more, or 0"):
        Codistillation(spec_of(random_outputs(2)), every=-1)


def test_a_burn_in_that_is_no_share_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="Codistillation's burn_in must be a share from 0 to 1, not 3000"):
        Codistillation(spec_of(random_outputs(2)), burn_in=3000)
