import subprocess
import sys

import numpy as np
import pytest
import torch

from collegium.data.hyperspectral.patches import PatchBatches, Pixels
from collegium.errors import UsageError


def scene(height: int = 6, width: int = 7, channels: int = 2) -> torch.Tensor:
    """Each value tells where it is from: 100 * row + 10 * column + channel."""
    places = 100.0 * torch.arange(height)[:, None] + 10.0 * torch.arange(width)
    return places[..., None] + torch.arange(channels, dtype=torch.float32)


def every(height: int = 6, width: int = 7) -> Pixels:
    return Pixels(torch.arange(height * width), torch.arange(height * width) % 3)


def collect(batches: PatchBatches, epoch: int = 0, first_step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*batches.epoch(epoch, first_step), strict=True)
    return torch.cat(images), torch.cat(targets)


def cut(patch: int, row: int, column: int) -> np.ndarray:
    """The patch around one pixel, cut from the padded scene, (C, p, p)."""
    half = patch // 2
    padded = np.pad(scene().numpy(), ((half, half), (half, half), (0, 0)), mode="reflect")
    return padded[row : row + patch, column : column + patch].transpose(2, 0, 1)


def test_a_corner_is_mirrored_as_by_hand():
    corner = Pixels(torch.tensor([0]), torch.tensor([1]))
    ((patch, target),) = PatchBatches(scene(), corner, patch=3, batch_size=4).epoch(0)
    expected = torch.tensor([[110.0, 100, 110], [10, 0, 10], [110, 100, 110]])
    assert torch.equal(patch, torch.stack([expected, expected + 1])[None]) and target.tolist() == [1]


@pytest.mark.parametrize("patch", [1, 3, 5, 11])
def test_every_pixel_has_its_patch(patch):
    patches, targets = collect(PatchBatches(scene(), every(), patch=patch, batch_size=10))
    expected = np.stack([cut(patch, row, column) for row in range(6) for column in range(7)])
    np.testing.assert_array_equal(patches.numpy(), expected)
    assert torch.equal(targets, every().targets)


def test_a_turned_patch_is_one_of_eight_and_all_are_drawn_alike_often():
    pixels = Pixels(torch.full((1600,), 2 * 7 + 3), torch.zeros(1600).long())
    patches, _ = collect(PatchBatches(scene(), pixels, patch=3, batch_size=100, turn=True))
    plain = cut(3, 2, 3)
    ways = [np.rot90(side, k, (1, 2)) for side in (plain, plain[..., ::-1]) for k in range(4)]
    counts = [int((patches.numpy() == way).all(axis=(1, 2, 3)).sum()) for way in ways]
    assert sum(counts) == 1600  # 200 expected of each, standard deviation 13.2
    assert all(abs(count - 200) < 5 * 13.2 for count in counts)


def test_memory_layout():
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        batches = PatchBatches(scene(), every(), patch=3, batch_size=8, channels_last=channels_last)
        images, targets = next(batches.epoch(0))
        assert images.is_contiguous(memory_format=layout)
        assert (images.dtype, targets.dtype) == (torch.float32, torch.int64)


def test_batches_are_a_function_of_seed_epoch_and_step():
    def make(seed: int, epoch: int, shuffle: bool) -> torch.Tensor:
        batches = PatchBatches(scene(), every(), patch=3, batch_size=8, seed=seed, turn=True, shuffle=shuffle)
        return collect(batches, epoch)[0]

    for shuffle in (True, False):  # without shuffling the turns alone
        assert torch.equal(make(0, 1, shuffle), make(0, 1, shuffle))
        assert not torch.equal(make(0, 1, shuffle), make(1, 1, shuffle))
        assert not torch.equal(make(0, 1, shuffle), make(1, 0, shuffle))
        assert not torch.equal(make(0, 0, shuffle), make(0, 1, shuffle))


@pytest.mark.parametrize("first_step", [0, 2, 5])
def test_an_interrupted_epoch_goes_on_exactly(first_step):
    batches = PatchBatches(scene(), every(), patch=3, batch_size=8, turn=True, shuffle=True, drop_last=True)
    whole, targets = collect(batches, 3)
    if first_step == len(batches):
        assert list(batches.epoch(3, first_step)) == []
        return
    rest, rest_targets = collect(batches, 3, first_step)
    assert torch.equal(rest, whole[8 * first_step :]) and torch.equal(rest_targets, targets[8 * first_step :])


