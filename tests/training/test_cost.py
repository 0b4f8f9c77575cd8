"""What predictors cost at inference."""

from pathlib import Path

import pytest
import torch
from helpers import tiny
from torch import nn

from collegium.cohort import Cohort
from collegium.networks import as_network
from collegium.training import cost, loop
from collegium.training.cost import costs, peer_costs
from collegium.training.experiment import build
from collegium.training.run import train


def found(**changes):
    experiment = build(tiny(share_until=None, **changes))
    return costs(experiment.learner, experiment.data.image_shape)


def test_a_peer_costs_itself_and_the_ensemble_all_peers() -> None:
    cost = found(method="independent", peers="resnet8,resnet14")
    assert cost["peer0"]["parameters"] == 77_754
    assert cost["ensemble"]["parameters"] == cost["peer0"]["parameters"] + cost["peer1"]["parameters"]
    assert cost["ensemble"]["flops"] == cost["peer0"]["flops"] + cost["peer1"]["flops"]


def test_a_predictor_on_all_features_costs_all_peers_and_its_head() -> None:
    cost = found(method="ffl", peers="2xresnet8")
    assert cost["fused"]["parameters"] > cost["ensemble"]["parameters"] == 2 * 77_754
    assert cost["fused"]["flops"] > cost["ensemble"]["flops"]


def test_a_predictor_that_is_one_network_costs_one() -> None:
    cost = found(method="okddip", peers="2xresnet8,resnet14")
    assert cost["leader"] == cost["peer2"]
    cost = found(method="okdph", peers="2xresnet8")
    assert cost["hybrid"] == cost["peer0"]


def test_copies_that_follow_the_peers_cost_nothing_at_inference() -> None:
    assert found(method="pcl", peers="2xresnet8")["pcl_e"]["parameters"] < 2 * 77_754 + 2_000


def test_a_run_counts_the_peers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[object] = []

    def count(cohort: Cohort, image_shape: tuple[int, int, int]) -> dict[str, dict[str, int]]:
        counted.append(cohort)
        return peer_costs(cohort, image_shape)

    monkeypatch.setattr(loop, "peer_costs", count)
    monkeypatch.setattr(cost, "peer_costs", count)
    result = train(tiny(epochs=1), tmp_path / "run")
    assert len(counted) == 1
    assert result["cost"] == train(tiny(epochs=1), tmp_path / "quiet", quiet=True)["cost"]


class Attentive(nn.Module):
    """4 x 4 places of 8 values and a token of its own, which a layer is handed; self-attention; a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 2, stride=2, bias=False)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.same = nn.Identity()
        self.layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        token = self.same(self.token).expand(len(x), -1, -1)
        return self.head(self.layer(torch.cat([token, x], 1))[:, 0])


@torch.no_grad()
def test_attention_is_counted_and_a_weight_may_be_handed_to_a_layer() -> None:
    cost = peer_costs(Cohort([as_network(Attentive(), (1, 8, 8))]), (1, 8, 8))["peer0"]
    places, width = 17, 8
    stem, head = 16 * width * 4, width * 10
    projections = places * (3 * width * width + width * width + 2 * width * 16)
    attention = 2 * places * places * width
    assert cost["flops"] == 2 * (stem + projections + attention + head)
