import pytest
import torch
from torch import Tensor, nn

from collegium.networks.dry_run import Tokens, channels_last, logits_of, watch


class Glued(nn.Module):
    """A child's output changes on its way to the next child."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x) + 1).mean((2, 3)))


def paths(stages):
    return {name: [call.path for call in part] for name, part in stages.items()}


def test_children_that_hand_one_tensor_on_are_grouped_by_the_size_of_their_maps():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip
    assert paths(watch(net, (3, 8, 8)).stages()) == {"stage1": ["0", "1"], "stage2": ["2", "3"]}


def test_single_layers_before_blocks_are_the_stem():
    def block() -> nn.Module:
        return nn.ModuleDict({"a": nn.Conv2d(4, 4, 1), "b": nn.Conv2d(4, 4, 1)})

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = block()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.parts["b"](self.parts["a"](x))

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), Block(), Block(), nn.AvgPool2d(2), Block(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    assert paths(watch(net, (3, 8, 8)).stages()) == {"stem": ["0", "1"], "stage1": ["2", "3"], "stage2": ["4", "5"]}


def test_work_between_children_ends_the_chain_and_nothing_is_a_stage():
    assert watch(Glued(), (3, 8, 8)).stages() == {}


def test_watching_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    watch(net, (3, 8, 8))
    assert net.training and not net[1].training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in net.modules())


def test_tokens_are_laid_out_row_by_row_without_the_class_token():
    tokens = torch.arange(7.0)[None, :, None].expand(1, 7, 2)
    assert Tokens(1, 2, 3)(tokens)[0, 1].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_channels_last_maps_are_turned():
    assert channels_last(torch.zeros(2, 3, 4, 5)).shape == (2, 5, 3, 4)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 6, 4, 4), (6, 4, 4)),
        ((2, 4, 4, 6), (6, 4, 4)),
        ((2, 4, 4, 4), (4, 4, 4)),
        ((2, 5, 6, 4, 4), (30, 4, 4)),
        ((2, 17, 8), (8, 4, 4)),
        ((2, 16, 8), (8, 4, 4)),
    ],
)
def test_an_output_is_read_as_the_map_it_holds(shape, expected):
    run = watch(nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 2)), (3, 8, 8))
    output = torch.zeros(shape)
    assert run.reader(output)(output).shape[1:] == expected


def test_maps_of_wide_images_keep_their_proportions():
    run = watch(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 16, 2)), (3, 8, 16))
    for shape, expected in [((2, 32, 4, 8), (32, 4, 8)), ((2, 4, 8, 32), (32, 4, 8)), ((2, 33, 6), (6, 4, 8))]:
        assert run.reader(torch.zeros(shape))(torch.zeros(shape)).shape[1:] == expected


def test_logits_are_found_in_what_networks_give():
    z = torch.zeros(2, 3)

    class Output:
        logits = z

    assert logits_of(z) is logits_of((z, 1)) is logits_of(Output()) is z
    with pytest.raises(ValueError, match="gave a str"):
        logits_of("no")


def test_parameters_are_counted_once_for_each_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parallel(nn.Module):
        """Layers that all see the image, as in networks of many branches."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)) for _ in range(9))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.stack([layer(x) for layer in self.layers]).mean((0, 3, 4)))

    run = watch(Parallel(), (3, 8, 8))
    counted: list[nn.Module] = []
    parameters = nn.Module.parameters
    monkeypatch.setattr(nn.Module, "parameters", lambda self: counted.append(self) or parameters(self))
    run.stages()
    run.taps()
    assert len(counted) == len(set(counted)) == len(list(run.module.modules()))
