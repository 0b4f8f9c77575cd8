from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import collegium.data as data
from collegium.data import ClassificationData, ImageData, from_arrays, with_label_noise, wrong_labels
from collegium.data.hyperspectral.patches import PatchData, Pixels
from collegium.errors import UsageError

CLASSES = 5


@pytest.fixture
def arrays() -> ImageData:
    """40 training images of class 0 and 10 of each other; the first pixel is the image's index."""
    labels = torch.cat([torch.zeros(40, dtype=torch.int64), torch.arange(1, CLASSES).repeat_interleave(10)])
    images = torch.randint(256, (len(labels), 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0] = torch.arange(len(labels))
    return from_arrays((images, labels), (images[:CLASSES], torch.arange(CLASSES)))


def wrong(noisy: ClassificationData, clean: ClassificationData) -> torch.Tensor:
    return noisy.train.targets != clean.train.targets


def test_the_same_share_of_each_class_gets_another_label(arrays):
    noisy = with_label_noise(arrays, 0.4, seed=3)
    changed = wrong(noisy, arrays)
    assert arrays.train.targets[changed].bincount(minlength=CLASSES).tolist() == [16, 4, 4, 4, 4]
    assert torch.equal(noisy.train.true_targets, arrays.train.targets)
    assert wrong_labels(noisy) == pytest.approx(0.4) and wrong_labels(arrays) is None


def test_nothing_else_changes(arrays):
    noisy = with_label_noise(arrays, 0.4)
    assert torch.equal(noisy.train.images, arrays.train.images)
    assert torch.equal(noisy.test.targets, arrays.test.targets)
    assert arrays.train.true_targets is None and arrays.train.targets.bincount()[0] == 40
    assert with_label_noise(arrays, 0.0) is arrays
    assert noisy.fingerprint() != arrays.fingerprint()


def test_symmetric_noise_draws_every_other_class(arrays):
    found = torch.zeros(CLASSES, CLASSES)
    for seed in range(60):
        noisy = with_label_noise(arrays, 0.5, seed=seed)
        found.index_put_((arrays.train.targets, noisy.train.targets), torch.tensor(1.0), accumulate=True)
    off = found[0, 1:] / found[0, 1:].sum()  # 1200 draws, so 4 deviations are 0.05
    assert ((off - 0.25).abs() < 0.05).all()
    assert (found[1:].sum(1) - found.diag()[1:] == 60 * 5).all()
    assert (found[1:] > 0).all()


def test_pair_noise_takes_the_next_class(arrays):
    noisy = with_label_noise(arrays, 0.3, kind="pair")
    changed = wrong(noisy, arrays)
    assert changed.sum() == 12 + 4 * 3
    assert torch.equal(noisy.train.targets[changed], (arrays.train.targets[changed] + 1) % CLASSES)


def test_the_seed_decides_and_more_noise_adds_to_less(arrays):
    less, more, again, other = (
        with_label_noise(arrays, share, seed=seed) for share, seed in ((0.2, 1), (0.5, 1), (0.2, 1), (0.2, 2))
    )
    assert torch.equal(less.train.targets, again.train.targets)
    assert not torch.equal(less.train.targets, other.train.targets)
    both = wrong(less, arrays)
    assert (wrong(more, arrays) | ~both).all()
    assert torch.equal(more.train.targets[both], less.train.targets[both])


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(arrays, share):
    with pytest.raises(UsageError, match="share of wrong labels is"):
        with_label_noise(arrays, share)
    with pytest.raises(UsageError, match="kind of label noise is 'worst'"):
        with_label_noise(arrays, 0.1, kind="worst")


def test_by_name_validation_and_test_labels_stay_right():
    clean = data.load("digits", validation=0.2, per_class=20, split_seed=4)
    noisy = data.load("digits", validation=0.2, per_class=20, split_seed=4, label_noise=0.3)
    assert torch.equal(noisy.train.images, clean.train.images)
    assert wrong(noisy, clean).sum() == 60
    assert torch.equal(noisy.validation.targets, clean.validation.targets)
    assert torch.equal(noisy.test.targets, clean.test.targets)
    assert noisy.notes == ("30.0 % of the 200 training labels are wrong; test labels are the right ones.",)
    assert clean.notes == ()


def test_folders_and_streamed_images(tmp_path, write_images):
    for split, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    noisy = data.load(f"folder:{tmp_path}", label_noise=0.2, memory=False, workers=0)
    assert isinstance(noisy, data.StreamedData)
    assert wrong_labels(noisy) == pytest.approx(0.2)
    kept = noisy.train.subset(torch.tensor([3, 1]))
    assert torch.equal(kept.true_targets, noisy.train.true_targets[[3, 1]])


def test_pixels_of_a_scene():
    pixels = Pixels(torch.arange(12), torch.arange(12) % 3)
    scene = PatchData(
        name="scene",
        train=pixels,
        test=Pixels(torch.arange(12, 15), torch.arange(3)),
        class_names=("a", "b", "c"),
        mean=(0.0,),
        std=(1.0,),
        cube=torch.zeros(4, 4, 1),
        colours=torch.zeros(4, 4, 3, dtype=torch.uint8),
        patch=1,
        turn=False,
        bands=(0,),
    )
    noisy = with_label_noise(scene, 0.25, kind="pair")
    assert wrong(noisy, scene).sum() == 3
    assert len(noisy.train.subset(torch.tensor([0])).true_targets) == 1


def test_images_are_taken_by_their_right_labels(arrays):
    given = replace(arrays.train, targets=arrays.train.targets.roll(1), true_targets=arrays.train.targets)
    assert torch.equal(data.splits.per_class(given, 4, 0).images, data.splits.per_class(arrays.train, 4, 0).images)
    for mine, theirs in zip(
        data.splits.hold_out(given, 0.5, 0), data.splits.hold_out(arrays.train, 0.5, 0), strict=True
    ):
        assert torch.equal(mine.images, theirs.images) and torch.equal(mine.true_targets, theirs.targets)


@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60).filter(lambda labels: set(labels) == {0, 1, 2, 3}),
    share=st.floats(0, 0.99),
    kind=st.sampled_from(["symmetric", "pair"]),
    seed=st.integers(0, 2**40),
)
def test_any_share_is_met_by_class_and_repeatable(labels, share, kind, seed):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    targets = torch.tensor(labels)
    clean = from_arrays((images, targets), (images, targets))
    noisy = with_label_noise(clean, share, kind=kind, seed=seed)
    changed = noisy.train.targets != targets
    for label in range(4):
        assert int(changed[targets == label].sum()) == int(share * labels.count(label) + 0.5)
    if kind == "pair":
        assert torch.equal(noisy.train.targets[changed], (targets[changed] + 1) % 4)
    assert torch.equal(noisy.test.targets, targets)
    assert share == 0 or torch.equal(noisy.train.true_targets, targets)
    assert torch.equal(with_label_noise(clean, share, kind=kind, seed=seed).train.targets, noisy.train.targets)
    less = with_label_noise(clean, share / 2, kind=kind, seed=seed).train.targets != targets
    assert not (less & ~changed).any()
