import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collegium.losses import (
    attention_map,
    attention_transfer,
    class_probabilities,
    class_weighted,
    contrastive_loss,
    cross_entropy,
    distill,
    divergence,
    mean_prediction,
    others,
    ramp_up,
    same_size,
    standardised,
    unit_attention,
    virtual_teacher,
)

LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32))
TEMPERATURES = st.sampled_from([1.0, 2.0, 3.0, 4.0])
few = settings(max_examples=50, deadline=None, derandomize=True)


def random(*shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(7, 5), (1, 7, 5), (3, 7, 5), (2, 3, 7, 5)])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_the_batch_mean_summed_over_peers(naive, array, shape, soft):
    z = random(*shape)
    target = random(7, 5).softmax(-1) if soft else torch.arange(7) % 5
    expected = sum(naive.cross_entropy(array(one), array(target)) for one in z.view(-1, 7, 5))
    torch.testing.assert_close(cross_entropy(z, target).item(), expected, rtol=1e-5, atol=0)


def test_cross_entropy_has_the_gradient_of_probabilities_minus_labels(naive, array):
    z, target = random(2, 7, 5).requires_grad_(), torch.arange(7) % 5
    cross_entropy(z, target).backward()
    torch.testing.assert_close(array(z.grad), (naive.softmax(array(z)) - np.eye(5)[target]) / 7, rtol=1e-5, atol=1e-7)


def test_soft_targets_that_are_one_hot_equal_class_indices():
    z, target = random(2, 7, 5), torch.arange(7) % 5
    torch.testing.assert_close(cross_entropy(z, torch.eye(5)[target]), cross_entropy(z, target))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [([0.0, 0, 0], [1.0, 2, 3], 0.3243154), ([1.0, 2, 3], [0.0, 0, 0], 0.3302955)],
)
def test_distill_agrees_with_the_vectors_computed_by_hand(student, teacher, expected):
    value = distill(torch.tensor([student]), torch.tensor([teacher]), 3)
    assert value.item() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 4.0])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [((7, 5), (7, 5)), ((3, 7, 5), (7, 5)), ((7, 5), (3, 7, 5)), ((3, 7, 5), (3, 7, 5)), ((3, 1, 7, 5), (2, 7, 5))],
)
def test_distill_is_the_batch_mean_summed_over_all_pairs(naive, array, student, teacher, temperature):
    s, t = random(*student), random(*teacher, scale=2)
    pairs = torch.broadcast_tensors(s, t)
    flat = (array(x.reshape(-1, 7, 5)) for x in pairs)
    expected = sum(naive.kd(one, other, temperature) for one, other in zip(*flat, strict=True))
    torch.testing.assert_close(distill(s, t, temperature).item(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distill_moves_the_student_alone(naive, array, temperature):
    s, t = random(2, 7, 5).requires_grad_(), random(7, 5, scale=2).requires_grad_()
    distill(s, t, temperature).backward()
    q, p = naive.softmax(array(s) / temperature), naive.softmax(array(t) / temperature)
    torch.testing.assert_close(array(s.grad), temperature * (q - p) / 7, rtol=1e-4, atol=1e-7)
    assert t.grad is None


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_distill_with_a_teacher_that_learns_too(naive, array, temperature):
    s, t = random(7, 5).requires_grad_(), random(7, 5, scale=2.0).requires_grad_()
    value = divergence(s, t, temperature)
    assert value == distill(s, t, temperature)
    value.backward()
    q, p = (naive.softmax(array(x) / temperature) for x in (s, t))
    excess = np.log(p / q) - (p * np.log(p / q)).sum(-1, keepdims=True)
    torch.testing.assert_close(array(s.grad), temperature * (q - p) / 7, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(array(t.grad), temperature * p * excess / 7, rtol=1e-4, atol=1e-6)


def test_distill_is_computed_in_float32_whatever_comes_in():
    s, t = random(7, 5).bfloat16(), random(7, 5, scale=2).bfloat16()
    value = distill(s, t, 3.0)
    assert value.dtype == torch.float32
    assert value == distill(s.float(), t.float(), 3.0)
    assert cross_entropy(s, torch.zeros(7, dtype=torch.long)).dtype == torch.float32


@few
@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_distill_is_never_negative_and_nothing_is_learned_from_an_equal(student, teacher, temperature):
    s, t = torch.from_numpy(student), torch.from_numpy(teacher)
    assert distill(s, t, temperature).item() >= -1e-5
    assert distill(s, s, temperature).item() == 0


@few
@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES, shift=st.floats(-20, 20, width=32))
def test_distill_ignores_a_shift_of_all_logits(student, teacher, temperature, shift):
    s, t = torch.from_numpy(student), torch.from_numpy(teacher)
    torch.testing.assert_close(
        distill(s + shift, t - shift, temperature), distill(s, t, temperature), rtol=1e-4, atol=1e-3
    )


def test_distill_is_finite_for_the_most_certain_predictions():
    s = torch.tensor([[0.0, 500.0]], requires_grad=True)
    value = distill(s, torch.tensor([[500.0, 0.0]]), 1.0)
    value.backward()
    assert value.item() == pytest.approx(500)
    assert s.grad.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, 0.00674), (10, 0.0218), (20, 0.0601), (40, 0.2865), (60, 0.7316), (79, 0.9992), (80, 1), (81, 1), (299, 1)],
)
def test_ramp_up_has_the_published_values(at, epoch, weight):
    assert ramp_up(at(epoch, 300), 80 / 300).item() == pytest.approx(weight, abs=6e-5)


