import numpy as np
import pytest
import torch

from collegium.data import Augmentation, ImageData, Split, from_arrays
from collegium.errors import UsageError

LABELS = np.array([0, 1, 2, 1])


def split(count: int = 4, shape: tuple[int, ...] = (3, 6, 5)) -> Split:
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    return Split(images.contiguous(memory_format=torch.channels_last), torch.arange(count) % 3)


def data(**changes: object) -> ImageData:
    fields: dict[str, object] = {
        "name": "toy",
        "train": split(),
        "test": split(),
        "class_names": ("a", "b", "c"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "augmentation": Augmentation(2),
    }
    return ImageData(**(fields | changes))  # type: ignore[arg-type]


def test_what_a_data_set_says_of_itself():
    toy = data()
    assert (toy.num_classes, toy.in_channels, toy.image_size) == (3, 3, (6, 5))
    assert len(toy.train) == 4


def test_subset_keeps_order_pairs_and_memory_layout():
    whole = split(9)
    part = whole.subset(torch.tensor([7, 2, 2]))
    assert torch.equal(part.images, whole.images[[7, 2, 2]])
    assert part.targets.tolist() == [1, 2, 2]
    assert part.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole.to("cpu").images, whole.images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": split(0)}, "the test split of toy is empty"),
        ({"train": split(0)}, "the train split of toy is empty"),
        ({"validation": split(0)}, "the validation split of toy is empty"),
        ({"test": split(shape=(3, 6, 6))}, r"test split of toy has images .* of \(3, 6, 6\).*are \(3, 6, 5\)"),
        ({"train": Split(split().images.float(), torch.zeros(4).long())}, "train split.*float32.*expected uint8"),
        ({"train": Split(split().images[0], torch.zeros(4).long())}, r"uint8 of shape \(3, 6, 5\)"),
        ({"train": Split(split().images, torch.zeros(4))}, "labels float32.*int64"),
        ({"test": Split(split().images, torch.tensor([0, 1, 3, 9]))}, "test split of toy has label 3 at index 2"),
        ({"train": Split(split().images, torch.tensor([0, -1, 0, 1]))}, "label -1 at index 1: .* from 0 to 2"),
        ({"train": Split(split().images, torch.zeros(5).long())}, "4 images and 5 labels"),
        ({"mean": (0.5,)}, "mean has 1 values for images of 3 channels"),
        ({"std": (0.5,) * 4}, "std has 4 values for images of 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, "above 0"),
        ({"augmentation": Augmentation(5, "reflect")}, "padding 5 is too much for images of 6 x 5.*at most 4"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        data(**changes)


def test_padding_may_almost_reach_the_size_of_the_image():
    for mode in ("zeros", "reflect"):
        data(augmentation=Augmentation(4, mode))


def test_augmentation_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="padding is -1"):
        Augmentation(-1)
    with pytest.raises(UsageError, match="'mirror': give 'zeros' or 'reflect'"):
        Augmentation(1, "mirror")  # type: ignore[arg-type]


def test_arrays_are_channels_last_and_tensors_channels_first():
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
    toy = from_arrays((array, LABELS), (tensor, torch.from_numpy(LABELS).to(torch.int32)))
    assert toy.train.images.shape == (4, 3, 6, 5)
    assert torch.equal(toy.train.images, toy.test.images)
    assert torch.equal(toy.train.targets, toy.test.targets)
    assert toy.test.images.is_contiguous(memory_format=torch.channels_last)
    assert toy.class_names == ("0", "1", "2")
    assert toy.augmentation == Augmentation(padding=0, flip=False)


def test_grey_images_need_no_channel_axis():
    grey = np.zeros((4, 6, 5), dtype=np.uint8)
    grey[0] = 255
    toy = from_arrays((grey, LABELS), (torch.from_numpy(grey), LABELS), validation=(grey, LABELS))
    assert toy.train.images.shape == toy.test.images.shape == (4, 1, 6, 5)
    assert toy.validation is not None and len(toy.validation) == 4


def test_mean_and_std_are_the_training_images_own():
    array = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 2), dtype=np.uint8)
    labels = np.arange(7, dtype=np.uint8) % 2
    toy = from_arrays((array, labels), (array[:1] // 2, labels[:1]))
    scaled = array.astype(np.float64) / 255
    assert toy.mean == pytest.approx(scaled.mean((0, 1, 2)), rel=1e-12)
    assert toy.std == pytest.approx(scaled.std((0, 1, 2)), rel=1e-12)
    given = from_arrays((array, labels), (array, labels), mean=(0.1, 0.2), std=(0.3, 0.4), class_names=("x", "y"))
    assert (given.mean, given.std, given.num_classes) == ((0.1, 0.2), (0.3, 0.4), 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floating_point_images_are_rounded_to_256_levels(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    floating = (levels / 255).astype(dtype)
    toy = from_arrays((floating, LABELS[:1]), (levels, LABELS[:1]), class_names=("0", "1"))
    assert torch.equal(toy.train.images, toy.test.images)


def test_a_single_class_is_refused():
    array = np.random.default_rng(0).integers(0, 256, (7, 6, 5), dtype=np.uint8)
    with pytest.raises(UsageError, match="1 classes: there is nothing to learn below 2"):
        from_arrays((array, np.zeros(7, dtype=int)), (array, np.zeros(7, dtype=int)))


GOOD = np.tile(np.arange(30, dtype=np.uint8).reshape(6, 5), (4, 1, 1))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD + 1.5, LABELS, r"train images are floating point with values outside \[0, 1\]"),
        (np.full((4, 6, 5), np.nan), LABELS, "NaN"),
        (torch.full((4, 6, 5), -0.1), LABELS, r"outside \[0, 1\]"),
        (GOOD.astype(np.int64), LABELS, r"train images are int64 of shape \(4, 6, 5\): expected uint8"),
        (torch.zeros(4, 6, 5, dtype=torch.int32), LABELS, "int32"),
        (GOOD.astype(object), LABELS, "object"),
        (GOOD[0], LABELS, r"shape \(6, 5\): expected a NumPy array \(N, H, W\)"),
        ([[1]], LABELS, "a list"),
        (GOOD, LABELS.astype(float), r"train labels are float64 of shape \(4,\): expected an array of integers"),
        (GOOD, torch.zeros(4, 1, dtype=torch.int64), "train labels are int64 of shape"),
        (GOOD, LABELS > 0, "bool"),
        (GOOD, LABELS[:3], "4 images and 3 labels"),
        (GOOD, LABELS - 1, "label -1 at index 0"),
        (GOOD[:0], LABELS[:0], "train split of arrays is empty"),
        (np.zeros_like(GOOD), LABELS, "channel 0 of the training images is the same everywhere"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(images, labels, message):
    with pytest.raises(UsageError, match=message):
        from_arrays((images, labels), (GOOD, LABELS))


def test_a_read_only_array_is_taken_and_a_later_change_does_not_reach_the_data():
    array = GOOD.copy()
    toy = from_arrays((array, LABELS), (GOOD, LABELS))
    array[:] = 0
    assert torch.equal(toy.train.images, toy.test.images)
    array.flags.writeable = False
    from_arrays((array, LABELS), (array, LABELS), std=(1.0,))
