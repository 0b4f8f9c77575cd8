import pytest

from collegium.errors import UsageError
from collegium.networks import check
from collegium.networks.names import parse_options, parse_peers, untrained


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


MANY = ["100000000xresnet8", "9" * 6000 + "xresnet8", "1001xresnet8", "999xresnet8,2xresnet8", "a," * 1000 + "a"]


@pytest.mark.parametrize("peers", MANY)
def test_more_than_a_thousand_peers_are_refused_at_once(peers):
    with pytest.raises(UsageError, match="the number of peers.* is more than the 250 allowed") as error:
        parse_peers(peers)
    assert len(str(error.value)) <= 300
    assert len(parse_peers("0000" * 2000 + "250xresnet8")) == 250


@pytest.mark.parametrize(
    "name",
    [
        "resnet6000002",
        "resnet" + "9" * 5000,
        "resnet6000002x4",
        "resnet6000002_bottleneck",
        "wrn_6000004_1",
        "wrn_16_100000000",
        "densenet_3000001_12",
        "densenet_40_999999",
        "vgg" + "1" * 5000,
        "spectral_resnet6000002",
        "ssrn_1000000000",
        "hybridsn_1000000000",
        "mobilenet_v2_x99999999_0",
        "shufflenet_v2_x" + "9" * 5000 + "_0",
    ],
)
def test_networks_too_deep_or_wide_are_refused_at_once(name):
    with pytest.raises(UsageError, match="(layers|width|growth) of .* is more than the [12]000 allowed") as error:
        check(name)
    assert len(str(error.value)) <= 300


def test_networks_of_too_many_parameters_are_refused_before_they_are_made():
    with pytest.raises(UsageError, match=r"wrn_16_1000 has 1.7e\+11 parameters, more than the 1e\+10 allowed"):
        check("wrn_16_1000")


def test_long_names_are_cut_in_messages():
    with pytest.raises(UsageError) as error:
        check("x" * 10_000)
    assert len(str(error.value)) < 3000 and "x" * 61 not in str(error.value)
