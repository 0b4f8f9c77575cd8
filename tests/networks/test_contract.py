"""What every network of every form keeps, tried on the first example of each form."""

import re

import pytest
import torch

from collegium.networks import _families, build

# Families made by other libraries or by the user are tried in the tests of their own modules.
OURS = [family for family in _families() if "check" not in vars(family)]
HYPERSPECTRAL = ("hybridsn", "ssrn", "spectral_resnet")


def examples(*, hyperspectral: bool) -> list[str]:
    """The first example of each form."""
    found = []
    for family in OURS:
        if (family.__name__.rpartition(".")[2] in HYPERSPECTRAL) == hyperspectral:
            for form, text in family.FORMS.items():
                named = re.findall(r"\w+\d\w*", text.partition(":")[2])
                found.append(named[0] if named else form.replace("{depth}", "10").replace("{width}", "1"))
    return found


SMALL_IMAGES, SPECTRA = examples(hyperspectral=False), examples(hyperspectral=True)
CASES = [(name, (3, 16, 16)) for name in SMALL_IMAGES] + [(name, (40, 9, 9)) for name in SPECTRA]


def test_every_form_is_tried():
    names = SMALL_IMAGES + SPECTRA
    assert len(names) == len(set(names)) == sum(len(family.FORMS) for family in OURS) >= 16


@pytest.mark.parametrize("name", SMALL_IMAGES)
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 16, 16), (1, 32, 32), (3, 64, 64), (5, 7, 9), (103, 11, 11)]
)
def test_images_may_have_any_size_and_number_of_channels(name, channels, height, width):
    network = build(name, num_classes=7, in_channels=channels)
    maps, logits = network.outputs(torch.rand(2, channels, height, width))
    assert logits.shape == (2, 7)
    assert all(m.ndim == 4 and m.shape[0] == 2 for m in maps)
    # A stage keeps the sides or halves them, rounded up, so that a map never vanishes.
    sides = [(height, width), *(tuple(m.shape[2:]) for m in maps)]
    for (h, w), after in zip(sides, sides[1:], strict=False):
        assert after in {(h, w), (-(-h // 2), -(-w // 2))}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("bands", "side"), [(4, 1), (15, 5), (30, 9), (103, 9), (204, 25)])
def test_patches_may_have_any_side_and_number_of_bands(name, bands, side):
    network = build(name, num_classes=7, in_channels=bands, image_size=(side, side))
    maps, logits = network.outputs(torch.rand(2, bands, side, side))
    assert logits.shape == (2, 7)
    assert all(m.ndim == 4 and m.shape[0] == 2 for m in maps)


def built(name, shape):
    return build(name, num_classes=5, in_channels=shape[0], image_size=shape[1:])


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_cut_after_any_stage_the_parts_make_the_whole(name, shape):
    # In training mode: without the batch's own statistics some fresh networks' logits would be next to nothing.
    network, images = built(name, shape), torch.randn(4, *shape)
    torch.manual_seed(0)  # of dropout
    whole = network(images)
    names = network.stage_names
    assert names == ("stem", *(f"stage{n}" for n in range(1, len(names))))
    for cut in names[:-1]:
        low, high = network.split_after(cut)
        torch.manual_seed(0)
        x = images
        for stage in low.values():
            x = stage(x)
        torch.testing.assert_close(high.outputs(x)[1], whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_gradient_reaches_every_parameter(name, shape):
    # Not in training mode, where a norm cancels the bias before it; in double precision, as nothing else scales maps.
    network = built(name, shape).eval().double()
    network(torch.randn(4, *shape, dtype=torch.double)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
