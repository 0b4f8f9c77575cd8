import pytest

from collegium.data import Reading
from collegium.data.decoding.reading import IMAGENET_MEAN, MEMORY
from collegium.errors import UsageError

SMALL = (3, 32, 32)


@pytest.mark.parametrize(
    ("settings", "shape", "count", "expected"),
    [
        ({}, SMALL, 1000, True),
        ({}, None, 1000, False),
        ({}, (3, 200, 20), 10, False),
        ({}, SMALL, MEMORY // 3072 + 1, False),
        ({"memory": False}, SMALL, 1000, False),
        ({"image_size": 32}, SMALL, 1000, True),
        ({"image_size": 48}, SMALL, 1000, False),
        ({"augment": "augmix"}, SMALL, 1000, False),
        ({"scale": [0.08, 1.0], "mean": [0.5]}, SMALL, 1000, True),  # as a recipe has them
        ({"memory": True}, (3, 200, 20), 10, True),
        ({"memory": True, "image_size": 8}, None, 10, True),
    ],
)
def test_what_goes_into_memory(settings, shape, count, expected):
    assert Reading(**settings).into_memory(shape, count) is expected


def test_memory_cannot_do_what_only_decoding_does():
    with pytest.raises(UsageError, match="memory cannot be had with augment and erasing"):
        Reading(memory=True, augment="augmix", erasing=0.1).into_memory(SMALL, 10)
    with pytest.raises(UsageError, match="memory needs image_size"):
        Reading(memory=True).into_memory(None, 10)


@pytest.mark.parametrize(
    ("given", "shape", "size"),
    [(None, None, 224), (None, (3, 64, 64), 64), (None, (3, 64, 48), 224), (None, (3, 500, 500), 224), (9, None, 9)],
)
def test_the_image_size(given, shape, size):
    assert Reading(image_size=given).settled(shape).views().image_size == (size, size)


def test_the_usual_normalisation():
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
