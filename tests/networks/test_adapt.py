import copy

import pytest
import torch
from torch import Tensor, nn

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.networks import adapt
from collegium.networks.adapt import StagedNetwork, TappedNetwork

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A network as users write them: children, and work in between that is not a module."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8 * 2**k, 16 * 2**k, 3, 2, 1), nn.BatchNorm2d(16 * 2**k), nn.ReLU())
            for k in range(2)
        )
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(self.scale * x.mean((2, 3))))


class Branching(nn.Module):
    """Two branches on one map, joined by concatenation: no chain of children."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 5, 2, 2)
        self.join, self.head = nn.Conv2d(12, 10, 1), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.join(torch.cat([self.left(x), self.right(x)], 1))
        return self.head(x.mean((2, 3)))


class Attentive(nn.Module):
    """A small transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.zeros(1, 1, 12))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, dropout=0.0) for _ in range(6)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def adapted(module: nn.Module, **options) -> nn.Module:
    return adapt(module, image_shape=(3, 16, 16), name="own", **options)


@pytest.mark.parametrize("kind", [Own, Branching, Attentive])
@pytest.mark.parametrize("training", [False, True])
def test_an_adapted_network_says_what_the_module_says(kind, training):
    torch.manual_seed(0)
    module = kind()
    network, alone = adapted(module).train(training), copy.deepcopy(module).train(training)
    for model in (network, alone):
        torch.manual_seed(1)
        model.said = model(IMAGES)
    torch.testing.assert_close(network.said, alone.said)
    assert {id(p) for p in network.parameters()} == {id(p) for p in module.parameters()}


def test_children_become_stages_and_the_module_is_left_whole():
    module = Own()
    names = list(module.state_dict())
    network = adapted(module)
    assert isinstance(network, StagedNetwork)
    assert network.paths == {
        "stage1": ("first.0", "first.1", "first.2"),
        "stage2": ("blocks.0.0", "blocks.0.1", "blocks.0.2"),
        "stage3": ("blocks.1.0", "blocks.1.1", "blocks.1.2"),
    }
    assert [tuple(m.shape[1:]) for m in network.forward_features(IMAGES)] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert list(module.state_dict()) == list(network.plain().state_dict()) == names
    assert isinstance(module.first[0], nn.Conv2d)


def test_peers_of_ones_own_share_a_trunk_and_come_back_whole():
    torch.manual_seed(0)
    modules = [Own(), Own()]
    cohort = Cohort([adapted(m) for m in modules], share_until="stage2").eval()
    out = cohort(IMAGES)
    assert out.trunk.shape == (4, 16, 8, 8) and [f.shape[1] for f in out.last_features] == [32, 32]
    for k in range(2):
        peer = cohort.peer(k)
        torch.testing.assert_close(peer(IMAGES), out.logits[k])
        plain = peer.plain()
        assert isinstance(plain, Own) and list(plain.state_dict()) == list(modules[0].state_dict())
        torch.testing.assert_close(plain(IMAGES), out.logits[k])
        assert plain.first[0] is modules[0].first[0]  # the trunk is the first peer's
    assert cohort.peer(1).plain().head is modules[1].head


def test_in_training_dropout_and_norms_go_on_as_in_the_module():
    network = adapted(Own())
    assert not torch.equal(network(IMAGES), network(IMAGES))
    assert network.plain().first[1].num_batches_tracked == 2


def test_maps_are_read_by_hooks_where_there_is_no_chain():
    network = adapted(Branching())
    assert isinstance(network, TappedNetwork)
    assert [tuple(m.shape[1:]) for m in network.forward_features(IMAGES)] == [(4, 16, 16), (10, 8, 8)]
    with pytest.raises(UsageError, match="own cannot be cut after 'stage1'.*take other peers"):
        network.split_after("stage1")
    twin = copy.deepcopy(network)
    assert torch.equal(twin.eval()(IMAGES), network.eval()(IMAGES))
    twin.outputs(IMAGES)[0][0].sum().backward()
    assert twin.plain().stem.weight.grad is not None and network.plain().stem.weight.grad is None


def test_tokens_of_a_transformer_are_maps_at_four_depths():
    maps = adapted(Attentive()).forward_features(IMAGES)
    assert [tuple(m.shape[1:]) for m in maps] == [(12, 4, 4)] * 4


def test_maps_may_be_named():
    network = adapted(Attentive(), features=["patch", "blocks.3"])
    assert network.stage_names == ("stage1", "stage2")
    assert [tuple(m.shape[1:]) for m in network.forward_features(IMAGES)] == [(12, 4, 4), (12, 4, 4)]
    with pytest.raises(UsageError, match=r"own has no submodule 'blocks.9'; did you mean 'blocks.\d'"):
        adapted(Attentive(), features=["blocks.9"])


