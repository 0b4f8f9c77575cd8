"""Attacks by files in place of exported networks."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from attack import MARKUP, NAMES, NO_FILES, SHOWS, STEERING, Attack, Place, Runs, picture, torch_saved
from onnx import TensorProto, helper

DESCRIPTION: dict[str, Any] = {
    "num_classes": 10,
    "in_channels": 1,
    "image_size": [16, 16],
    "predictor": "peer0",
    "normalises": True,
    "batch_size": None,
    "mean": [0.3],
    "std": [0.3],
}


def tensor(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> TensorProto:
    values = np.zeros(shape, np.int64 if kind == TensorProto.INT64 else np.float32)
    return onnx.numpy_helper.from_array(values, name)


def network(
    description: object = DESCRIPTION,
    *,
    nodes: list[Any] | None = None,
    tensors: list[Any] | None = None,
    takes: list[Any] | None = None,
    gives: list[Any] | None = None,
    functions: list[Any] | None = None,
    imports: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """A network in ONNX: an affine map from (B, 1, 16, 16) to (B, 10), of which parts can be replaced."""
    usual = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        usual if nodes is None else nodes,
        "network",
        [value("images", TensorProto.FLOAT, ["batch", 1, 16, 16])] if takes is None else takes,
        [value("logits", TensorProto.FLOAT, ["batch", 10])] if gives is None else gives,
        [tensor("weight", 256, 10), tensor("bias", 10)] if tensors is None else tensors,
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in imports)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=9)
    if description is not None:
        text = description if isinstance(description, str) else json.dumps(description)
        model.metadata_props.add(key="collegium", value=text)
    return model


def outside_data(location: str, length: int = 40) -> TensorProto:
    """A bias whose values lie in another file."""
    found = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[10], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        found.external_data.add(key=key, value=value)
    return found


def constant(held: TensorProto, name: str = "bias") -> Any:
    return helper.make_node("Constant", [], [name], value=held)


def filled(*shape: int) -> list[Any]:
    """Nodes that ask for a tensor of a shape, and the logits."""
    of = helper.make_tensor("of", TensorProto.INT64, [len(shape)], shape)
    usual = network().graph.node
    return [
        constant(of, "shape"),
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        usual[0],
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["plain"]),
        helper.make_node("Add", ["plain", "sum"], ["logits"]),
    ]


def looping(*, growing: bool) -> onnx.ModelProto:
    """A loop that does not end, and may keep something of each round."""
    value = helper.make_tensor_value_info
    inner = [
        helper.make_node("Identity", ["go"], ["still"]),
        helper.make_node("Identity", ["sum"], ["next"]),
        helper.make_node("Identity", ["sum"], ["kept"]),
    ]
    outs = [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, ["b", 10])]
    outs += [value("kept", TensorProto.FLOAT, ["b", 10])] if growing else []
    ins = [value("round", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])]
    body = helper.make_graph(inner, "body", [*ins, value("sum", TensorProto.FLOAT, ["b", 10])], outs)
    usual = list(network().graph.node)
    usual[1].output[0] = "plain"
    results = ["logits", "all"] if growing else ["logits"]
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    return network(
        nodes=[*usual, constant(yes, "true"), helper.make_node("Loop", ["", "true", "plain"], results, body=body)]
    )


def recursive() -> onnx.ModelProto:
    """A function that calls itself."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    again = helper.make_function(
        "own", "Again", ["x"], ["y"], [helper.make_node("Again", ["x"], ["y"], domain="own")], imports
    )
    usual = list(network().graph.node)
    usual[1].output[0] = "plain"
    return network(
        nodes=[*usual, helper.make_node("Again", ["plain"], ["logits"], domain="own")],
        functions=[again],
        imports=("own",),
    )


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that each call the one before twice."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], imports)]
    for k in range(1, depth):
        nodes = [
            helper.make_node(f"F{k - 1}", [source], [target], domain="own")
            for source, target in (("x", "m"), ("m", "y"))
        ]
        functions.append(helper.make_function("own", f"F{k}", ["x"], ["y"], nodes, imports))
    usual = list(network().graph.node)
    usual[1].output[0] = "plain"
    return network(
        nodes=[*usual, helper.make_node(f"F{depth - 1}", ["plain"], ["logits"], domain="own")],
        functions=functions,
        imports=("own",),
    )