@pytest.mark.parametrize("epochs", [3, 30, 40, 3000])
def test_ramp_up_keeps_its_shape_when_training_is_longer_or_shorter(at, epochs):
    for epoch in range(0, epochs, max(1, epochs // 10)):
        length = epochs * 80 / 300
        expected = math.exp(-5 * (1 - min(epoch, length) / length) ** 2)
        assert ramp_up(at(epoch, epochs), 80 / 300).item() == pytest.approx(expected, rel=1e-5)


def test_a_ramp_of_no_length_is_one_from_the_start(at):
    assert ramp_up(at(0), 0).item() == 1


def test_attention_map_is_the_mean_square_over_channels():
    x = random(2, 3, 4, 5)
    expected = [
        [[sum(x[b, d, h, w].item() ** 2 for d in range(3)) / 3 for w in range(5)] for h in range(4)] for b in (0, 1)
    ]
    torch.testing.assert_close(attention_map(x), torch.tensor(expected))
    assert attention_map(x.bfloat16()).dtype == torch.float32


def test_unit_attention_has_length_one_for_each_image(array):
    x = random(2, 3, 4, 5)
    expected = array(attention_map(x)).reshape(2, 20)
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    torch.testing.assert_close(array(unit_attention(x)), expected, rtol=1e-5, atol=1e-7)


def test_maps_are_averaged_down_to_the_smallest_size(array):
    x, y, z = random(2, 3, 4, 6), random(2, 5, 8, 3), random(2, 1, 4, 3)
    a, b, c = same_size(x, y, z)
    assert c is z
    torch.testing.assert_close(array(a), array(x).reshape(2, 3, 4, 3, 2).mean(4), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(array(b), array(y).reshape(2, 5, 4, 2, 3).mean(3), rtol=1e-5, atol=1e-6)
    assert same_size(x, x)[0] is x


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 2), (2, 8)])
def test_attention_transfer_compares_unit_attention_at_the_smaller_size(array, height, width):
    s, t = random(3, 2, 4, 4).requires_grad_(), random(3, 5, height, width).requires_grad_()
    rows, columns = min(4, height), min(4, width)

    def vector(f: np.ndarray) -> np.ndarray:
        b, d, h, w = f.shape
        a = (f.reshape(b, d, rows, h // rows, columns, w // columns).mean((3, 5)) ** 2).mean(1).reshape(b, -1)
        return a / np.sqrt((a**2).sum(1, keepdims=True))

    value = attention_transfer(s, t)
    value.backward()
    assert value.item() == pytest.approx(((vector(array(s)) - vector(array(t))) ** 2).mean(), rel=1e-4)
    assert s.grad.any() and t.grad is None
    assert attention_transfer(s.bfloat16(), t.bfloat16()).dtype == torch.float32
    assert attention_transfer(s, -3 * s).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_contrast_is_the_mean_over_the_images_that_have_a_partner(weighted):
    s, classes = random(2, 6, 6, scale=1), torch.tensor([0, 1, 0, 2, 1, 0])
    w = random(2, 6, scale=1).sigmoid() if weighted else torch.ones(2, 6)
    expected = []
    for k in range(2):
        total = 0.0
        for i in range(6):
            partners = [j for j in range(6) if j != i and classes[j] == classes[i]]
            scale = s[k, i, [j for j in range(6) if j != i]].logsumexp(0)
            total -= sum((w[k, i] * (s[k, i, p] - scale) / len(partners)).item() for p in partners)
        expected.append(total / 5)
    torch.testing.assert_close(contrastive_loss(s, classes, w if weighted else None), torch.tensor(expected))
    assert contrastive_loss(s[:, :3, :3], torch.arange(3)).tolist() == [0, 0]


def test_class_probabilities_are_one_hot_for_indices_and_unchanged_otherwise():
    y = torch.tensor([2, 0])
    assert class_probabilities(y, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert class_probabilities(y, 5).shape == (2, 5)
    soft = torch.tensor([[0.5, 0.25, 0.25]])
    assert class_probabilities(soft, 3) is soft


@pytest.mark.parametrize("index", range(4))
def test_others_leaves_out_one_and_keeps_the_order(index):
    assert others(torch.arange(4), index).tolist() == [k for k in range(4) if k != index]
    assert others(torch.zeros(4, 2, 3), index).shape == (3, 2, 3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mean_prediction_softens_to_the_mean_of_the_softened_predictions(temperature):
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean = mean_prediction(logits, temperature)
    expected = (logits / temperature).softmax(-1).mean(0)
    torch.testing.assert_close((mean / temperature).softmax(-1), expected)


@pytest.mark.parametrize("function", [distill, divergence])
def test_weights_of_images_are_those_of_their_divergences(naive, array, function):
    g = torch.Generator().manual_seed(0)
    z, told, w = torch.randn(2, 6, 5, generator=g), torch.randn(2, 6, 5, generator=g), torch.rand(2, 6, generator=g)
    by_image = [[naive.kd(array(z[k, b : b + 1]), array(told[k, b : b + 1]), 3) for b in range(6)] for k in range(2)]
    expected = (array(w) * np.array(by_image)).mean(1).sum()
    assert function(z, told, 3.0, w).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(function(z, told, 3.0, torch.ones(2, 6)), function(z, told, 3.0))


def test_weights_of_images_are_those_of_their_contrasts():
    """Three images, two of a class, all similarities 0: each of the two contrasts to log 2."""
    classes, s = torch.tensor([0, 0, 1]), torch.zeros(2, 3, 3)
    weighted = contrastive_loss(s, classes, torch.tensor([[1.0, 3.0, 100.0], [0.0, 2.0, 0.0]]))
    assert weighted.tolist() == pytest.approx([2 * math.log(2), math.log(2)])
    assert contrastive_loss(s, classes).tolist() == pytest.approx([math.log(2)] * 2)


def test_standardised_logits_have_mean_0_and_deviation_1_over_the_classes(array):
    z = torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]])
    root = 3**0.5
    torch.testing.assert_close(standardised(z), torch.tensor([[-1.0, 0, 1], [-1 / root, -1 / root, 2 / root]]))
    assert standardised(torch.ones(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    # A deviation of 1e-7 counts as twice that.
    tiny = standardised(torch.tensor([0.0, 2**0.5 * 1e-7]))
    torch.testing.assert_close(tiny, torch.tensor([-1.0, 1.0]) / 8**0.5)


def test_weights_of_classes_by_hand():
    # p = (3/4, 1/4) for both images of one peer; weights 1 and 3: (1 * ln 4/3 + 3 * ln 4) / 2 images.
    z = torch.tensor([[[3.0, 1.0], [3.0, 1.0]]]).log()
    wrong = math.log(4)
    right = math.log(4 / 3)
    with class_weighted(torch.tensor([1.0, 3.0])):
        assert cross_entropy(z, torch.tensor([0, 1])).item() == pytest.approx((right + 3 * wrong) / 2)
        # Of mixed labels every part has its class's weight.
        soft = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        assert cross_entropy(z, soft).item() == pytest.approx((0.5 * right + 0.5 * 3 * wrong + right) / 2)
        # Peers are summed.
        assert cross_entropy(z.expand(3, 2, 2), torch.tensor([0, 1])).item() == pytest.approx(1.5 * (right + 3 * wrong))
    assert cross_entropy(z, torch.tensor([0, 1])).item() == pytest.approx((right + wrong) / 2)


def test_parts_of_a_weighted_batch_make_the_mean_of_the_whole():
    z, target = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    with class_weighted(torch.tensor([0.1, 5.0, 1.0])):
        halves = [cross_entropy(z[:, k::2], target[k::2]) for k in range(2)]
        torch.testing.assert_close(torch.stack(halves).mean(), cross_entropy(z, target))
    torch.testing.assert_close(cross_entropy(z[0], target), F.cross_entropy(z[0], target))


def test_the_weights_end_with_their_block_after_an_error_too():
    z, target = torch.zeros(1, 2, 3), torch.tensor([0, 1])
    before = cross_entropy(z, target)
    with pytest.raises(ZeroDivisionError), class_weighted(torch.tensor([7.0, 7.0, 7.0])):
        raise ZeroDivisionError
    assert cross_entropy(z, target) == before


def test_the_virtual_teacher_by_hand():
    # 0.9 for the true class of three, 0.05 for the others, softened by 2.
    found = virtual_teacher(torch.tensor([2, 0]), 3, 0.9, 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.025, 0.025, 0.45], [0.45, 0.025, 0.025]]))
    # The authors' values are the defaults.
    torch.testing.assert_close(virtual_teacher(torch.tensor([0]), 100)[0, 0], torch.tensor(0.99 / 20))
