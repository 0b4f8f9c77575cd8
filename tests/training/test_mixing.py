import torch

from collegium.training.mixing import Mixing

IMAGES, TARGET = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8).contiguous(), torch.arange(4)


def test_without_mixing_nothing_changes() -> None:
    images, target = Mixing(5)(IMAGES, TARGET)
    assert images is IMAGES and target is TARGET


def test_mixup_mixes_images_and_targets_by_the_same_share() -> None:
    torch.manual_seed(0)
    images, target = Mixing(5, mixup=1.0)(IMAGES, TARGET)
    assert target.shape == (4, 5)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    torch.testing.assert_close(images[:, 0, 0, 0], (target[:, :4] * torch.arange(4.0)).sum(1))


def test_cutmix_gives_targets_by_the_pasted_area() -> None:
    torch.manual_seed(1)
    images, target = Mixing(4, cutmix=1.0)(IMAGES, TARGET)
    assert set(images.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    for k in range(4):
        torch.testing.assert_close(target[k, k], (images[k, 0] == k).float().mean())


def test_smoothed_targets_are_mixed_too() -> None:
    soft = torch.full((4, 5), 0.1).scatter(1, TARGET[:, None], 0.6)
    _, target = Mixing(5, mixup=1.0)(IMAGES, soft)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    assert target.min() >= 0.1 - 1e-6


def test_with_both_each_batch_gets_one_and_the_generator_decides_everything() -> None:
    mixing = Mixing(4, mixup=1.0, cutmix=1.0)

    def draw() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return [mixing(IMAGES, TARGET)[0] for _ in range(12)]

    first = draw()
    assert all(torch.equal(a, b) for a, b in zip(first, draw(), strict=True))
    pasted = [set(images.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0} for images in first]
    assert any(pasted) and not all(pasted)


def test_views_of_an_image_are_mixed_alike() -> None:
    views = torch.stack([IMAGES, 10 * IMAGES])
    for mixing in (Mixing(4, mixup=1.0), Mixing(4, cutmix=1.0)):
        torch.manual_seed(2)
        mixed, target = mixing(views, TARGET)
        torch.manual_seed(2)
        single, same = mixing(IMAGES, TARGET)
        assert mixed.shape == views.shape
        torch.testing.assert_close(mixed, torch.stack([single, 10 * single]))
        assert torch.equal(target, same)