def branches(depth: int, held: TensorProto | None = None) -> onnx.ModelProto:
    """If in If in If; in the innermost a tensor."""
    value = helper.make_tensor_value_info
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [constant(tensor("bias", 10) if held is None else held, "b")], "g", [], [value("b", TensorProto.FLOAT, [10])]
    )
    for _ in range(depth):
        node = helper.make_node("If", ["true"], ["b"], then_branch=body, else_branch=tiny_branch())
        body = helper.make_graph([constant(yes, "true"), node], "g", [], [value("b", TensorProto.FLOAT, [10])])
    usual = list(network().graph.node)
    first = helper.make_node("If", ["true"], ["bias"], then_branch=body, else_branch=tiny_branch())
    return network(nodes=[constant(yes, "true"), first, *usual], tensors=[tensor("weight", 256, 10)])


def tiny_branch() -> Any:
    return helper.make_graph(
        [constant(tensor("bias", 10), "b")], "e", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, [10])]
    )


def declared(name: str, *dims: int, kind: int = TensorProto.FLOAT, raw: bytes | None = None) -> TensorProto:
    found = TensorProto(name=name, data_type=kind, dims=dims)
    if raw is not None:
        found.raw_data = raw
    return found


def onnx_files() -> dict[str, Callable[[Place], onnx.ModelProto | bytes]]:
    """Networks in ONNX that are to be refused."""
    value, whole = helper.make_tensor_value_info, tensor("weight", 256, 10)
    places = {
        "../outside/secret": "../outside/secret",
        "a link": "link.bin",
        "/etc/passwd": "/etc/passwd",
        "/dev/zero": "/dev/zero",
        "a pipe": "pipe.bin",
        "a file beside it": "beside.bin",
        "nothing": "nowhere.bin",
        "a steering name": STEERING[0],
        "*/_ORT_MEM_ADDR_/*": "*/_ORT_MEM_ADDR_/*",
    }

    def beside(place: Place) -> None:
        os.mkfifo(place.work / "pipe.bin")
        (place.work / "link.bin").symlink_to(place.outside / "secret")
        (place.work / "beside.bin").write_bytes(bytes(40))

    def model(**parts: Any) -> Callable[[Place], onnx.ModelProto]:
        return lambda p: network(**parts)

    def external(location: str, where: str) -> Callable[[Place], onnx.ModelProto]:
        def make(place: Place) -> onnx.ModelProto:
            beside(place)
            held = outside_data(location)
            if where == "an initializer":
                return network(tensors=[whole, held])
            if where == "a branch":
                return branches(2, held)
            return network(nodes=[constant(held), *network().graph.node], tensors=[whole])

        return make

    found: dict[str, Callable[[Place], onnx.ModelProto | bytes]] = {
        f"the data of {where} lie in {what}": external(location, where)
        for what, location in places.items()
        for where in ("an initializer", "a constant", "a branch")
    }
    found |= {
        "a tensor of 10^12 values without data": model(tensors=[whole, declared("bias", 10**12)]),
        "a tensor of 10^12 values and ten bytes": model(tensors=[whole, declared("bias", 10**12, raw=bytes(10))]),
        "sizes whose product is 2^64": model(tensors=[whole, declared("bias", 2**32, 2**32, raw=b"")]),
        "a size below 0": model(tensors=[whole, declared("bias", -1, raw=b"")]),
        "an unknown kind of numbers": model(tensors=[whole, declared("bias", 10, kind=999, raw=bytes(40))]),
        "a tensor of texts": model(
            tensors=[whole, helper.make_tensor("bias", TensorProto.STRING, [10], [MARKUP.encode()] * 10)]
        ),
        "a tensor that is asked for with 10^12 values": model(nodes=filled(10**12)),
        "a tensor that is asked for with 4 x 10^9 values": model(nodes=filled(4 * 10**9)),
        "a tensor that is asked for with -1 values": model(nodes=filled(-1)),
        "a loop without end": lambda p: looping(growing=False),
        "a loop without end that keeps all": lambda p: looping(growing=True),
        "a function that calls itself": lambda p: recursive(),
        "40 functions that double": lambda p: doubling(40),
        "branches 30 deep": lambda p: branches(30),
        "an operator of nobody": model(nodes=[helper.make_node(STEERING[0], ["images"], ["logits"], domain=MARKUP)]),
        "an operator that Python would run": model(
            nodes=[helper.make_node("PyOp", ["images"], ["logits"], domain="ai.onnx.contrib", module="evil")],
            imports=("ai.onnx.contrib",),
        ),
        "no nodes": model(nodes=[]),
        "no input": model(takes=[], nodes=[constant(tensor("l", 1, 10), "logits")], tensors=[]),
        "two inputs": model(
            takes=[value(n, TensorProto.FLOAT, ["batch", 1, 16, 16]) for n in ("images", "others")],
        ),
        "no output": model(gives=[]),
        "an input of whole numbers": model(takes=[value("images", TensorProto.INT64, ["batch", 1, 16, 16])]),
        "an input of other images": model(takes=[value("images", TensorProto.FLOAT, ["batch", 3, 8, 8])]),
        "an input of 10^12 pixels": model(takes=[value("images", TensorProto.FLOAT, ["batch", 1, 10**6, 10**6])]),
        "an input that is a sequence": model(
            takes=[helper.make_tensor_sequence_value_info("images", TensorProto.FLOAT, [1])]
        ),
        "one number as logits": model(
            nodes=[helper.make_node("ReduceSum", ["images"], ["logits"], keepdims=0)],
            gives=[value("logits", TensorProto.FLOAT, [])],
            tensors=[],
        ),
        "images as logits": model(
            nodes=[helper.make_node("Identity", ["images"], ["logits"])],
            gives=[value("logits", TensorProto.FLOAT, ["batch", 1, 16, 16])],
            tensors=[],
        ),
        "logits of one image for all": model(
            nodes=[constant(tensor("l", 7, 10), "logits")],
            gives=[value("logits", TensorProto.FLOAT, [7, 10])],
            tensors=[],
        ),
        "nine logits": model(
            tensors=[tensor("weight", 256, 9), tensor("bias", 9)],
            gives=[value("logits", TensorProto.FLOAT, ["batch", 9])],
        ),
        "a sequence as logits": model(
            nodes=[helper.make_node("SplitToSequence", ["images"], ["logits"])],
            gives=[helper.make_tensor_sequence_value_info("logits", TensorProto.FLOAT, None)],
            tensors=[],
        ),
        "a text as logits": model(
            nodes=[constant(helper.make_tensor("t", TensorProto.STRING, [1, 1], [b"x"]), "logits")],
            gives=[value("logits", TensorProto.STRING, [1, 1])],
            tensors=[],
        ),
        "whole numbers that are NaN": model(
            nodes=[
                *network().graph.node[:1],
                helper.make_node("Gemm", ["flat", "weight", "bias"], ["plain"]),
                helper.make_node("Sub", ["plain", "plain"], ["zero"]),
                helper.make_node("Div", ["zero", "zero"], ["logits"]),
            ]
        ),
        "cut": lambda p: network().SerializeToString()[:5000],
        "a file of ONNX Runtime's own format": lambda p: b"\x18\0\0\0ORTM" + bytes(200),
        "100,000 bytes of one field in another": lambda p: b"\x3a\xff\xff\x7f" * 25_000,
        "a pickle": lambda p: torch_saved(Runs(p.touch)),
    }
    return found


