import pytest
import torch

from collegium.errors import UsageError
from collegium.networks import build, forms, parse_peers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet20", ["resnet20"]),
        ("2xresnet20", ["resnet20"] * 2),
        ("resnet32,wrn_16_2", ["resnet32", "wrn_16_2"]),
        ("2xresnet20, wrn_16_2", ["resnet20", "resnet20", "wrn_16_2"]),
        ("1xwrn_10_1,3xresnet8", ["wrn_10_1", "resnet8", "resnet8", "resnet8"]),
        ("12xresnet8", ["resnet8"] * 12),
    ],
)
def test_peers_are_written_with_counts_and_commas(text, expected):
    assert parse_peers(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "resnet8,",
        "0xresnet8",
        "00xresnet8",
    ],
)
def test_peers_that_name_nothing_are_refused_with_an_example(text):
    with pytest.raises(UsageError, match="2xresnet20"):
        parse_peers(text)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet_20", "resnet20"), ("ResNet32", "resnet32"), ("wrn16_2", "wrn_16_2"), ("wrn-40-2", "wrn_40_2")],
)
def test_an_unknown_network_is_refused_with_the_nearest_name(name, hint):
    with pytest.raises(UsageError, match=f"no network is called '{name}'; did you mean .*'{hint}'"):
        build(name, num_classes=10)


def test_a_name_like_no_other_is_refused_with_all_examples():
    with pytest.raises(UsageError, match="known are: densenet.* and [0-9]+ more"):
        build("qqq", num_classes=10)


def test_every_form_lists_examples_that_can_be_built_under_their_own_name():
    own = {form: text for form, text in forms().items() if "/" not in form and ":" not in form}
    examples = [word.strip(" .;") for text in own.values() for word in text.partition(":")[2].split(",")]
    examples = [name for name in examples if name]
    assert len(own) == len(forms()) - 3 and len(examples) >= 30
    with torch.device("meta"):
        assert [build(name, num_classes=10, image_size=(16, 16)).name for name in examples] == examples


def test_networks_start_from_torch_s_generator():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build("resnet8", num_classes=5).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
