"""Weights from a file: which are read, what is new, what is refused."""

import contextlib
import io
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from collegium.errors import CollegiumError, DataError, UsageError
from collegium.networks import build, check, untrained
from collegium.networks.network import Network

MODEL = "resnet8"
BN, HEAD = "stages.stem.1.weight", "classifier.linear.weight"


def trained() -> nn.Module:
    torch.manual_seed(1)
    return build(MODEL, num_classes=7)


def same(network: Network, model: nn.Module, *, but: tuple[str, ...] = ()) -> bool:
    own, theirs = network.plain().state_dict(), model.state_dict()
    return all(torch.equal(own[key], theirs[key]) for key in theirs if key not in but)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_network_starts_from_the_weights_of_a_file(suffix: str, tmp_path: Path) -> None:
    model, file = trained(), tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(model.state_dict()), file)
    network = build(f"{MODEL}:weights={file}", num_classes=7)
    assert same(network, model) and network.name == MODEL
    assert network.loaded_weights is not None and network.loaded_weights.note == f"starts from {file}."


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_prefixes_and_entries_of_training_checkpoints_are_found(entry: str, prefix: str, tmp_path: Path) -> None:
    model, file = trained(), tmp_path / "checkpoint.pth"
    state = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "args": Namespace(lr=0.1), entry: state, "optimizer": {"state": {}}}, file)
    network = build(f"{MODEL}:weights={file}", num_classes=7)
    assert same(network, model)
    assert network.loaded_weights is not None and f"(its {entry})" in network.loaded_weights.note


def test_averaged_weights_come_before_others(tmp_path: Path) -> None:
    model, file = trained(), tmp_path / "checkpoint.pth"
    other = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": other, "state_dict_ema": model.state_dict()}, file)
    assert same(build(f"{MODEL}:weights={file}", num_classes=7), model)


@pytest.mark.parametrize("name", ["resnet8", "torchvision/squeezenet1_1", "timm/resnet10t"])
def test_the_head_of_other_classes_is_new_and_the_same_as_without_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, file = build(name, num_classes=7, image_size=(64, 64)), tmp_path / "model.pt"
    torch.save(source.plain().state_dict(), file)
    torch.manual_seed(2)
    random = build(name, num_classes=4, image_size=(64, 64)).plain().state_dict()
    torch.manual_seed(2)
    network = build(f"{name}:weights={file}", num_classes=4, image_size=(64, 64))
    own, theirs = network.plain().state_dict(), source.plain().state_dict()
    fresh = [key for key in own if own[key].shape != theirs[key].shape]
    assert len(fresh) == 2  # weight and bias
    for key in own:
        assert torch.equal(own[key], (random if key in fresh else theirs)[key])
    assert network.loaded_weights is not None
    layer = fresh[0].removesuffix(".weight")
    assert f"its layer {layer} is new (7 classes there, 4 here)" in network.loaded_weights.note


def test_a_file_without_a_head_leaves_the_head_new(tmp_path: Path) -> None:
    model, file = trained(), tmp_path / "backbone.pt"
    torch.save({key: tensor for key, tensor in model.state_dict().items() if not key.startswith("classifier.")}, file)
    network = build(f"{MODEL}:weights={file}", num_classes=4)
    assert same(network, model, but=("classifier.linear.weight", "classifier.linear.bias"))
    assert network.loaded_weights is not None
    assert "its layer classifier.linear is new (the file has none)" in network.loaded_weights.note


def test_grey_images_get_the_sum_of_the_first_layer_s_channels(tmp_path: Path) -> None:
    model, file = timm.create_model("resnet10t", num_classes=7).eval(), tmp_path / "model.pt"
    torch.save(model.state_dict(), file)
    network = build(f"timm/resnet10t:weights={file}", num_classes=7, in_channels=1).eval()
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(network(grey), model(grey.expand(2, 3, 32, 32)), rtol=1e-3, atol=1e-5)
    assert network.loaded_weights is not None and "are summed to one" in network.loaded_weights.note


def test_a_transformer_s_positions_are_resampled_for_another_image_size(tmp_path: Path) -> None:
    name = "timm/vit_tiny_patch16_224:depth=1"
    file = tmp_path / "model.pt"
    torch.save(build(f"{name}:img_size=32", num_classes=7, image_size=(32, 32)).plain().state_dict(), file)
    network = build(f"{name}:img_size=48:weights={file}", num_classes=7, image_size=(48, 48))
    assert network.loaded_weights is not None
    assert network.loaded_weights.note == f"starts from {file}; timm resampled its pos_embed."