DESCRIPTIONS: list[Any] = [
    None,
    "",
    "[" * 100_000,
    '{"a":' * 100_000,
    "null",
    "\0",
    json.dumps(dict.fromkeys(map(str, range(200_000)), 0)),
    *({key: value for key, value in DESCRIPTION.items() if key != without} for without in list(DESCRIPTION)[:5]),
    DESCRIPTION | {"num_classes": 10**6},
    DESCRIPTION | {"num_classes": 10**30},
    DESCRIPTION | {"num_classes": 9},
    DESCRIPTION | {"in_channels": 2},
    DESCRIPTION | {"in_channels": 3},
    DESCRIPTION | {"in_channels": 5},
    DESCRIPTION | {"image_size": [15, 16]},
    DESCRIPTION | {"image_size": [16]},
    DESCRIPTION | {"image_size": [16, 16, 16]},
    DESCRIPTION | {"image_size": [10**4, 10**4]},
    DESCRIPTION | {"image_size": [10**5, 10**5]},
    DESCRIPTION | {"image_size": [1, 10**5]},
    DESCRIPTION | {"batch_size": 2**31},
    DESCRIPTION | {"batch_size": 10**6},
    DESCRIPTION | {"batch_size": 0},
    DESCRIPTION | {"normalises": False, "mean": [0.3] * 3},
    DESCRIPTION | {"normalises": False, "mean": [], "std": []},
    {key: value for key, value in DESCRIPTION.items() if key != "mean"} | {"normalises": False},
    DESCRIPTION | {"bands": 3},
    DESCRIPTION | {"class_names": [""] * 9},
    DESCRIPTION | {"class_names": ["x"] * 10**6},
    DESCRIPTION | {"class_names": "0123456789"},
    DESCRIPTION | {"resize": 0},
    DESCRIPTION | {"resize": [16]},
    DESCRIPTION | {"resize": "x"},
    DESCRIPTION | {"bit_depth": 10**9},
]
"""What files say of themselves that is to be refused."""

