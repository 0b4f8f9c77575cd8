import pytest

from collegium.errors import UsageError
from collegium.networks.names import parse_options, untrained


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("pretrained", {"pretrained": True}),
        ("pretrained:drop_rate=0.1", {"pretrained": True, "drop_rate": 0.1}),
        ("drop=1e-1", {"drop": 0.1}),
        ("img_size=64:act=relu", {"img_size": 64, "act": "relu"}),
    ],
)
def test_options_follow_colons(text, expected):
    assert parse_options(text) == expected


@pytest.mark.parametrize("text", [":", "a=", "=3", "a::b"])
def test_an_option_without_name_or_value_is_refused(text):
    with pytest.raises(UsageError, match="cannot read the network's options"):
        parse_options(text)


def test_a_trained_peer_is_built_without_loading_what_it_started_from():
    assert untrained("timm/resnet18:pretrained:drop_rate=0.1") == "timm/resnet18:drop_rate=0.1"
    assert untrained("timm/resnet18:pretrained=true") == "timm/resnet18"
    for name in ("timm/resnet18:drop_rate=0.1", "timm/x:pretrained_cfg=y", "module:my.net:pretrained_path=x.pt"):
        assert untrained(name) == name
