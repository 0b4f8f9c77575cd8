import pytest
import torch
from torch import Tensor, nn

from collegium.cohort import CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.method import Method, Progress, Terms, trainable

SHAPES = (((4, 2, 2),), ((4, 2, 2),), ((4, 2, 2),))


class Toy(Method):
    """Needs a teacher and owns a layer with a frozen bias."""

    needs_teacher = True

    def __init__(self, spec: CohortSpec) -> None:
        super().__init__(spec)
        self.layer = nn.Linear(2, 2)
        self.layer.bias.requires_grad_(False)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        return {"peers": {"zero": torch.zeros(())}}


def test_too_few_peers_are_refused_with_what_to_write():
    with pytest.raises(UsageError, match=r"Toy needs at least 2 peers, got 1 \(resnet8\).*--peers 2xresnet8"):
        Toy(CohortSpec(("resnet8",), 5, SHAPES[:1], teacher_shapes=SHAPES[0]))


def test_a_missing_teacher_is_refused_with_what_to_write():
    with pytest.raises(UsageError, match="Toy needs a trained teacher.*--teacher"):
        Toy(CohortSpec(("resnet8",) * 2, 5, SHAPES[:2]))


def test_one_player_owns_everything_that_is_not_frozen_by_default():
    method = Toy(CohortSpec(("resnet8",) * 2, 5, SHAPES[:2], teacher_shapes=SHAPES[0]))
    cohort = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False))
    players = method.players(cohort)
    owned = [p for group in players["peers"] for p in group["params"]]
    assert list(players) == ["peers"]
    assert [id(p) for p in owned] == [id(p) for p in (*cohort[0].parameters(), method.layer.weight)]
    assert trainable(cohort) == list(cohort[0].parameters())


def test_a_method_predicts_and_shows_nothing_of_its_own_by_default(random_outputs):
    out = random_outputs(2)
    method = Toy(CohortSpec(("resnet8",) * 2, 5, SHAPES[:2], teacher_shapes=SHAPES[0]))
    assert method.predict(out) == {} == method.maps(out)
