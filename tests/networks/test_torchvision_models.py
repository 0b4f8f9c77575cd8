import pytest
import torch
from torchvision import models

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.networks import build, check
from collegium.networks.adapt import StagedNetwork

STAGED = ["resnet18", "mobilenet_v3_small", "densenet121", "regnet_y_400mf", "convnext_tiny", "shufflenet_v2_x0_5"]


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_the_papers_imagenet_networks_have_the_published_parameters_and_stages(name, count):
    network = build(f"torchvision/{name}", num_classes=1000, image_size=(64, 64))
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.stage_names == ("stem", "stage1", "stage2", "stage3", "stage4")
    wide = 4 if name == "resnet50" else 1
    shapes = [tuple(m.shape[1:]) for m in network.forward_features(torch.randn(2, 3, 64, 64))]
    assert shapes == [(64, 16, 16), *((wide * 64 * 2**k, 16 // 2**k, 16 // 2**k) for k in range(4))]


@pytest.mark.parametrize("cut", ["stem", "stage1", "stage2", "stage3"])
def test_imagenet_networks_share_a_trunk_cut_after_any_stage(cut):
    torch.manual_seed(0)
    cohort = Cohort([build("torchvision/resnet18", num_classes=4) for _ in range(2)], share_until=cut).eval()
    images = torch.randn(2, 3, 64, 64)
    out = cohort(images)
    for k in range(2):
        torch.testing.assert_close(cohort.peer(k).plain()(images), out.logits[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", STAGED)
def test_a_model_s_stages_give_its_logits(model):
    torch.manual_seed(0)
    network = build(f"torchvision/{model}", num_classes=4, in_channels=5, image_size=(64, 64)).eval()
    assert isinstance(network, StagedNetwork) and len(network.stage_names) >= 4
    images = torch.randn(2, 5, 64, 64)
    torch.testing.assert_close(network(images), network.plain()(images), rtol=1e-4, atol=1e-6)
    cohort = Cohort([network, build(f"torchvision/{model}", num_classes=4, in_channels=5)], share_until="stage2")
    assert describe(cohort, (5, 64, 64), 4).trunk_shape is not None


def test_a_transformer_is_resized_to_and_read_at_four_depths():
    network = build("torchvision/vit_b_32", num_classes=4).eval()
    assert network.image_size == (224, 224)
    maps, logits = network.outputs(network.fit(torch.randn(1, 3, 32, 32)))
    assert [tuple(m.shape[1:]) for m in maps] == [(768, 7, 7)] * 4 and logits.shape == (1, 4)


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_a_pretrained_model_gets_new_first_and_last_layers_where_the_data_ask_for_them(model, monkeypatch):
    # The weights cannot be downloaded in a test: a model that stands for the pretrained one is handed out instead.
    trained = models.get_model(model)
    monkeypatch.setattr(models, "get_model", lambda name, weights, **options: trained)
    network = build(f"torchvision/{model}:pretrained", num_classes=4, in_channels=1, image_size=(64, 64))
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 4)
    kept = {id(p) for p in network.parameters()}
    changed = [name for name, p in trained.named_parameters() if id(p) not in kept]
    assert changed == [] and len(kept) > 10  # new layers were put into the very model, everything else is kept


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision/resnet17", "torchvision has no classification model 'resnet17'; did you mean 'resnet1"),
        ("torchvision/fcn_resnet50", "torchvision has no classification model"),
    ],
)
def test_an_unknown_model_is_refused_before_any_data_are_read(name, reason):
    with pytest.raises(UsageError, match=reason):
        check(name)


def test_an_option_that_torchvision_does_not_know_is_refused():
    with pytest.raises(UsageError, match="torchvision cannot make torchvision/resnet18:colour=red"):
        build("torchvision/resnet18:colour=red", num_classes=4)
