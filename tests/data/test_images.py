import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collegium.data import Augmentation, ImageData, Split, from_arrays
from collegium.data.batches import NO_AUGMENTATION
from collegium.data.splits import hold_out, per_class
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


def grey(count: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 6, 5), dtype=np.uint8)


@pytest.mark.parametrize("largest", [2**32 - 1, 10**9, 2**62, 255, 99])
@pytest.mark.parametrize("tensor", [False, True])
def test_memory_does_not_grow_with_a_label(largest, tensor):
    dtype = np.uint32 if largest == 2**32 - 1 else np.int64
    labels = np.array([0, 1, 2, 0, 1, 2, 0, largest], dtype=dtype)
    if tensor:
        labels = torch.from_numpy(labels)
    tracemalloc.start()
    for pairs in (((grey(), labels), (grey(), LABELS.repeat(2))), ((grey(), LABELS.repeat(2)), (grey(), labels))):
        with pytest.raises(UsageError, match=f"has label {largest} at index 7, but only 4 different.*ignore_label"):
            from_arrays(*pairs)
        with pytest.raises(UsageError, match=f"label {largest} at index 7: with 3 classes labels run from 0 to 2"):
            from_arrays(*pairs, class_names=("a", "b", "c"))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    data = from_arrays((grey(), labels), (grey(), labels), ignore_label=largest)
    assert data.train.targets.tolist() == data.test.targets.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert f"with the label {largest} that is to be ignored: 1 of 8 for train, 1 of 8 for test." in data.notes[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([2**63] * 8, np.uint64), "train labels reach 9223372036854775808: number the classes from 0"),
        (torch.tensor([0, 1] * 4).to(torch.float32), "float32 .*expected an array of integers"),
        (torch.tensor([True, False] * 4), "bool of shape"),
        (np.array(["a", "b"] * 4), "<U1 of shape"),
        (np.array([0, 1] * 4, object), "object"),
        (np.eye(8), r"float64 of shape \(8, 8\).*one-hot labels become so by argmax\(1\)"),
        (np.arange(8) - 3, r"has label -3 at index 0: .*ignore_label=-3"),
        (np.arange(8) % 3 + 1, r"labels of arrays begin at 1: number the classes from 0 \(labels - 1\)"),
        ([0, 1] * 4, "are a list: expected an array"),
    ],
)
def test_other_labels_are_refused_in_a_sentence(labels, message):
    with pytest.raises(UsageError, match=message) as error:
        from_arrays((grey(), labels), (grey(), labels))
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", "u4", "i4", "u8", ">u8"])
def test_labels_of_any_integer_type(dtype):
    data = from_arrays((grey(), np.arange(8).astype(dtype) % 3), (grey(), LABELS.repeat(2)))
    assert data.train.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1] and data.train.targets.dtype == torch.int64


def test_unlabelled_images_are_left_out_by_any_of_the_usual_labels():
    for label in (255, -1):
        labels = np.array([0, 1, label, 2, 0, 1, label, 2])
        data = from_arrays((grey(), labels), (grey(), labels), ignore_label=label, augmentation="none")
        assert data.num_classes == 3 and len(data.train) == 6
        assert torch.equal(data.train.images[:, 0], torch.from_numpy(grey()[labels != label]))
    with pytest.raises(UsageError, match="train split of arrays is empty"):
        from_arrays((grey(), np.full(8, 255)), (grey(), LABELS.repeat(2)), ignore_label=255)


def test_classes_that_training_or_numbers_lack_are_said():
    names = ("a", "b", "c", "d")
    pairs = (grey(), np.array([0, 1, 3] * 2 + [0, 1])), (grey(), np.array([0, 1, 2, 3] * 2))
    for class_names in (names, None):
        data = from_arrays(*pairs, class_names=class_names, augmentation="none")
        said = "2 (c)" if class_names else "2 (2)"
        assert data.notes == (
            f"arrays has no training images of class {said}: no network can learn them; leave them out of class_names "
            "and labels, or add images.",
            f"The test split of arrays has images of class {said}, which training lacks: all of them count as errors; "
            "leave them out, or add training images.",
        )
    assert replace(data, name="other", mean=(0.1,)).notes[:2] == data.notes
    assert sorted(per_class(data.train, 1, 0).targets.tolist()) == [0, 1, 3]
    train, held = hold_out(data.train, 0.5, 0)
    assert sorted(train.targets.unique().tolist()) == sorted(held.targets.unique().tolist()) == [0, 1, 3]


def test_an_empty_first_class_with_a_name_is_said():
    labels = np.arange(8) % 3 + 1
    data = from_arrays((grey(), labels), (grey(), labels), class_names=("none", "a", "b", "c"), augmentation="none")
    assert "no training images of class 0 (none)" in data.notes[0] and len(data.notes) == 1


