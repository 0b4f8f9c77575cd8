"""The step that every network takes before anything is written."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import collegium
from collegium import networks
from collegium.errors import UsageError
from collegium.training.recipe import Recipe
from collegium.training.trial_step import try_step

SHAPE = (1, 16, 16)


class Viewing(nn.Module):
    """Reads its maps in memory order, as many textbooks' networks do: `view` refuses maps in channels last."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.MaxPool2d(4))
        self.classifier = nn.Linear(6 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.convolutions(images)
        logits: Tensor = self.classifier(maps.view(len(images), -1))
        return logits


class Recurrent(nn.Module):
    """Rows of an image are its sequence; logits stand in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(16, 12, batch_first=True)
        self.classifier = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classifier(self.rows(images[:, 0])[0][:, -1])}


class Training(Viewing):
    """Fails in training alone."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no labels were given\nand more lines")
        return super().forward(images)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


def lazy_once_called() -> nn.Module:
    module = lazy()
    module(torch.zeros(2, *SHAPE))
    return module


def peers(*modules: nn.Module, shape: tuple[int, int, int] = SHAPE) -> list[networks.Network]:
    return [networks.as_network(module, shape) for module in modules]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_network_that_refuses_channels_last_is_told(channels: int, precision: str) -> None:
    shape = (channels, 16, 16)
    recipe = Recipe(precision=precision)  # type: ignore[arg-type]
    found = try_step(peers(Viewing(channels), Viewing(channels), shape=shape), recipe, shape)
    assert [sentence.split(" (view size")[0] for sentence in found] == [
        "peer0 (Viewing) cannot train with channels last"
    ]
    assert try_step(peers(Viewing(channels), shape=shape), Recipe(channels_last=False), shape) == []


def test_nothing_of_a_network_changes() -> None:
    module = Viewing().eval()
    module.classifier.weight.grad = torch.ones_like(module.classifier.weight)
    before = {name: (t.clone(), t.data_ptr(), t.stride()) for name, t in module.state_dict().items()}
    state = torch.get_rng_state()
    try_step(peers(module), Recipe(), SHAPE)
    for name, tensor in module.state_dict().items():
        value, place, stride = before[name]
        assert torch.equal(tensor, value) and (tensor.data_ptr(), tensor.stride()) == (place, stride), name
    assert not any(part.training for part in module.modules()) and torch.equal(torch.get_rng_state(), state)
    assert module.classifier.weight.grad is not None and bool((module.classifier.weight.grad == 1).all())
    assert module.classifier.bias.grad is None


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Viewing().double(), r"peer0 \(Viewing\) has weights of torch.float64: make it of single precision"),
        (Viewing().bfloat16(), r"peer0 \(Viewing\) has weights of torch.bfloat16: make it of single precision"),
        (lazy(), "Sequential has lazy layers, whose weights have no shape yet: call it once on a batch like the data"),
        (Training(), r"peer0 \(Training\) fails as it trains on images of 1x16x16 in fp32: no labels were given$"),
    ],
)
def test_what_cannot_train_is_refused_before_anything_is_written(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        collegium.train(peers=[module, Viewing()], data="digits", epochs=1, run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [Viewing, Recurrent, lazy_once_called])
def test_such_networks_train_and_score(make: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = [make(), make()]
    options = dict(method="dml", data={"name": "digits", "per_class": 10}, epochs=1, run=tmp_path / "run", quiet=True)
    result = collegium.train(peers=given, **options)  # type: ignore[arg-type]
    refused = [note for note in result["notes"] if "cannot train with channels last" in note]
    assert len(refused) == (make is Viewing)
    assert given[0](torch.zeros(2, *SHAPE)) is not None
    again = collegium.train(peers=[make(), make()], **options)  # type: ignore[arg-type]
    assert again["predictors"] == result["predictors"]


def test_channels_first_gives_the_same_as_a_network_that_refuses_channels_last(tmp_path: Path) -> None:
    results = []
    for channels_last in (True, False):
        torch.manual_seed(0)
        results.append(
            collegium.train(
                method="dml",
                peers=[Viewing(), Viewing()],
                data={"name": "digits", "per_class": 10},
                epochs=1,
                channels_last=channels_last,
                run=tmp_path / str(channels_last),
                quiet=True,
            )
        )
    assert results[0]["predictors"] == results[1]["predictors"]
