"""By which mean and std a network's images are normalised."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

import collegium
from collegium.cohort import Cohort
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.exporting import export
from collegium.networks import Network, Statistics, build, check, normalisation_note
from collegium.networks.normalising import IMAGENET
from collegium.student import load_peer, read_config, save_peer

DATA = Statistics((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


def by(pixels: Tensor, statistics: Statistics) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
    return (pixels - mean) / std


def network(name: str, **changes: object) -> Network:
    torch.manual_seed(0)
    given: dict[str, object] = {"num_classes": 4, **DATA._asdict()} | changes
    return build(name, **given).eval()  # type: ignore[arg-type]


def test_the_change_of_normalisation_by_hand() -> None:
    # A pixel of 0.6: (0.6 - 0.5) / 0.2 = 0.5 as the data have it; (0.6 - 0.4) / 0.1 = 2 as is wanted.
    peer = network("resnet8", in_channels=1)
    peer.renormalise(Statistics((0.5,), (0.2,)), Statistics((0.4,), (0.1,)))
    torch.testing.assert_close(peer.fit(torch.full((1, 1, 2, 2), 0.5)), torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet8:normalise=imagenet", IMAGENET),
        ("timm/resnet10t:normalise=own", IMAGENET),
        ("timm/vit_tiny_patch16_224:depth=1:img_size=32:normalise=own", Statistics((0.5,) * 3, (0.5,) * 3)),
        ("torchvision/squeezenet1_1:normalise=own", IMAGENET),
    ],
)
def test_a_network_sees_images_by_the_statistics_that_it_expects(name: str, expected: Statistics) -> None:
    peer, plain = network(name), network(name.rpartition(":")[0])
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(peer(by(pixels, DATA)), plain(by(pixels, expected)), rtol=1e-3, atol=1e-5)
    assert peer.name == name


def test_grey_images_get_the_mean_over_channels() -> None:
    peer = network("resnet8:normalise=imagenet", in_channels=1, mean=(0.5,), std=(0.2,))
    pixels = torch.rand(2, 1, 8, 8)
    expected = by(pixels, Statistics((0.449,), (0.226,)))
    torch.testing.assert_close(peer.fit(by(pixels, Statistics((0.5,), (0.2,)))), expected)


@pytest.mark.parametrize("name", ["resnet8:normalise=imagenet", "timm/resnet10t:normalise=own"])
def test_peers_on_a_trunk_normalise_alike_and_stay_so_apart(name: str) -> None:
    torch.manual_seed(0)
    peers = [build(name, num_classes=4, **DATA._asdict()).eval() for _ in range(2)]
    images = by(torch.rand(2, 3, 32, 32), DATA)
    alone = peers[0](images)
    cohort = Cohort(peers, share_until="stage1").eval()
    torch.testing.assert_close(cohort(images).logits[0], alone)
    torch.testing.assert_close(cohort.peer(0)(images), alone)
    unlike = [build(n, num_classes=4, **DATA._asdict()) for n in (name, name.rpartition(":")[0])]
    with pytest.raises(UsageError, match="peer0 .* and peer1 .* normalise images differently"):
        Cohort(unlike, share_until="stage1")


def test_a_saved_peer_keeps_it_and_so_does_what_is_exported(tmp_path: Path) -> None:
    peer = network("timm/resnet10t:normalise=own", image_size=(32, 32))
    save_peer(peer, tmp_path / "peer0", num_classes=4, image_size=[32, 32], mean=list(DATA.mean), std=list(DATA.std))
    pixels = torch.rand(2, 3, 32, 32)
    wanted = peer.plain()(by(pixels, IMAGENET))
    torch.testing.assert_close(load_peer(tmp_path / "peer0")(by(pixels, DATA)), wanted, rtol=1e-3, atol=1e-5)
    alone = timm.create_model("resnet10t", num_classes=4).eval()
    alone.load_state_dict(peer.plain().state_dict())
    assert read_config(tmp_path / "peer0")["network"] == "timm/resnet10t:normalise=own"
    written = export(tmp_path / "peer0", out=tmp_path / "peer.pt2")
    program = torch.export.load(written.path).module()
    torch.testing.assert_close(program(pixels), alone(by(pixels, IMAGENET)), rtol=1e-3, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="normalise=imgnet is unknown: give own, imagenet, data"):
        check("timm/resnet10t:normalise=imgnet")
    with pytest.raises(UsageError, match="not known how the images of resnet8 are normalised"):
        network("resnet8:normalise=own")
    with pytest.raises(UsageError, match="changes the normalisation of a data set"):
        network("resnet8:normalise=imagenet", mean=None)
    with pytest.raises(UsageError, match="images of 5 channels cannot be normalised"):
        network("resnet8:normalise=imagenet", in_channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)


def test_trained_weights_that_get_the_data_s_normalisation_are_told() -> None:
    peer = network("timm/resnet10t")
    for name in ("timm/resnet10t:pretrained", "timm/resnet10t:weights=a.pt"):
        note = normalisation_note(name, peer, DATA)
        assert note.startswith("its trained weights expect images normalised by mean 0.485, 0.456, 0.406 and std 0.229")
        assert not normalisation_note(name, peer, IMAGENET)
        assert not normalisation_note(f"{name}:normalise=data", peer, DATA)
    assert not normalisation_note("timm/resnet10t", peer, DATA)
    assert not normalisation_note("resnet8:weights=a.pt", network("resnet8"), DATA)


def test_a_run_trains_with_it_and_goes_on_and_is_evaluated_with_it(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.manual_seed(3)
    torch.save(timm.create_model("resnet10t", num_classes=10).state_dict(), file)
    peers = f"resnet8,timm/resnet10t:weights={file}:normalise=own"
    call = dict(method="dml", peers=peers, data={"name": "digits", "per_class": 2})
    call |= dict(epochs=1, batch_size=10, quiet=True, device="cpu", run=tmp_path / "run")
    result = collegium.train(**call)
    assert result["peers"][1] == "timm/resnet10t:normalise=own"
    assert not any("expect images" in note for note in result["notes"])
    file.unlink()
    assert collegium.evaluate(tmp_path / "run")["peer1"] == result["predictors"]["peer1"]["last"]
    (tmp_path / "run" / "result.json").unlink()
    assert collegium.train(**call)["notes"] == result["notes"]


def test_processes_do_not_average_what_changes_the_normalisation() -> None:
    name, given = "resnet8:normalise=imagenet", {"num_classes": 4, **DATA._asdict()}
    for method, options in (("dml", {}), ("okdph", {"steps_per_epoch": 1})):
        peers = [build(name, **given), build(name, **given)]
        learner = Distiller(method, peers, image_shape=(3, 16, 16), num_classes=4, **options)
        shared = {id(tensor) for tensor in learner.statistics()}
        averaged = {name for name, tensor in learner.named_buffers() if id(tensor) in shared}
        assert any(name.endswith("running_mean") for name in averaged)
        assert not any(name.endswith(("input_scale", "input_shift")) for name in averaged)