@pytest.mark.parametrize(
    ("shape", "tensor", "right"),
    [
        ((4, 3, 32, 32), False, "transpose(0, 2, 3, 1)"),
        ((4, 3, 32, 48), False, "transpose(0, 2, 3, 1)"),
        ((4, 1, 28, 28), False, "transpose(0, 2, 3, 1)"),
        ((4, 4, 8, 9), False, "transpose(0, 2, 3, 1)"),
        ((4, 200, 9, 9), False, "transpose(0, 2, 3, 1)"),
        ((4, 32, 32, 3), True, "permute(0, 3, 1, 2)"),
        ((4, 32, 48, 3), True, "permute(0, 3, 1, 2)"),
        ((4, 28, 28, 1), True, "permute(0, 3, 1, 2)"),
        ((4, 9, 9, 200), True, "permute(0, 3, 1, 2)"),
    ],
)
def test_channels_in_the_wrong_place_are_refused_with_what_to_do(shape, tensor, right):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    given = torch.from_numpy(array) if tensor else array
    with pytest.raises(UsageError, match="train images of shape") as error:
        from_arrays((given, LABELS), (given, LABELS))
    assert right in str(error.value) and len(str(error.value)) <= 300
    done = eval(f"given.{right}")
    meant = array if tensor else torch.from_numpy(array)  # the other way to say it
    for images in (done, meant):
        assert from_arrays((images, LABELS), (images, LABELS)).in_channels == (shape[3] if tensor else shape[1])


@pytest.mark.parametrize(
    ("shape", "tensor"),
    [
        ((4, 32, 32, 3), False),
        ((4, 9, 9, 200), False),
        ((4, 3, 3, 200), False),
        ((4, 1, 1, 103), False),
        ((4, 6, 5, 2), False),
        ((4, 20, 30, 4), False),
        ((4, 3, 32, 32), True),
        ((4, 200, 9, 9), True),
        ((4, 4, 20, 30), True),
    ],
)
def test_channels_in_their_place_are_taken(shape, tensor):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = torch.from_numpy(images) if tensor else images
    assert from_arrays((images, LABELS), (images, LABELS)).in_channels == (shape[1] if tensor else shape[3])


def test_arrays_say_that_they_are_not_augmented_and_one_argument_does_it():
    pairs = (GOOD, LABELS), (GOOD, LABELS)
    plain = from_arrays(*pairs)
    assert plain.augmentation == NO_AUGMENTATION and len(plain.notes) == 1
    assert plain.notes[0].startswith("Training images are not augmented") and len(plain.notes[0]) <= 300
    for name, expected in {
        "none": NO_AUGMENTATION,
        "crop": Augmentation(2, "reflect", False),
        "crop_flip": Augmentation(2, "reflect", True),
    }.items():
        wide = np.random.default_rng(0).integers(0, 256, (4, 16, 24), dtype=np.uint8)
        data = from_arrays((wide, LABELS), (wide, LABELS), augmentation=name)
        assert data.augmentation == expected and data.notes == ()
    assert from_arrays(*pairs, augmentation=Augmentation(1)).notes == ()
    assert replace(plain, augmentation=Augmentation(1)).notes == ()
    with pytest.raises(UsageError, match="augmentation is 'flip': give 'none', 'crop', 'crop_flip'"):
        from_arrays(*pairs, augmentation="flip")


def test_floating_point_images_that_are_almost_black_are_said():
    dark = GOOD.astype(np.float32) / GOOD.max() * 4095 / 65535
    note = from_arrays((dark, LABELS), (dark, LABELS), augmentation="none").notes[0]
    assert "reach 0.063 of 1, so at most 17 of 256 levels are left" in note
    assert from_arrays((GOOD, LABELS), (GOOD, LABELS), augmentation="none").notes == ()


INTEGERS = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])


@given(data=st.data(), dtype=INTEGERS, tensor=st.booleans())
def test_any_integers_are_labels_or_refused_in_one_sentence(data, dtype, tensor):
    values = st.integers(0, 4) | st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    labels = np.array(data.draw(st.lists(values, min_size=1, max_size=8)), dtype=dtype)
    images = grey(len(labels))
    try:
        given_labels = torch.from_numpy(labels) if tensor else labels
        made = from_arrays((images, given_labels), (images, given_labels))
    except UsageError as error:
        assert len(str(error)) <= 300
        assert labels.min() != 0 or labels.max() >= 2 * len(set(labels.tolist())) or labels.max() == 0
    else:
        assert made.train.targets.tolist() == labels.tolist()
        assert made.num_classes == labels.max() + 1 <= 2 * len(set(labels.tolist()))


@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 12)] * 3),
    floating=st.booleans(),
    tensor=st.booleans(),
)
def test_images_keep_their_pixels_whatever_their_shape(shape, floating, tensor):
    levels = np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)
    images = (levels / 255).astype(np.float32) if floating else levels
    labels = np.arange(shape[0]) % 2
    try:
        pair = torch.from_numpy(images) if tensor else images, labels
        made = from_arrays(pair, pair, mean=(0.5,) * 12, std=(0.5,) * 12, class_names=("a", "b"))
    except UsageError as error:
        assert "channels" in str(error)
        return
    expected = torch.from_numpy(levels) if tensor else torch.from_numpy(levels).permute(0, 3, 1, 2)
    assert torch.equal(made.train.images, expected)