def test_a_network_without_space_gives_maps_of_one_cell():
    network = adapted(nn.Sequential(nn.Flatten(), nn.Linear(768, 7), nn.ReLU(), nn.Linear(7, 5)))
    assert [tuple(m.shape[1:]) for m in network.forward_features(IMAGES)] == [(7, 1, 1)]


def test_the_gradient_of_a_map_reaches_the_module():
    for kind in (Own, Branching, Attentive):
        module = kind()
        maps, logits = adapted(module).outputs(IMAGES)
        (sum(m.square().mean() for m in maps) + logits.sum()).backward()
        assert all(p.grad is not None for p in module.parameters())


class Fixed(Own):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (16, 16):
            raise AssertionError("wants 16 x 16")
        return super().forward(x)


def test_images_are_resized_for_a_network_of_one_size():
    network = adapt(Fixed(), image_shape=(3, 32, 24), name="own", native_size=(16, 16)).eval()
    assert network.image_size == (16, 16)
    images = torch.randn(2, 3, 32, 24)
    assert torch.equal(network(images), network.plain()(network.fit(images)))
    cohort = Cohort([network, adapt(Own(), image_shape=(3, 32, 24), name="other")])
    spec = describe(cohort, (3, 32, 24), 5)
    assert spec.last_shapes == ((32, 4, 4), (32, 8, 6))


class Linear(nn.Linear):
    def __init__(self) -> None:
        super().__init__(768, 5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "own cannot take images of 3 channels, 16x16 pixels: .*channels"),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), r"own gives \(2, 2, 14, 14\) for 2 images, not logits"),
        (nn.Sequential(nn.Flatten()), "own has no parameters"),
        (Linear(), "no feature map was found in own; .* features="),
    ],
)
def test_what_cannot_be_a_peer_is_refused_in_one_sentence(module, reason):
    with pytest.raises(UsageError, match=reason):
        adapted(module)


def test_a_network_s_own_complaint_is_passed_on():
    with pytest.raises(UsageError, match="own cannot take images of 3 channels, 8x8 pixels: wants 16 x 16"):
        adapt(Fixed(), image_shape=(3, 8, 8), name="own")


class Frozen(Own):
    """Its body gets no gradient, which no child knows."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
        return self.head(x.mean((2, 3)))


class Writing(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5).mul_(2))


class Tied(Own):
    """One layer below and above the first cut."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
        self.twice[1].weight = self.twice[0].weight
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.twice[1](self.pool(self.twice[0](self.first(x)))).mean((2, 3)))


class Dropping(Branching):
    """Skips a layer now and then while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.left(x) if self.training else self.right(x)
        return self.head(self.join(torch.cat([self.left(x), y], 1)).mean((2, 3)))


def test_a_body_without_gradient_stays_without_and_cannot_be_cut():
    network = adapted(Frozen())
    network(IMAGES).sum().backward()
    assert network.plain().first[0].weight.grad is None and network.plain().head.weight.grad is not None
    with pytest.raises(UsageError, match="cannot be cut"):
        network.split_after("stage1")


def test_a_network_that_changes_its_images_gets_a_copy_of_them():
    network = adapted(Writing()).eval()
    images = IMAGES.clone()
    maps, logits = network.outputs(network.fit(images))
    assert torch.equal(images, IMAGES)
    torch.testing.assert_close(logits, Own.forward(network.plain(), (IMAGES - 0.5) * 2))


def test_a_cut_between_layers_that_share_weights_is_refused():
    network = adapted(Tied())
    with pytest.raises(UsageError, match="own cannot be cut after 'stage1': layers below and above it share weights"):
        network.split_after("stage1")


def test_a_map_that_was_not_computed_is_missed_by_name():
    network = adapted(Dropping(), features=["right", "join"])
    network.eval()(IMAGES)
    with pytest.raises(UsageError, match="own did not run its submodule right for this batch"):
        network.train()(IMAGES)


def test_the_user_s_module_can_be_used_and_copied_after_training_with_it():
    module = Own()
    adapted(module).outputs(IMAGES)[1].sum().backward()
    module(IMAGES)
    copy.deepcopy(module)


def test_weights_under_two_names_are_saved_under_both(tmp_path):
    from collegium.student import load_peer, save_peer

    def aliased() -> nn.Module:
        module = Own()
        module.again = module.first
        return module

    network = adapted(aliased()).eval()
    save_peer(network, tmp_path, num_classes=5, image_size=[16, 16])
    torch.testing.assert_close(load_peer(tmp_path, aliased())(IMAGES), network(IMAGES))
