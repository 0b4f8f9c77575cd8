import pytest
import torch

from collegium.results.examples import Example, choose, enlarge, evenly, unit_range


def says(*labels: int, sure: float = 3.0) -> torch.Tensor:
    """Logits over three classes that give these answers."""
    return torch.nn.functional.one_hot(torch.tensor(labels), 3).float() * sure


TARGET = torch.tensor([0, 1, 2, 0, 1, 2, 0])
PEERS = {"peer0": says(1, 1, 0, 0, 0, 1, 0), "peer1": says(1, 0, 2, 0, 0, 0, 0)}
LOGITS = PEERS | {"ensemble": (PEERS["peer0"] + PEERS["peer1"]) / 2, "fused": says(0, 1, 1, 2, 0, 0, 0)}


def test_every_story_is_told_of_the_image_that_it_fits():
    assert {c.index: c.story for c in choose(LOGITS, TARGET, ["fused"])} == {
        0: "every peer wrong, fused right",
        1: "peers disagree, fused right",
        2: "peers disagree, fused wrong",
        3: "every peer right, fused wrong",
        4: "all wrong, with the same answer",
        5: "all wrong, with different answers",
        6: "all right, but unsure",
    }


def test_without_predictors_of_its_own_the_ensemble_joins_the_peers():
    stories = {c.story for c in choose({k: v for k, v in LOGITS.items() if k != "fused"}, TARGET, [])}
    assert any("ensemble" in story for story in stories)


def test_the_choice_is_the_same_at_every_call_and_within_its_number():
    z = {name: torch.randn(300, 10, generator=torch.Generator().manual_seed(k)) for k, name in enumerate(LOGITS)}
    target = torch.arange(300) % 10
    chosen = choose(z, target, ["fused"], count=8)
    assert chosen == choose(z, target, ["fused"], count=8)
    assert len(chosen) == 8 == len({c.index for c in chosen})


def test_a_lone_peer_disagrees_with_nobody():
    logits = {"peer0": LOGITS["peer0"], "ensemble": LOGITS["peer0"]}
    assert {c.story for c in choose(logits, TARGET, [])} <= {"wrong", "all right, but unsure", "all right and sure"}


def test_maps_run_from_zero_to_one_and_flat_ones_are_zero():
    maps = torch.stack([torch.arange(4.0).view(2, 2) + 5, torch.full((2, 2), 3.0)])
    torch.testing.assert_close(unit_range(maps)[0], torch.tensor([[0, 1 / 3], [2 / 3, 1]]))
    assert unit_range(maps)[1].eq(0).all()


def test_an_enlarged_map_has_the_images_size_and_the_same_mean():
    small = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    large = enlarge(small, (8, 8))
    assert large.shape == (8, 8)
    assert large.mean() == small.mean()


@pytest.mark.parametrize(
    ("count", "chosen"), [(0, []), (1, [0]), (8, [0, 3, 6, 9, 12, 15, 18, 21]), (9, [0, 3, 6, 9, 12, 15, 18, 24])]
)
def test_some_of_many_are_chosen_at_even_steps(count: int, chosen: list[int]):
    found = evenly(3 * torch.arange(count), 8)
    assert found == chosen and len(set(found)) == min(count, 8)


def test_an_image_is_named_by_its_file_without_what_turns_writing_around():
    def example(file: str | None) -> Example:
        return Example(7, file, "", torch.zeros(1, 2, 2, dtype=torch.uint8), 0, {})

    assert example(None).name == "test image 7"
    assert example("/data/test/cat/a b\u202egnp.exe\n.png").name == "a bgnp.exe .png"
