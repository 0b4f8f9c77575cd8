"""Networks in ONNX that somebody else may have made: what is read, and what is refused before it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import collegium
from collegium.errors import DataError
from collegium.onnx_files import read_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DESCRIPTION = {"num_classes": 2, "in_channels": 1, "image_size": [4, 4], "predictor": "peer0", "normalises": True}


def described(nodes: list[Any], tensors: list[Any], *, functions: Any = (), **entries: object) -> Any:
    """A network from (B, 1, 4, 4) to (B, 2), as a message."""
    make, value = onnx.helper, onnx.helper.make_tensor_value_info
    images, logits = value("images", 1, ["batch", 1, 4, 4]), value("logits", 1, ["batch", 2])
    graph = make.make_graph(nodes, "network", [images], [logits], tensors)
    opsets = [make.make_opsetid("", 18), make.make_opsetid("own", 1)]
    model = make.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    model.metadata_props.add(key="collegium", value=json.dumps(DESCRIPTION | entries))
    return model


def linear(**entries: object) -> Any:
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    return described(nodes, [onnx.helper.make_tensor("weight", 1, [16, 2], [0.0, 1.0] * 16)], **entries)


def kept_elsewhere(model: Any) -> Any:
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return model


def within_a_branch(model: Any) -> Any:
    """The same as the value of a constant in a branch."""
    weight = kept_elsewhere(model).graph.initializer.pop()
    make = onnx.helper
    held = make.make_node("Constant", [], ["w"], value=weight)
    branch = make.make_graph([held], "branch", [], [make.make_tensor_value_info("w", 1, [16, 2])])
    yes = make.make_node("Constant", [], ["yes"], value=make.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
    chosen = make.make_node("If", ["yes"], ["weight"], then_branch=branch, else_branch=branch)
    return described([yes, chosen, *model.graph.node], [])


def looping(model: Any) -> Any:
    model.graph.node.append(onnx.helper.make_node("Loop", ["", "", "flat"], ["other"]))
    return model


def with_functions(model: Any) -> Any:
    again = onnx.helper.make_node("Again", ["x"], ["y"], domain="own")
    function = onnx.helper.make_function("own", "Again", ["x"], ["y"], [again], [onnx.helper.make_opsetid("own", 1)])
    return described(list(model.graph.node), list(model.graph.initializer), functions=[function])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("L", (4, 4), 255).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_network_answers(tmp_path: Path, image: Path) -> None:
    onnx.save(linear(), tmp_path / "network.onnx")
    answer, description = read_onnx(tmp_path / "network.onnx")
    assert torch.equal(answer(torch.ones(3, 1, 4, 4)), torch.tensor([[0.0, 16.0]] * 3))
    assert json.loads(description) == DESCRIPTION
    assert collegium.predict(tmp_path / "network.onnx", image).labels == ["1"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (kept_elsewhere, "keeps weights in other files, which are not read"),
        (within_a_branch, "keeps weights in other files, which are not read"),
        (looping, "has Loop, by which it may never end"),
        (with_functions, "has functions, by which it may never end"),
    ],
)
def test_what_reads_other_files_or_may_not_end_is_refused(
    change: Callable[[Any], Any], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(128))
    (tmp_path / "network.onnx").write_bytes(change(linear()).SerializeToString())
    with pytest.raises(DataError, match=sentence):
        read_onnx(tmp_path / "network.onnx")


@pytest.mark.parametrize("content", [b"no protobuf", b"\x18\0\0\0ORTM" + bytes(100), b""])
def test_another_file_is_refused(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "network.onnx").write_bytes(content)
    with pytest.raises(DataError, match="network.onnx cannot be read"):
        read_onnx(tmp_path / "network.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"image_size": [5, 4]}, "the network cannot take images of 1 x 5 x 4, which its description asks for"),
        ({"num_classes": 3}, r"the network answers with \(1, 2\), not with \(1, 3\) for images and classes"),
        (
            {"batch_size": 10**8},
            "asks for 100,000,000 images at once of 1.6e[+]09 values, more than the 1e[+]08 allowed",
        ),
        ({"image_size": None}, "image_size must be a list"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    entries: dict[str, object], sentence: str, tmp_path: Path, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(linear(**entries), tmp_path / "network.onnx")
    with pytest.raises(DataError, match=sentence):
        collegium.predict(tmp_path / "network.onnx", image)
    assert capfd.readouterr().err == ""


def test_a_network_without_a_description_is_refused(tmp_path: Path, image: Path) -> None:
    model = linear()
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "network.onnx")
    with pytest.raises(DataError, match="does not say what its images and classes are: give a file that `collegium"):
        collegium.predict(tmp_path / "network.onnx", image)