def test_the_user_s_own_network_and_a_saved_peer_start_from_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights_net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, width=3):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(width, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    name = "module:weights_net.make:width=5"
    first = build(name, num_classes=7)
    torch.save(first.plain().state_dict(), "own.pt")
    network = build(f"{name}:weights=own.pt", num_classes=7)
    assert network.name == name
    assert same(network, first.plain())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != BN}, f"it lacks {BN}$"),
        (lambda s: s | {"extra": torch.ones(1), "more": torch.ones(1)}, "the network has no extra, more$"),
        (lambda s: s | {BN: torch.ones(3)}, rf"of another shape are {BN} \(3,\), not \(16,\)$"),
        (lambda s: s | {HEAD: torch.ones(7, 9)}, rf"of another shape are {HEAD} \(7, 9\), not \(7, 64\)$"),
        (lambda s: s | {BN: torch.full((16,), torch.nan)}, f"not finite, the first in {BN}"),
        (lambda s: {}, "holds no weights by name"),
        (lambda s: {"state_dict": {"epoch": 3}}, "holds no weights by name"),
        (lambda s: [1, 2], "holds a list, not weights by name"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(change(trained().state_dict()), file)
    with pytest.raises(CollegiumError, match=sentence):
        build(f"{MODEL}:weights={file}", num_classes=7)


def test_the_first_few_of_what_does_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(trained().state_dict(), file)
    with pytest.raises(UsageError, match="not those of resnet14: it lacks stages.* and [0-9]+ more") as error:
        build(f"resnet14:weights={file}", num_classes=7)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.to(torch.int64), "has whole numbers in"),
        (lambda t: t > 0, "has whole numbers in"),
        (lambda t: t * 1j, "has no plain real numbers in"),
        (lambda t: t.to("meta"), "has no plain real numbers in"),
        (lambda t: t.to_sparse(), "has no plain real numbers in"),
        (lambda t: torch.zeros(1).expand(10**6, 10**6), "has tensors of more than the [0-9,]+ bytes"),
        (lambda t: t.double() + 1e300, "has weights that are not finite"),
        (lambda t: (t * float("nan")).to(torch.float8_e5m2), "has weights that are not finite"),
    ],
)
def test_tensors_without_real_numbers_of_their_own_are_refused(change, sentence: str, tmp_path: Path) -> None:
    file, state = tmp_path / "model.pt", trained().state_dict()
    key = next(key for key, tensor in state.items() if tensor.ndim == 4)
    torch.save(state | {key: change(state[key])}, file)
    with pytest.raises(DataError, match=sentence):
        build(f"{MODEL}:weights={file}", num_classes=7)


def test_floats_of_8_bits_are_read(tmp_path: Path) -> None:
    file, state = tmp_path / "model.safetensors", trained().state_dict()
    key = next(key for key, tensor in state.items() if tensor.ndim == 4)
    rounded = state[key].to(torch.float8_e4m3fn)
    save_file(state | {key: rounded}, file)
    assert torch.equal(build(f"{MODEL}:weights={file}", num_classes=7).plain().state_dict()[key], rounded.float())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(Path.home() / "collegium-was-here"), "w"))  # type: ignore[return-value]


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"state_dict": trained().state_dict(), "hook": Evil()}, file)
    with pytest.raises(DataError, match="holds Python objects besides weights, of which none was made"):
        build(f"{MODEL}:weights={file}", num_classes=7)
    assert not (Path.home() / "collegium-was-here").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 40])
def test_a_damaged_file_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"model{suffix}"):
        build(f"resnet8:weights={file}", num_classes=7)


def test_a_file_much_larger_than_the_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.pt"
    with open(file, "wb") as stream:
        stream.truncate(2**28)
    with pytest.raises(DataError, match="more than the [0-9,]+ bytes"):
        build(f"resnet8:weights={file}", num_classes=7)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 2**28)
    with pytest.raises(DataError, match="unpacks to more than"):
        build(f"resnet8:weights={tmp_path}/bomb.pt", num_classes=7)


@pytest.mark.parametrize("name", ["resnet8", "timm/resnet10t", "torchvision/resnet18"])
def test_a_missing_file_is_named_before_anything_is_made(name: str, tmp_path: Path) -> None:
    for wrong in (f"{tmp_path}/nowhere.pt", f"{tmp_path}"):
        with pytest.raises(UsageError, match="there is no file of weights"):
            check(f"{name}:weights={wrong}")
    with pytest.raises(UsageError, match="the network's option weights has no value"):
        check(f"{name}:weights")
    assert untrained(f"{name}:weights=nowhere.pt:a=1") == f"{name}:a=1"


def test_timm_s_own_option_for_a_file_is_called_weights() -> None:
    with pytest.raises(UsageError, match="write timm/resnet10t:weights=FILE"):
        build("timm/resnet10t:checkpoint_path=a.pth", num_classes=7)


def saved(pickled: bytes) -> bytes:
    """A file of torch.save with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("version", b"3\n"), ("byteorder", b"little"), ("data.pkl", pickled)):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


LONG = b"}" + b"q\0" * 500_001 + b"."
OLD = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (saved(b"\x80\x02" + LONG), "holds much besides weights"),
        (b"".join(pickle.dumps(part, protocol=2) for part in OLD) + LONG, "holds much besides weights"),
        (saved(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."), "holds much besides weights .it calls"),
        (saved(b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R."), "holds much besides weights .it calls"),
        (saved(b"\x80\x02}.") + b"PK\1\2" * 100_001, "has more than 100,000 parts"),
    ],
    ids=["long", "long, of the old format", "bytes", "tensor", "parts"],
)
def test_what_takes_more_time_or_memory_than_weights_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        build(f"{MODEL}:weights={file}", num_classes=7)


def test_of_two_archives_in_one_file_the_one_that_was_looked_at_is_read(tmp_path: Path) -> None:
    """Python's zipfile takes the list of parts before the archive's end, torch the one at the place that it tells."""
    model, other, file = trained(), trained(), tmp_path / "model.pt"
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.zero_()
    contents = []
    for module in (other, model):
        torch.save(module.state_dict(), file)
        contents.append(file.read_bytes())
    both = bytearray(contents[0] + contents[1])
    first, last = contents[0].rindex(b"PK\5\6"), both.rindex(b"PK\5\6")
    both[last + 16 : last + 20] = contents[0][first + 16 : first + 20]  # where the list of the first archive lies
    file.write_bytes(both)
    with contextlib.suppress(DataError):
        assert same(build(f"{MODEL}:weights={file}", num_classes=7), model)


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_of_a_training_script_is_read_in_both_formats(old: bool, tmp_path: Path) -> None:
    file, model = tmp_path / "model.pth", trained()
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "args": Namespace(lr=0.1)}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    assert same(build(f"{MODEL}:weights={file}", num_classes=7), model)
