"""What is computed again is what was computed, and is not kept."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from collegium import networks
from collegium.cohort import Cohort, PeerOutputs
from collegium.networks import as_network


class WithDropout(nn.Module):
    """Children that run one after another, with random numbers and statistics among them."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.high = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.high(self.low(images)))


def own() -> networks.Network:
    module = WithDropout()
    module(torch.randn(2, 3, 32, 32))
    return as_network(module, (3, 32, 32))


def named(name: str) -> Callable[[], networks.Network]:
    return lambda: networks.build(name, num_classes=10)


COHORTS = {
    "apart": (named("resnet8"), None),
    "on a trunk": (named("resnet8"), "stage2"),
    "own module, whole": (own, None),
    "own module, on a trunk": (own, "stage1"),
    "timm, convolutional": (named("timm/resnet10t"), None),
    "timm, transformer": (named("timm/test_vit:img_size=32"), None),
}


def outcome(case: str, *, recompute: bool, own_views: bool) -> tuple[PeerOutputs, list[Tensor], list[Tensor], int]:
    """Outputs, gradients and buffers of a training batch, and the bytes that its backward pass keeps."""
    build, share_until = COHORTS[case]
    torch.manual_seed(0)
    cohort = Cohort([build() for _ in range(2)], share_until=share_until, recompute=recompute).train()
    images = torch.randn(2, 4, 3, 32, 32) if own_views else torch.randn(4, 3, 32, 32)
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = cohort(images)
    weights = torch.linspace(-1, 1, out.logits.numel()).view_as(out.logits)
    read = [f.square().mean() for maps in out.features for f in maps]
    gradients = torch.autograd.grad((out.logits * weights).sum() + torch.stack(read).sum(), list(cohort.parameters()))
    parameters = sum(p.untyped_storage().nbytes() for p in cohort.parameters())
    return out, list(gradients), list(cohort.buffers()), sum(kept.values()) - parameters


@pytest.mark.parametrize("own_views", [False, True])
@pytest.mark.parametrize("case", COHORTS)
def test_outputs_gradients_and_statistics_are_the_same(case: str, own_views: bool) -> None:
    expected, gradients, buffers, kept = outcome(case, recompute=False, own_views=own_views)
    found, again, left, little = outcome(case, recompute=True, own_views=own_views)
    assert torch.equal(found.logits, expected.logits)
    for one, other in zip([*again, *left], [*gradients, *buffers], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert little < kept / 2


def test_nothing_is_computed_again_where_nothing_is_learnt() -> None:
    torch.manual_seed(0)
    cohort = Cohort([named("resnet8")() for _ in range(2)], recompute=True).eval()
    with torch.inference_mode():
        assert cohort(torch.randn(2, 3, 32, 32)).logits.shape == (2, 2, 10)
