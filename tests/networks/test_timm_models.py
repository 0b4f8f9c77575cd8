import pytest
import timm
import torch

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.networks import build, check
from collegium.networks.adapt import StagedNetwork
from collegium.networks.timm_models import IntermediatesNetwork
from collegium.student import load_peer, save_peer

# Small members of the families whose trunks people share.
STAGED = ["resnet10t", "convnext_atto", "regnetx_002", "mobilenetv3_small_050", "densenet121", "efficientnet_b0"]


@pytest.mark.parametrize("model", STAGED)
def test_a_model_s_stages_give_its_logits_and_the_maps_of_timm_s_own_feature_api(model):
    torch.manual_seed(0)
    network = build(f"timm/{model}", num_classes=4, in_channels=2, image_size=(64, 64)).eval()
    assert isinstance(network, StagedNetwork)
    images = torch.randn(2, 2, 64, 64)
    maps, logits = network.outputs(images)
    plain = network.plain()
    torch.testing.assert_close(logits, plain(images), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps[-1], plain.forward_features(images), rtol=1e-4, atol=1e-5)
    assert {tuple(m.shape[2:]) for m in maps} <= {(64 // r, 64 // r) for r in (2, 4, 8, 16, 32)}
    if model != "densenet121":  # where timm reads before a transition's convolution, and a stage here ends after it
        theirs = plain.forward_intermediates(images)[1]
        for size in (16, 8, 4):
            (their,) = [f for f in theirs if f.shape[2] == size]
            torch.testing.assert_close([m for m in maps if m.shape[2] == size][-1], their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", STAGED)
def test_two_models_share_a_trunk_cut_after_any_stage(model):
    torch.manual_seed(0)
    name = f"timm/{model}"
    cuts = build(name, num_classes=4).stage_names[:-1]
    assert len(cuts) >= 3
    images = torch.randn(2, 3, 32, 32)
    for cut in cuts[:: len(cuts) - 1]:
        cohort = Cohort([build(name, num_classes=4) for _ in range(2)], share_until=cut).eval()
        assert describe(cohort, (3, 32, 32), 4).trunk_shape is not None
        for k, z in enumerate(cohort(images).logits):
            torch.testing.assert_close(cohort.peer(k).plain()(images), z, rtol=1e-4, atol=1e-5)


def test_a_transformer_is_read_by_timm_s_own_api_at_its_native_size_or_another():
    network = build("timm/vit_tiny_patch16_224", num_classes=4).eval()
    assert isinstance(network, IntermediatesNetwork) and network.image_size == (224, 224)
    images = torch.randn(2, 3, 32, 32)
    maps, logits = network.outputs(network.fit(images))
    assert [tuple(m.shape[1:]) for m in maps] == [(192, 14, 14)] * 4
    torch.testing.assert_close(logits, network(images))
    small = build("timm/vit_tiny_patch16_224:img_size=32:patch_size=8", num_classes=4, image_size=(32, 32))
    assert small.image_size is None
    assert [tuple(m.shape[1:]) for m in small.forward_features(images)] == [(192, 4, 4)] * 4


def test_the_class_token_is_left_out_of_the_map():
    network = build("timm/vit_tiny_patch16_224:img_size=32:patch_size=8", num_classes=4).eval()
    images = torch.randn(1, 3, 32, 32)
    tokens = network.plain().blocks(
        network.plain().norm_pre(network.plain()._pos_embed(network.plain().patch_embed(images)))
    )
    torch.testing.assert_close(network.forward_features(images)[-1][0, :, 1, 2], tokens[0, 1 + 4 + 2])


def test_a_saved_peer_is_loaded_by_timm_alone(tmp_path):
    from safetensors.torch import load_file

    torch.manual_seed(0)
    peers = [build("timm/resnet10t", num_classes=4, in_channels=1) for _ in range(2)]
    cohort = Cohort(peers, share_until="stage2").eval()
    peer = cohort.peer(1)
    save_peer(peer, tmp_path, num_classes=4, image_size=[32, 32])
    alone = timm.create_model("resnet10t", num_classes=4, in_chans=1)
    alone.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(alone.eval()(images), peer(images))
    torch.testing.assert_close(load_peer(tmp_path)(images), peer(images))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/resnet1", "timm has no model 'resnet1'; did you mean"),
        ("timm/qqqqqqqqqqqq", r"timm has no model 'qqqqqqqqqqqq'; timm.list_models\(\) tells its \d+ models"),
    ],
)
def test_an_unknown_model_is_refused_before_any_data_are_read(name, reason):
    with pytest.raises(UsageError, match=reason):
        check(name)


def test_an_option_that_timm_does_not_know_is_refused():
    with pytest.raises(UsageError, match="timm cannot make timm/resnet10t:colour=red: .*colour"):
        build("timm/resnet10t:colour=red", num_classes=4)