def test_an_epoch_shows_each_pixel_once_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    batches = PatchBatches(scene(), every(), patch=1, batch_size=7, shuffle=True)
    orders = [collect(batches, epoch)[0][:, 0, 0, 0].tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [sorted(scene()[..., 0].flatten().tolist())] * 2
    assert orders[0] != orders[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("count", "drop_last", "sizes"), [(10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (3, False, [3])]
)
def test_the_last_batch(count, drop_last, sizes):
    pixels = every().subset(torch.arange(count))
    batches = PatchBatches(scene(), pixels, patch=3, batch_size=4, drop_last=drop_last)
    assert [len(targets) for _, targets in batches.epoch(0)] == sizes and len(batches) == len(sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"pixels": every().subset(torch.arange(0))}, "the split is empty"),
        ({"seed": -1}, "seed is -1"),
        ({"patch": 4}, "4 x 4 pixels has no pixel in its centre: give an odd side"),
        ({"patch": -1}, "give an odd side"),
        ({"patch": 13}, "13 x 13 pixels are too large for a scene of 6 x 7: give a side of at most 11"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    settings = {"pixels": every(), "patch": 3, "batch_size": 4} | changes
    with pytest.raises(UsageError, match=message):
        PatchBatches(scene(), settings.pop("pixels"), **settings)


def test_an_epoch_or_step_that_does_not_exist_is_refused_at_once():
    batches = PatchBatches(scene(), every(), patch=3, batch_size=21)
    with pytest.raises(UsageError, match="step 3 cannot be the first: an epoch has steps 0 to 1"):
        batches.epoch(0, first_step=3)
    with pytest.raises(UsageError, match="epoch -1"):
        batches.epoch(-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_cuda_device_gives_the_same_batches_without_waiting_for_it():
    settings = {"patch": 5, "batch_size": 8, "turn": True, "shuffle": True}
    expected = collect(PatchBatches(scene(), every(), **settings))
    batches = PatchBatches(scene().to("cuda"), every(), **settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, targets = collect(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(images.cpu(), expected[0]) and torch.equal(targets.cpu(), expected[1])


LARGE = """
import numpy as np, torch
from collegium.data import from_scene
torch.set_num_threads(1)

def peak():
    # Not getrusage, which remembers the process that this one was forked from.
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

imported = peak()
cube = np.random.default_rng(0).integers(0, 8000, (610, 340, 103), dtype=np.uint16)
truth = np.zeros((610, 340), dtype=np.uint8)
for label in range(9):
    truth[67 * label : 67 * label + 60, 5:84] = label + 1
data = from_scene(cube, truth, patch=27, split="random", per_class=20)
cpu = torch.device("cpu")
for patches, _ in data.training_batches(batch_size=90, seed=0, device=cpu).epoch(0):
    assert patches.shape == (90, 103, 27, 27)
scored = sum(len(t) for _, t in data.scoring_batches(data.test, batch_size=500, device=cpu).epoch(0))
print(scored, peak() - imported)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kB on Linux")
def test_a_large_scene_with_large_patches_takes_half_a_gibibyte():
    """All its patches at once would take 12 GiB. What importing torch takes differs, most on a first time."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    scored, kilobytes = map(int, done.stdout.split())
    assert scored == 9 * (60 * 79 - 20)
    assert kilobytes < 2**19


def test_views_of_a_patch_are_turned_apart_and_the_first_is_that_of_a_single_one():
    scene = torch.randn(9, 9, 2, generator=torch.Generator().manual_seed(0))
    pixels = Pixels(torch.arange(81), torch.arange(81) % 3)
    settings = dict(patch=5, batch_size=27, turn=True, shuffle=True, seed=1)
    single = next(iter(PatchBatches(scene, pixels, **settings).epoch(0)))[0]
    double = next(iter(PatchBatches(scene, pixels, **settings, views=2).epoch(0)))[0]
    assert torch.equal(double[0], single) and not torch.equal(double[1], single)
    torch.testing.assert_close(double[1].sum((2, 3)), single.sum((2, 3)))  # the same pixels, in another order