ODD_DESCRIPTIONS: list[Any] = [
    DESCRIPTION | {"resize": 10**5, "center_crop": [16, 16]},
    DESCRIPTION | {"resize": 10**5},
    DESCRIPTION | {"resize": [10**5, 10**5]},
    DESCRIPTION | {"resize": [1, 10**5], "center_crop": [16, 16]},
    DESCRIPTION | {"resize": 20, "center_crop": [10**4, 10**4]},
    DESCRIPTION | {"center_crop": "x", "interpolation": MARKUP},
    DESCRIPTION | {"center_crop": [-1, -1]},
    DESCRIPTION | {"class_names": ["x"] * 10},
    DESCRIPTION | {"class_names": ["x" * 10**5] * 10},
    DESCRIPTION | {"normalises": False, "std": [1e-30]},
    DESCRIPTION | {"predictor": "x" * 10**6},
    DESCRIPTION | {"batch_size": 100},
]
"""What may be strange, and still be read."""


def exported() -> Iterator[Attack]:
    """A file in place of an exported network: predict FILE PATH..."""
    predict = ("predict", "net.onnx", "image.png")

    def put(place: Place, content: onnx.ModelProto | bytes, name: str = "net.onnx") -> None:
        picture(place)
        (place.work / name).write_bytes(content if isinstance(content, bytes) else content.SerializeToString())

    for what in onnx_files():
        yield Attack("exported", f"ONNX: {ascii(what)}", lambda p, w=what: put(p, onnx_files()[w](p)), predict)
    yield Attack("exported", "ONNX as it should be", lambda p: put(p, network()), predict, refused=False)
    yield Attack(
        "exported",
        "ONNX: 50,000 nodes",
        lambda p: put(p, chain(50_000)),
        predict,
        refused=False,
    )
    for told in (DESCRIPTIONS, ODD_DESCRIPTIONS):
        for description in told:
            yield Attack(
                "exported",
                f"its description is {description_in_words(description)}",
                lambda p, d=description: put(p, network(d)),
                predict,
                refused=told is DESCRIPTIONS,
            )
    for text in NAMES:
        for how, options in SHOWS.items():
            yield Attack(
                "exported",
                f"its classes are called {ascii(text)}, shown {how}",
                lambda p, t=text: put(p, network(DESCRIPTION | {"class_names": [f"{t}{k or ''}" for k in range(10)]})),
                (*predict, *options),
                refused=False,
            )
        name = f"{text.replace('/', '')}.onnx"
        yield Attack(
            "exported",
            f"the file is called {ascii(name)}",
            lambda p, n=name: put(p, b"x", n),
            ("predict", name, "image.png"),
        )
    for ending in ("onnx", "pt2", "ort", "pt", "py"):
        for what, maker in NO_FILES.items():
            yield Attack(
                "exported",
                f"net.{ending} is {what}",
                lambda p, m=maker, e=ending: (picture(p), m(p.work / f"net.{e}")),
                ("predict", f"net.{ending}", "image.png"),
            )
        yield Attack(
            "exported",
            f"net.{ending} runs a command",
            lambda p, e=ending: put(p, torch_saved(Runs(p.touch)), f"net.{e}"),
            ("predict", f"net.{ending}", "image.png"),
        )
        yield Attack(
            "exported",
            f"net.{ending} is given to other commands",
            lambda p, e=ending: put(p, torch_saved(Runs(p.touch)), f"net.{e}"),
            ("evaluate", f"net.{ending}", "--data", "digits"),
        )
    for option in (("--predictor", "peer0"), ("--out", "../outside/secret.txt"), ("--out", "image.png")):
        yield Attack("exported", f"with {' '.join(option)}", lambda p: put(p, network()), (*predict, *option))


def description_in_words(description: object) -> str:
    if not isinstance(description, dict):
        return ascii(description)[:60]
    other = {key: value for key, value in description.items() if value != DESCRIPTION.get(key)}
    lacks = [key for key in DESCRIPTION if key not in description]
    return f"{str(other)[:80]}{' without ' + ', '.join(lacks) if lacks else ''}"


def chain(count: int) -> onnx.ModelProto:
    usual = list(network().graph.node)
    usual[1].output[0] = "x0"
    steps = [helper.make_node("Abs", [f"x{k}"], [f"x{k + 1}"]) for k in range(count)]
    return network(nodes=[*usual, *steps, helper.make_node("Identity", [f"x{count}"], ["logits"])])
