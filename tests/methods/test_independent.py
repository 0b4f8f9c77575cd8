import pytest
import torch

from collegium.methods.independent import Independent


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_every_peer_learns_from_the_labels_alone(naive, array, at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    terms = Independent(spec_of(out))(out, labels, at(0))
    expected = sum(naive.cross_entropy(z, array(labels)) for z in array(out.logits))
    assert list(terms) == ["peers"] and list(terms["peers"]) == ["ce"]
    assert terms["peers"]["ce"].item() == pytest.approx(expected, rel=1e-5)


def test_a_peer_s_gradient_does_not_depend_on_the_others(naive, array, at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    Independent(spec_of(out))(out, labels, at(0))["peers"]["ce"].backward()
    expected = (naive.softmax(array(out.logits)) - array(torch.eye(5)[labels])) / 6
    torch.testing.assert_close(array(out.logits.grad), expected, rtol=1e-4, atol=1e-7)
