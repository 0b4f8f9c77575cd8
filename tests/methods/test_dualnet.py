import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.methods.dualnet import DualNet
from collegium.networks import build

PEERS = pytest.mark.parametrize("peers", [2, 3])
TEACHER = pytest.mark.parametrize("teacher", [False, True])


def fused_logits(method: DualNet, maps: list[np.ndarray]) -> np.ndarray:
    """Mean of the maps, pooled, through the fused classifier."""
    linear = method.fusion.classifier.linear
    pooled = (sum(maps) / len(maps)).mean((2, 3))
    return pooled @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()


def extractors(out, array) -> list[np.ndarray]:
    told = [] if out.teacher is None else [array(out.teacher.features[-1])]
    return [*told, *(array(f) for f in out.last_features)]


@PEERS
@TEACHER
@pytest.mark.parametrize("options", [{}, {"alternate": False}, {"auxiliary": 0.7}])
def test_all_terms_are_the_source_s(naive, array, at, random_outputs, spec_of, labels, peers, teacher, options):
    out = random_outputs(peers, teacher=teacher)
    method = DualNet(spec_of(out), **options)
    terms = method(out, labels, at(1))["peers"]
    y = array(labels)
    ce = options.get("auxiliary", 0.3) * sum(naive.cross_entropy(z, y) for z in array(out.logits))
    fused = naive.cross_entropy(fused_logits(method, extractors(out, array)), y)
    assert list(terms) == ["ce", "ce_fused"]
    assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["ce_fused"].item() == pytest.approx(fused, rel=1e-5)


@PEERS
@TEACHER
def test_predictors_are_the_scores_the_fused_classifier_and_the_mean_probability(
    naive, array, random_outputs, spec_of, peers, teacher
):
    out = random_outputs(peers, teacher=teacher)
    method = DualNet(spec_of(out))
    z_f = fused_logits(method, extractors(out, array))
    z = [*array(out.logits), *([array(out.teacher.logits)] if teacher else [])]
    predicted = {name: array(logits) for name, logits in method.predict(out).items()}
    assert list(predicted) == ["fused", "fused_classifier", "classifiers_mean"]
    mean = sum(naive.softmax(one) for one in (z_f, *z)) / (1 + len(z))
    torch.testing.assert_close(predicted["fused"], z_f + 0.3 * sum(z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted["fused_classifier"], z_f, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(naive.softmax(predicted["classifiers_mean"]), mean, rtol=1e-4, atol=1e-6)


def gradients(method: DualNet, out, labels, progress) -> tuple[list[float], list[float], float]:
    """Size of the gradient of each peer's map, of each peer's logits, of the fused classifier."""
    inputs = [*out.last_features, out.logits, method.fusion.classifier.linear.weight]
    loss = sum(method(out, labels, progress)["peers"].values())
    *maps, logits, fused = torch.autograd.grad(loss, inputs)
    return [g.abs().sum().item() for g in maps], logits.abs().sum((1, 2)).tolist(), fused.abs().sum().item()


@PEERS
@pytest.mark.parametrize("epoch", range(4))
def test_peers_take_turns_by_epoch_and_the_fused_classifier_always_learns(
    at, random_outputs, spec_of, labels, peers, epoch
):
    out = random_outputs(peers)
    maps, logits, fused = gradients(DualNet(spec_of(out)), out, labels, at(epoch))
    turn = [k == epoch % peers for k in range(peers)]
    assert [g > 0 for g in maps] == [g > 0 for g in logits] == turn
    assert fused > 0


@pytest.mark.parametrize(("teacher", "alternate"), [(False, False), (True, True), (True, False)])
def test_all_peers_learn_at_once_without_turns_and_beside_a_teacher(
    naive, array, at, random_outputs, spec_of, labels, teacher, alternate
):
    out = random_outputs(2, teacher=teacher)
    method = DualNet(spec_of(out), alternate=alternate)
    sum(method(out, labels, at(0))["peers"].values()).backward()

    def wrong(z: np.ndarray) -> np.ndarray:
        return (naive.softmax(z) - array(torch.eye(5)[labels])) / 6

    torch.testing.assert_close(array(out.logits.grad), 0.3 * wrong(array(out.logits)), rtol=1e-4, atol=1e-6)
    maps = extractors(out, array)
    weight = array(method.fusion.classifier.linear.weight)
    # Each of K maps of 9 places has a share of 1 / 9K in the pooled mean.
    each = wrong(fused_logits(method, maps)) @ weight / (9 * len(maps))
    for f in out.last_features:
        expected = np.broadcast_to(each[:, :, None, None], f.shape)
        torch.testing.assert_close(array(f.grad), expected.copy(), rtol=1e-4, atol=1e-7)


@pytest.fixture
def two_stage() -> tuple[Cohort, DualNet]:
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5)], teacher=build("resnet8", num_classes=5))
    return cohort, DualNet(describe(cohort, (3, 8, 8), 5))


def test_beside_a_teacher_the_fused_classifier_starts_as_the_teacher_s(two_stage):
    cohort, method = two_stage
    ours, theirs = method.fusion.classifier.state_dict(), cohort.teacher.classifier.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_beside_a_teacher_only_the_peers_and_the_fused_classifier_learn(two_stage, at):
    cohort, method = two_stage
    out = cohort.train()(torch.randn(4, 3, 8, 8))
    sum(method(out, torch.arange(4), at(0))["peers"].values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in cohort.teacher.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(p.grad is not None for p in cohort.branches.parameters())


def test_beside_a_teacher_the_fused_classifier_learns_at_a_hundredth_of_the_rate(two_stage, random_outputs, spec_of):
    cohort, method = two_stage
    peers, fused = method.players(cohort)["peers"]
    assert fused["lr_scale"] == 0.01
    assert [id(p) for p in fused["params"]] == [id(p) for p in method.parameters()]
    assert peers.get("lr_scale", 1) == 1
    joint = DualNet(spec_of(random_outputs(2))).players(cohort)["peers"]
    assert [group.get("lr_scale", 1) for group in joint] == [1, 1]


def test_one_extractor_alone_is_refused_with_both_ways_out(random_outputs, spec_of):
    assert DualNet(spec_of(random_outputs(1, teacher=True))).reconstructed == ""
    message = (
        "^DualNet needs two extractors: .*--peers 2xNAME.* one peer and a trained .*--teacher RUN.* two-stage form$"
    )
    with pytest.raises(UsageError, match=message):
        DualNet(spec_of(random_outputs(1)))


def test_unlike_maps_are_refused(random_outputs, spec_of):
    spec = spec_of(random_outputs(2))
    unlike = dataclasses.replace(spec, feature_shapes=(((4, 3, 3),), ((8, 3, 3),)))
    message = "net 4x3x3, net 8x3x3.* fuse them by convolution: --method ffl --method.fusion conv$"
    with pytest.raises(UsageError, match=message):
        DualNet(unlike)
    with pytest.raises(UsageError, match="teacher 9x3x3, net 4x3x3"):
        DualNet(dataclasses.replace(spec, teacher_shapes=((9, 3, 3),)))


def test_a_teacher_whose_classifier_reads_no_map_is_refused(random_outputs, spec_of):
    spec = dataclasses.replace(spec_of(random_outputs(1, teacher=True)), teacher_classifier=None)
    message = (
        "^DualNet's two-stage form starts .* does not read its last map; take .* such as resnet20 or timm/resnet18$"
    )
    with pytest.raises(UsageError, match=message):
        DualNet(spec)
