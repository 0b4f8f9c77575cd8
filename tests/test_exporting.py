import json
import re
import sys
import types
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import collegium
from collegium import exporting
from collegium.cli import main
from collegium.errors import TrainingError, UsageError
from collegium.networks import build
from collegium.onnx_files import onnx_session, session_answer
from collegium.quantising import RunImages
from collegium.student import read_config, save_peer
from collegium.training.run import restore

MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting") / "run"
    collegium.train(
        method="ffl",
        peers="2xresnet8",
        share_until="stage1",
        data="digits",
        epochs=1,
        run=folder,
        device="cpu",
        quiet=True,
    )
    return folder


def saved(folder: Path, name: str, size: int = 32, classes: int = 7, channels: int = 3) -> nn.Module:
    """An untrained network, as a run would leave it, with statistics of its own."""
    torch.manual_seed(0)
    network = build(name, num_classes=classes, in_channels=channels, image_size=(size, size))
    network.train()(torch.rand(8, channels, size, size))
    mean, std = (MEAN * channels)[:channels], (STD * channels)[:channels]
    save_peer(network, folder, num_classes=classes, image_size=[size, size], mean=mean, std=std)
    return network.eval()


def normalised(images: Tensor, config: dict[str, list[float]]) -> Tensor:
    mean, std = (torch.tensor(config[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


def test_a_program_takes_pictures_in_any_number_and_answers_as_the_peer(run: Path) -> None:
    made = collegium.export(run)
    assert made.path == run / "exports" / "peer0.pt2" and made.difference < 1e-5
    kept = {"config.json": ""}
    program = torch.export.load(made.path, extra_files=kept).module()
    config, peer = read_config(run), collegium.load_peer(run)
    for count in (1, 2, 9):
        images = torch.rand(count, 1, 16, 16)
        torch.testing.assert_close(program(images), peer(normalised(images, config)))
    assert json.loads(kept["config.json"])["class_names"] == config["class_names"]


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_fp16_holds_half_weights_and_takes_and_gives_float32(run: Path, format: Literal["torch", "onnx"]) -> None:
    made = collegium.export(run, format=format, precision="fp16")
    assert made.path.stem == "peer0_fp16" and 0 < made.difference < 1e-2 and "fp16 inside" in str(made)
    images = torch.rand(5, 1, 16, 16)
    if format == "torch":
        program = torch.export.load(made.path).module()
        assert {p.dtype for p in program.parameters()} == {torch.float16}
        answered = program(images)
    else:
        onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
        weights = [w for w in onnx.load(made.path).graph.initializer if w.dims and "bias" not in w.name]
        large = [w for w in weights if len(w.dims) > 1 and w.dims[0] > 1]
        assert large and {w.data_type for w in large} == {onnx.TensorProto.FLOAT16}
        answered = session_answer(onnx_session(made.path.read_bytes()))(images)
    expected = collegium.load_peer(run)(normalised(images, read_config(run)))
    assert answered.dtype == torch.float32
    torch.testing.assert_close(answered, expected, atol=2e-2, rtol=2e-2)


def test_int8_says_and_keeps_the_accuracy_before_and_after(run: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
    made = collegium.export(run, format="onnx", precision="int8")
    assert made.quantised is not None and made.path.stem == "peer0_int8"
    result = json.loads((run / "result.json").read_text())
    error = result["predictors"]["peer0"]["last"]["top1_error"]
    assert made.quantised.accuracy_before == pytest.approx(1 - error, abs=1 / 450)  # other kernels round otherwise
    assert made.quantised.test_images == 450 and made.quantised.calibration_images == 256
    model = onnx.load(made.path)
    (described,) = (json.loads(prop.value) for prop in model.metadata_props if prop.key == "collegium")
    assert described["quantised"] == made.quantised._asdict() and described["precision"] == "int8"
    kinds = {initializer.data_type for initializer in model.graph.initializer if len(initializer.dims) == 4}
    assert onnx.TensorProto.INT8 in kinds and "QuantizeLinear" in {node.op_type for node in model.graph.node}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    batches = RunImages(run, read_config(run), normalised=False, batch_size=None, data=None)
    answer = session_answer(onnx_session(made.path.read_bytes()))
    assert batches.accuracy(answer, "") == made.quantised.accuracy_after
    for line in ("accuracy on the 450 test images: ", "in int8 with scales of 256 training images"):
        assert line in str(made)


def test_where_a_file_takes_one_number_of_images_every_test_image_counts_once(run: Path) -> None:
    peer = collegium.load_peer(run)
    sevens = RunImages(run, read_config(run), normalised=True, batch_size=7, data=None)
    sizes: list[int] = []

    def answer(images: Tensor) -> Tensor:
        sizes.append(len(images))
        logits: Tensor = peer(images)
        return logits

    error = json.loads((run / "result.json").read_text())["predictors"]["peer0"]["last"]["top1_error"]
    assert sevens.accuracy(answer, "") == pytest.approx(1 - error, abs=1 / 450)
    assert sizes == [7] * 65  # 450 images: the last two are repeated


def test_scales_come_from_training_images_as_they_are(run: Path) -> None:
    images = RunImages(run, read_config(run), normalised=False, batch_size=None, data=None)
    batches = torch.cat(list(images.calibration()))
    train = images.data.train.images.float() / 255  # type: ignore[attr-defined]
    assert len(batches) == 256
    known = {tuple(image.flatten().mul(255).round().int().tolist()) for image in train}
    assert all(tuple(image.flatten().mul(255).round().int().tolist()) in known for image in batches)
    again = torch.cat(list(images.calibration()))
    assert torch.equal(batches, again)


def test_the_batch_axis_has_a_name_and_the_opset_is_the_one_asked_for(run: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
    model = onnx.load(collegium.export(run, format="onnx", opset=18).path)  # which is not torch's default
    assert [each.version for each in model.opset_import if each.domain == ""] == [18]
    ends = [value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)]
    assert ends == ["batch", "batch"]
    for opset in (7, 1000):
        with pytest.raises(UsageError, match=f"the opset is one from 18 to .*, not {opset}"):
            collegium.export(run, format="onnx", opset=opset)


def test_openvino_answers_as_onnxruntime_where_it_is_installed(run: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [test]")
    said = str(collegium.export(run, format="onnx", precision="fp16"))
    (line,) = (line for line in said.splitlines() if "OpenVINO" in line)
    assert float(re.findall(r"within (\S+) of the largest logit", line)[0]) < 1e-2


def test_what_openvino_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def read_model(self, content: bytes) -> None:
            raise RuntimeError("no\nsuch operator")

        compile_model = None

    fake = types.SimpleNamespace(__version__="2026.4.1-2298-releases", Core=Core)
    monkeypatch.setitem(sys.modules, "openvino", fake)
    said = exporting._in_openvino(b"", lambda images: images, (1, 2, 2), None)
    assert said == "OpenVINO 2026.4.1 cannot run it: no such operator"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert exporting._in_openvino(b"", lambda images: images, (1, 2, 2), None) == ""


def test_onnx_answers_as_the_peer(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    made = collegium.export(run, predictor="peer1", format="onnx")
    session = onnxruntime.InferenceSession(made.path.read_bytes())
    images = torch.rand(3, 1, 16, 16)
    config, peer = read_config(run / "peers" / "peer1"), collegium.load_peer(run / "peers" / "peer1")
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), peer(normalised(images, config)), atol=1e-5, rtol=1e-4)
    described = json.loads(session.get_modelmeta().custom_metadata_map["collegium"])
    assert described["class_names"] == config["class_names"] and described["normalises"] is True


@pytest.mark.parametrize("predictor", ["ensemble", "fused"])
def test_what_joins_the_peers_is_one_program_too_and_holds_no_more_than_it_needs(run: Path, predictor: str) -> None:
    made = collegium.export(run, predictor=predictor, normalised=True)
    program = torch.export.load(made.path).module()
    images = torch.randn(4, 1, 16, 16)
    learner = restore(run).learner.eval()
    torch.testing.assert_close(program(images), learner.predict(images)[predictor])
    needed = [*learner.cohort.parameters()]
    if predictor == "fused":
        peers = [learner.cohort.peer(k) for k in range(2)]
        own = {id(p) for peer in peers for p in peer.classifier.parameters()}
        needed = [p for p in learner.parameters() if id(p) not in own]
    assert made.parameters == sum(p.numel() for p in needed)


@pytest.mark.parametrize(
    "name, size, channels",
    [("timm/vit_tiny_patch16_224:img_size=32", 32, 3), ("torchvision/shufflenet_v2_x0_5", 64, 3)]
    + [("densenet_40_12", 32, 3), ("hybridsn_8", 11, 30)],
)
def test_networks_of_every_kind(tmp_path: Path, name: str, size: int, channels: int) -> None:
    network = saved(tmp_path / "peer", name, size, channels=channels)
    program = torch.export.load(collegium.export(tmp_path / "peer", normalised=True).path).module()
    images = torch.randn(3, channels, size, size)
    torch.testing.assert_close(program(images), network(images), atol=1e-5, rtol=1e-4)


def test_the_leader_of_a_run_is_what_is_taken_home(tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = {"method": "okddip", "peers": "3xresnet8", "data": "digits", "epochs": 1, "device": "cpu", "run": run}
    assert collegium.train(**call, quiet=True)["deployed_peer"] == "peer2"
    assert collegium.export(run).path.name == "peer2.pt2"
    images = torch.randn(2, 1, 16, 16)
    leader = collegium.load_peer(run / "peers" / "peer2")
    assert torch.equal(collegium.load_peer(run)(images), leader(images))
    assert not torch.equal(collegium.load_peer(run / "peers" / "peer0")(images), leader(images))


class Own(nn.Module):
    """What the users' networks here have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 2)


class Halves(Own):
    """Decides by what it sees, which no fixed program can."""

    def forward(self, images: Tensor) -> Tensor:
        mean = self.body(images).mean((2, 3))
        return self.linear(mean if mean.sum() > 0 else -mean)


class Pairs(Own):
    """Made for two images."""

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.body(images).mean((2, 3)).view(2, 4))


class Untidy(Own):
    """Changes its images in place, and answers with more than logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.body(images.mul_(2)).mean((2, 3))
        return self.linear(mean), mean


def rewrite_config(peer: Path, **entries: object) -> None:
    """Changes a peer's description on purpose, and so leaves out the checksums of its files."""
    config = json.loads((peer / "config.json").read_text())
    (peer / "config.json").write_text(json.dumps(config | entries))
    for checksum in peer.glob("*.sha256"):
        checksum.unlink()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a peer that was the user's own."""
    saved(tmp_path, "resnet8", 8, classes=2)
    rewrite_config(tmp_path, network="his own")
    from safetensors.torch import save_file

    save_file(Halves().state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_a_network_that_decides_by_what_it_sees_is_refused(own: Path) -> None:
    with pytest.raises(UsageError, match="torch.export cannot follow this network; with --batch-size 1 it may be"):
        collegium.export(own, network=Halves())
    assert not (own / "exports").exists()


def test_a_network_for_one_number_of_images_can_be_exported_for_that(own: Path) -> None:
    with pytest.raises(UsageError, match="cannot follow this network"):
        collegium.export(own, network=Pairs())
    made = collegium.export(own, network=Pairs(), batch_size=2)
    assert "images (2, 3, 8, 8) float32 in [0, 1], normalised inside -> logits (2, 2)" in str(made)


def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "peer", "resnet8", 8)
    monkeypatch.setattr(exporting, "_torch_file", lambda *_: (b"wrong", lambda images: torch.zeros(len(images), 7)))
    with pytest.raises(TrainingError, match=r"peer as torch answers otherwise than the trained network, by 1.0e\+00"):
        collegium.export(tmp_path / "peer")
    assert not (tmp_path / "peer" / "exports").exists()


def test_a_file_that_is_wrong_for_some_numbers_of_images_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = saved(tmp_path / "peer", "resnet8", 8)

    def answer(images: Tensor) -> Tensor:
        return network(images) * (1 if len(images) == 1 else torch.nan)

    monkeypatch.setattr(exporting, "_torch_file", lambda *_: (b"wrong", answer))
    with pytest.raises(TrainingError, match="by nan of the largest logit"):
        collegium.export(tmp_path / "peer", normalised=True)


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "peer", "resnet8", 8)

    def fail(*_: object) -> None:
        raise RuntimeError("no\noperator")

    monkeypatch.setattr(exporting, "_torch_file", fail)
    with pytest.raises(UsageError, match="peer cannot be written as torch: no operator"):
        collegium.export(tmp_path / "peer")


def test_a_network_of_the_user_s_own_is_exported_as_it_was_trained(own: Path) -> None:
    with pytest.raises(UsageError, match="no network is called .his own.*give the untrained module: network="):
        collegium.export(own)
    network = Untidy()
    program = torch.export.load(collegium.export(own, network=network, normalised=True).path).module()
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program(images.clone()), network(images)[0])
    for keywords, message in (
        ({"network": network, "peers": [network]}, "needs its own network alone: give network="),
        ({"network": network, "predictor": "fused"}, "fused needs all networks: give peers="),
    ):
        with pytest.raises(UsageError, match=message):
            collegium.export(own, **keywords)  # type: ignore[arg-type]


def test_a_peer_that_does_not_say_how_its_images_look_is_refused(tmp_path: Path) -> None:
    save_peer(build("resnet8", num_classes=2), tmp_path, num_classes=2)
    with pytest.raises(UsageError, match="config.json does not say image_size and mean and std of the images"):
        collegium.export(tmp_path)


def test_what_a_scene_s_network_takes_is_said(tmp_path: Path) -> None:
    saved(tmp_path, "resnet8", 8)
    rewrite_config(tmp_path, bands=[0, 1, 2], components=None)
    assert "float32 as measured, with bands and components as config.json says, normalised inside" in str(
        collegium.export(tmp_path)
    )


def test_what_there_is_not_is_named(run: Path) -> None:
    for wrong, message in (
        ({"predictor": "fuse"}, "has no predictor 'fuse'; did you mean 'fused'"),
        ({"predictor": "peer7"}, "has no peer7; did you mean 'peer"),
        ({"format": "tflite"}, "cannot export as 'tflite'; the formats are torch, onnx"),
        ({"out": "student.onnx"}, "the file of format torch ends in .pt2, not as student.onnx"),
        ({"batch_size": 0}, "a batch has at least one image, not 0"),
        ({"precision": "fp8"}, "cannot export in 'fp8'; the precisions are fp32, fp16, int8"),
        ({"precision": "int8"}, "int8 is for ONNX alone: add --format onnx"),
        ({"opset": 18}, "opset is for ONNX alone: add --format onnx"),
    ):
        with pytest.raises(UsageError, match=message):
            collegium.export(run, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="int8 needs training images, by which its scales are chosen: give the run"):
        collegium.export(run / "peers" / "peer0", format="onnx", precision="int8")


def test_the_command_says_what_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", str(run), "--out", str(tmp_path / "deep" / "student.pt2"), "--normalised"])
    said = capsys.readouterr().out
    assert f"{tmp_path}/deep/student.pt2: peer0 (resnet8), 77,754 parameters" in said
    assert "images (B, 1, 16, 16) float32 normalised -> logits (B, 10)" in said
