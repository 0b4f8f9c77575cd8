"""What every network of every form keeps, tried on the first example of each form."""

import re

import pytest
import torch

from collegium.networks import build, forms

EXAMPLES = [re.findall(r"\w+\d\w*", text.partition(":")[2]) for text in forms().values()]
FIRST = [examples[0] for examples in EXAMPLES if examples] + ["wrn_10_1_pre"]  # the one form without an example


def test_every_form_is_tried():
    assert len(FIRST) == len(set(FIRST)) == len(forms()) >= 12


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 16, 16), (1, 32, 32), (3, 64, 64), (5, 7, 9), (103, 11, 11)]
)
def test_images_may_have_any_size_and_number_of_channels(name, channels, height, width):
    network = build(name, num_classes=7, in_channels=channels)
    maps = network.forward_features(torch.rand(2, channels, height, width))
    assert network.classifier(maps[-1]).shape == (2, 7)
    assert all(m.ndim == 4 and m.shape[0] == 2 for m in maps)
    # A stage keeps the sides or halves them, rounded up, so that a map never vanishes.
    sides = [(height, width), *(tuple(m.shape[2:]) for m in maps)]
    for (h, w), after in zip(sides, sides[1:], strict=False):
        assert after in {(h, w), (-(-h // 2), -(-w // 2))}


@pytest.mark.parametrize("name", FIRST)
def test_cut_after_any_stage_the_parts_make_the_whole(name):
    # In training mode: without the batch's own statistics some fresh networks' logits would be next to nothing.
    network, images = build(name, num_classes=5), torch.randn(4, 3, 16, 16)
    whole = network(images)
    names = network.stage_names
    assert names == ("stem", *(f"stage{n}" for n in range(1, len(names))))
    for cut in names[:-1]:
        low, high = network.split_after(cut)
        x = images
        for stage in low.values():
            x = stage(x)
        torch.testing.assert_close(high.classifier(high.forward_features(x)[-1]), whole, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("name", FIRST)
def test_gradient_reaches_every_parameter(name):
    # Not in training mode, where a norm cancels the bias before it; in double precision, as nothing else scales maps.
    network = build(name, num_classes=5).eval().double()
    network(torch.randn(4, 3, 16, 16, dtype=torch.double)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
