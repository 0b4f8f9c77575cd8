import pytest
import torch

from collegium.data.views import Views, described_view
from collegium.errors import DataError, UsageError

IMAGE = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_scoring_view_is_the_centre_of_the_resized_image():
    views = Views((32, 32))
    assert views.resize == 37
    image = torch.zeros(3, 74, 148, dtype=torch.uint8)
    image[:, 37, 74] = 255  # the centre
    view = views.scoring()(image)
    assert view.shape == (3, 32, 32) and view.dtype == torch.uint8
    peak = view[0].flatten().argmax().item()
    assert abs(peak // 32 - 16) <= 1 and abs(peak % 32 - 16) <= 1


def test_an_image_of_the_final_size_is_left_alone_without_a_margin():
    assert torch.equal(Views((40, 60), crop_ratio=1.0).scoring()(IMAGE), IMAGE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", ["none", "randaugment", "trivialaugment", "autoaugment", "augmix"])
def test_the_training_view_depends_on_the_random_state_alone(augment, channels):
    view = Views((16, 16), augment=augment, erasing=0.5).training((0.5,) * channels)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return view(IMAGE[:channels])

    with torch.random.fork_rng():
        assert draw(0).shape == (channels, 16, 16) and draw(0).dtype == torch.uint8
        assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_half_of_the_images_are_mirrored():
    half = torch.cat([torch.zeros(3, 8, 4), torch.full((3, 8, 4), 255.0)], dim=2).to(torch.uint8)
    kinds = {
        flip: {bool(view(half)[0, 0, 0]) for _ in range(20)}
        for flip in (True, False)
        for view in [Views((8, 8), scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=flip).training((0.5,) * 3)]
    }
    assert kinds == {True: {True, False}, False: {False}}


def test_the_erased_part_is_the_mean_colour():
    white = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    view = Views((20, 20), erasing=1.0).training((0.2, 0.4, 0.6))
    assert [sorted(plane.unique().tolist()) for plane in view(white)] == [[51, 255], [102, 255], [153, 255]]


def test_ready_images_are_left_as_they_are():
    views = Views((40, 60), ready=True)
    assert torch.equal(views.training((0.5,) * 3)(IMAGE), IMAGE) and torch.equal(views.scoring()(IMAGE), IMAGE)
    assert views.described() == {}
    with pytest.raises(UsageError, match="an image is 40 x 59 pixels, others 40 x 60"):
        views.training((0.5,) * 3)(IMAGE[:, :, 1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (0, 0)}, "image_size is 0"),
        ({"scale": (0.5,)}, "scale"),
        ({"scale": (0.5, 1.2)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"erasing": 1.5}, "erasing is 1.5"),
        ({"crop_ratio": 0.0}, "crop_ratio is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Views(**({"image_size": (8, 8)} | changes))


def test_a_long_and_narrow_image_is_not_resized_beyond_memory() -> None:
    scoring = Views((16, 16)).scoring()
    assert scoring.part(1, 10**5).size == (18, 18 * 10**5)
    with pytest.raises(DataError, match=r"it has 10,000,000 x 1 pixels, and would be resized to 180,000,000 x 18: cut"):
        scoring.part(1, 10**7)
    with pytest.raises(DataError, match="would be resized to 100,000 x 100,000"):
        described_view({"image_size": (16, 16), "resize": 10**5}).part(16, 16)
