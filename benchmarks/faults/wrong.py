"""Wrong options, recipes, data, arrays, networks, arguments: each is refused in one sentence, and nothing is written.

python benchmarks/faults/wrong.py [--declared 300] [--seed 0] [--out FOLDER]

Most cases are made from what the command line itself declares: every option of every command, method and data set is
given values that are not of its kind. The others are a table of what people get wrong.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from PIL import Image
from torch import nn
from trials import (
    OK,
    TINY,
    Case,
    Record,
    command,
    copy,
    finish,
    make_study,
    must,
    parser,
    sentence_fault,
    snapshot,
    trial,
    warm,
)


@dataclass(frozen=True)
class Wrong:
    """One case: what is called, in words and as a call, in a folder with a finished run and a study."""

    kind: str
    what: str
    call: Callable[[], object]


def values_against(kind: Any) -> list[str]:
    """Texts that are no value of an annotated kind; none where any text is one."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        parts = [values_against(part) for part in arguments if part is not NoneType]
        return [text for text in parts[0] if all(text in part for part in parts)] if parts else []
    if origin is Literal:
        return ["nothing_such", "[]", "1.5"]
    if origin is tuple:
        return ["nothing_such", "[nothing]", "[[1]]", "{a: 1}", "[nan]"]
    known = {
        int: ["nothing_such", "1.5", "nan", "1e400", "[1]", "true", "-99999999999999999999999"],
        float: ["nothing_such", "nan", "inf", "-inf", "[1]", "true", "1e999", "1e300"],
        bool: ["maybe", "2", "[]", "1.5"],
    }
    return known.get(kind, [])


def options() -> Iterator[Wrong]:
    """Every option that has a kind, with what is not of it."""
    from collegium import cli, data, methods

    made = {f"method {name}": ("train", "--method", name) for name in methods.names()}
    made |= {f"data {name}": ("train", "--data", name) for name in data.names() if ":" not in name}
    made |= {f"data {kind}": ("train", "--data", f"{kind}:{rest}") for kind, rest in KINDS_OF_DATA.items()}
    made |= {"compare": ("compare", "--methods", "dml", "--study", "new"), "reproduce": ("reproduce", "ffl/table1a")}
    made |= {name: (name, "run") for name in ("evaluate", "report", "export")} | {"rank": ("rank", ".")}
    made |= {"predict": ("predict", "run", "image.png"), "push": ("push", "run", "me/net")}
    seen = set()
    for title, (name, *arguments) in made.items():
        for option, kind in cli.COMMANDS[name][0](arguments).kinds.items():
            if (name, option, str(kind)) in seen:
                continue
            seen.add((name, option, str(kind)))
            for text in ["x"] if kind is None else values_against(kind):
                given = [f"{option}={text}"]
                where = [] if name != "train" else ["--run", "new", "--quiet"]
                yield Wrong(f"options of {name}", f"{title}: {given[0]}", command(name, *arguments, *where, *given))
            yield Wrong(f"options of {name}", f"{title}: {option}_x=1", command(name, *arguments, f"{option}_x=1"))


KINDS_OF_DATA = {"folder": "images", "torchvision": "MNIST", "huggingface": "mnist"}


def in_words(*arguments: str) -> Wrong:
    known = ("train", "compare", "reproduce", "rank", "evaluate", "predict", "report", "export", "push", "list")
    kind = arguments[0] if arguments[0] in known else "no command"
    return Wrong(kind, " ".join(arguments)[:120], command(*arguments))


def train(*arguments: str) -> Wrong:
    return Wrong("train", " ".join(arguments)[:120], command("train", *TINY, "--run", "new", "--quiet", *arguments))


def commands() -> Iterator[Wrong]:
    """What people write wrongly."""
    ranges = {
        "--epochs": ["0", "-1"],
        "--batch-size": ["0", "-5", "1"],
        "--learning-rate": ["0", "-0.1"],
        "--momentum": ["1", "-0.1", "2"],
        "--weight-decay": ["-1"],
        "--warmup": ["1", "-1"],
        "--label-smoothing": ["1", "-0.5"],
        "--mixup": ["-1"],
        "--cutmix": ["-1"],
        "--milestones": ["[0]", "[1]", "[2]", "[-1]"],
        "--gradient-clip": ["0", "-1"],
        "--optimizer": ["lam", "", "adahessian", "bnbadam"],
        "--optimizer-options": ["x", "{nothing: 1}", "{lr: 1}"],
        "--min-learning-rate": ["-1", "1000", "0.001"],
        "--layer-decay": ["0", "2"],
        "--peer-learning-rates": ["[0.1]", "[0.1, x]", "[0.1, 0]"],
        "--peer-weight-decays": ["[0.1]", "[0.1, -1]"],
        "--micro-batches": ["0", "3", "1000"],
        "--ema": ["0", "1", "-0.5"],
        "--freeze": ["nothing*", "*", ""],
        "--patience": ["0", "1"],
        "--class-weights": ["balance", "[1]", "[-1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"],
        "--sampling": ["even"],
        "--loggers": ["nothing", ","],
        "--baseline-from": ["nowhere", "run", ""],
        "--decay": ["0", "-1"],
        "--seed": ["-1", "9223372036854775808"],
        "--weight-seed": ["-1"],
        "--evaluate-every": ["0"],
        "--checkpoint-every": ["0"],
        "--keep-checkpoints": ["0"],
        "--devices": ["0", "-1", "1000"],
        "--num-nodes": ["0", "-1", "2"],
        "--precision": ["fp16", "fp64"],
        "--device": ["cuda", "tpu"],
        "--cuda-graphs": ["true"],
        "--layout": ["peers", "rows"],
        "--share-until": ["stage9", "", "stage2,stage1", "stage1,", "0"],
        "--teacher": ["nowhere", "run", "", "recipe.yaml"],
        "--start-from": ["nowhere", "", "recipe.yaml", "."],
        "--config": ["nowhere", "", ".", "run", "recipe.yamll", "run/metrics.csv", "run/result.json"],
        "--run": [
            "",
            ".",
            "run/recipe.yaml",
            "run/recipe.yaml/x",
            "x" * 300,
            "/proc/x",
            "a\0b",
            "~nobody_such/x",
        ],
        "--method": ["", "nothing", "dml:temperature=2", "module:", "module:x", "module:os.path", "module:nothing.net"],
        "--method.temperature": ["0", "-1"],
        "--method.nothing": ["1"],
        "--data": [
            "",
            "nothing",
            "digit",
            "folder",
            "folder:",
            "folder:nowhere",
            "folder:run/recipe.yaml",
            "digits:x",
            "module:",
            "module:os.getcwd",
            "torchvision:Nothing",
            "torchvision:",
            "scene",
            "spectra",
        ],
        "--data.per-class": ["0", "-1", "100000"],
        "--data.validation": ["1", "-0.1", "2", "0.99999"],
        "--data.split-seed": ["-1"],
        "--data.label-noise": ["-0.1", "1", "2"],
        "--data.padding": ["-1", "10000"],
        "--data.nothing": ["1"],
        "--data.transform": ["", "x", "module:", "module:os.path", "module:nothing.change"],
        "--peers": [
            "",
            ",",
            "resnet8,,resnet8",
            "0xresnet8",
            "-1xresnet8",
            "resnet",
            "resnet9",
            "resnet8x2",
            "1000000xresnet8",
            "wrn_10",
            "timm/nothing",
            "timm/",
            "timm/resnet18:nothing=1",
            "torchvision/nothing",
            "module:nothing.net",
            "module:os.system",
            "resnet8:",
            "resnet8:a",
            "resnet8:a=",
            "resnet8:weights=",
            "resnet8:weights=nowhere.pt",
            "resnet8:weights=run/recipe.yaml",
            "resnet8:weights=run",
            "resnet8:weights=.",
            "resnet8:weights=broken.onnx",
            "resnet8:weights=broken.pt2",
            "resnet8:weights=image.png",
            "resnet8:weights=run/peers/peer0/config.json",
            "resnet8:weights=run/checkpoints/step_000000004.pt",
            "resnet8:weights=run/peers/peer0/model.safetensors.sha256",
            "resnet14:weights=run/peers/peer0/model.safetensors",
            "timm/resnet10t:weights=run/peers/peer0/model.safetensors",
            "timm/resnet10t:weights=",
            "timm/resnet10t:checkpoint_path=run/peers/peer0/model.safetensors",
            "torchvision/resnet18:weights=DEFAULT",
            "torchvision/resnet18:weights=IMAGENET1K_V1",
            "resnet8:weight=run/peers/peer0/model.safetensors",
            "resnet8:weights=run/peers/peer0/model.safetensors:weights=nowhere.pt",
            "resnet8:weights=/dev/null",
            "resnet8:weights=" + "x" * 300,
            "resnet8:normalise=x",
            "timm/resnet18:weights=run/result.json",
            "hybridsn",
            "ssrn",
            "vgg12",
            "densenet_13_12",
            "2x",
            "x",
            "2 x resnet8",
            "resnet8;resnet8",
            "1e3xresnet8",
            "wrn_16_0",
            "resnet8 resnet14",
        ],
    }
    for option, texts in ranges.items():
        for text in texts:
            yield train(option, text)
    for arguments in (
        (),
        ("run",),
        ("--run",),
        ("-r", "x"),
        ("--lr", "0.1"),
        ("--epoch", "3"),
        ("--", "x"),
        ("--method.", "1"),
        ("--method.temperature",),
        ("--run=",),
        ("---run", "x"),
        ("--no-quiet",),
        ("--quiet", "yes"),
    ):
        if arguments:
            yield train(*arguments)
    for first in ("", "trian", "Train", "--run", "-v", "help", "train\n", "\x1b[2J", "x" * 5000):
        yield in_words(first)
    for arguments in (
        ("--data", "nothing"),
        ("--data", "folder:nowhere"),
        ("--predictor", "x"),
        ("--predictions", "labels.txt"),
        ("--predictions", ""),
        ("--json", "yes"),
    ):
        yield in_words("evaluate", "run", *arguments)
    for arguments in (
        (),
        ("run",),
        ("nowhere", "run"),
        ("run", "nowhere.png"),
        ("run", "run"),
        ("run", "run/recipe.yaml"),
        ("", "run"),
        ("run", ""),
        ("study", "run"),
        ("unfinished", "run"),
        ("run/recipe.yaml", "run"),
        ("run", "broken.png"),
        ("run", "broken"),
        ("run", "image.png", "broken"),
        ("run", "empty"),
        ("run", "/dev/null"),
        ("run", "a\0b"),
        ("run", "x" * 300),
        ("nowhere", "image.png"),
        ("nowhere.onnx", "image.png"),
        ("nowhere.pt2", "image.png"),
        ("broken.onnx", "image.png"),
        ("broken.pt2", "image.png"),
        ("image.png", "image.png"),
        ("run/result.json", "image.png"),
        ("run/peers", "image.png"),
        ("run/peers/peer9", "image.png"),
        ("study", "image.png"),
        ("unfinished", "image.png"),
        ("hf://net", "image.png"),
        ("hf://", "image.png"),
        ("image.png", "run"),
        ("run", "image.png", "--out", "labels.txt"),
        ("run", "image.png", "--out", "labels"),
        ("run", "image.png", "--out", ""),
        ("run", "image.png", "--out", "run"),
        ("run", "image.png", "--out", "/proc/x.csv"),
        ("run", "image.png", "--out", "image.png/x.csv"),
        ("run", "image.png", "--predictor", "peer9"),
        ("run", "image.png", "--predictor", ""),
        ("run", "image.png", "--predictor", "fused"),
        ("run", "image.png", "--predictor", "peer0_ema"),
        ("run", "image.png", "--predictor", "../peer0"),
        ("run/peers/peer0", "image.png", "--predictor", "ensemble"),
        ("broken.onnx", "image.png", "--predictor", "peer0"),
        ("run", "image.png", "--batch-size", "0"),
        ("run", "image.png", "--batch-size", "many"),
        ("run", "image.png", "--workers", "-1"),
        ("run", "image.png", "--workers", "1.5"),
        ("run", "image.png", "--top", "0"),
        ("run", "image.png", "--top", "-1"),
        ("run", "image.png", "--top", "all"),
        ("run", "image.png", "--json", "yes"),
        ("run", "image.png", "--format", "csv"),
        ("run", "image.png", "--nothing"),
    ):
        yield in_words("predict", *arguments)
    for name in ("evaluate", "report", "export"):
        for what in (
            "nowhere",
            "",
            ".",
            "study",
            "run/recipe.yaml",
            "run/peers",
            "unfinished",
            "a\0b",
            "x" * 5000,
            "run/checkpoints",
        ):
            yield in_words(name, what)
        yield in_words(name)
        yield in_words(name, "run", "run")
        yield in_words(name, "--run", "run")
    for arguments in (
        ("--format", "pdf"),
        ("--format", ""),
        ("--predictor", "peer9"),
        ("--predictor", ""),
        ("--predictor", "fused"),
        ("--predictor", "../peer0"),
        ("--out", ""),
        ("--out", "/proc/x.pt2"),
        ("--out", "run"),
        ("--out", "nowhere/x"),
        ("--out", "network.onnx"),
        ("--out", "network.pt2", "--format", "onnx"),
        ("--out", "image.png/network.pt2"),
        ("--batch-size", "0"),
        ("--batch-size", "-1"),
        ("--opset", "18"),
        ("--opset", "1"),
        ("--opset", "0", "--format", "onnx"),
        ("--opset", "17", "--format", "onnx"),
        ("--opset", "999", "--format", "onnx"),
        ("--opset", "newest", "--format", "onnx"),
        ("--precision", "fp7"),
        ("--precision", ""),
        ("--precision", "16"),
        ("--precision", "bf16"),
        ("--precision", "int8"),
        ("--precision", "int8", "--format", "torch"),
    ):
        yield in_words("export", "run", *arguments)
    yield in_words("export", "run/peers/peer0", "--precision", "int8", "--format", "onnx")
    yield in_words("export", "hf://me/net")
    yield in_words("export", "hf://me/net", "--out", "network.pt2", "--predictor", "peer0")
    for arguments in (
        (),
        ("run",),
        ("run", ""),
        ("run", "net"),
        ("run", "a/b/c"),
        ("run", "me/"),
        ("run", "/net"),
        ("run", "../net"),
        ("run", "hf://me/net"),
        ("run", "me/" + "x" * 97),
        ("run", "me/a net"),
        ("nowhere", "me/net"),
        ("", "me/net"),
        ("study", "me/net"),
        ("unfinished", "me/net"),
        ("run/recipe.yaml", "me/net"),
        ("run/peers", "me/net"),
        ("image.png", "me/net"),
        ("run", "me/net", "--predictor", "peer9"),
        ("run", "me/net", "--predictor", ""),
        ("run", "me/net", "--predictor", "ensemble"),
        ("run", "me/net", "--predictor", "../peer0"),
        ("run", "me/net", "--private", "maybe"),
        ("run", "me/net", "--public"),
        ("run", "me/net", "net"),
    ):
        yield in_words("push", *arguments)
    for arguments in (
        (),
        ("nowhere",),
        ("",),
        ("run/peers",),
        ("run/recipe.yaml",),
        ("--methods", "dml"),
        ("--study", "new"),
        ("--methods", "", "--study", "new"),
        ("--methods", "nothing", "--study", "new"),
        ("--methods", "dml:nothing=1", "--study", "new"),
        ("--methods", "dml:temperature=x", "--study", "new"),
        ("--methods", "dml", "--study", "run"),
        ("--methods", "dml", "--study", "new", "--seeds", "x"),
        ("--methods", "dml", "--study", "new", "--seeds", ""),
        ("--methods", "dml", "--study", "new", "--seeds", "3-1"),
        ("--methods", "dml", "--study", "new", "--seeds", "-1"),
        ("--methods", "dml", "--study", "new", "--seeds", "0-999999999"),
        ("--methods", "dml", "--study", "new", "--seeds", "1.5"),
        ("--methods", "dml", "--study", "new", "--workers", "0"),
        ("--methods", "dml", "--study", "new", "--workers", "-1"),
        ("--methods", "dml", "--study", "new", "--peers", ""),
        ("--methods", "dml", "--study", "new", "--peers", ";"),
        ("--methods", "dml", "--study", "new", "--peers", "nothing"),
        ("--methods", "kd", "--study", "new"),
        ("--methods", "kd", "--study", "new", "--teacher", "nothing"),
        ("--methods", "dml", "--study", ""),
        ("--methods", "dml", "--study", "new", "--contrasts", "dml vs ffl"),
        ("--methods", "dml", "--study", "new", "--contrasts", "x"),
        ("--methods", "dml", "--study", "new", "--margin", "0"),
        ("--methods", "dml", "--study", "new", "--margin", "-1"),
        ("--methods", "dml", "--study", "new", "--deployed", "x"),
        ("--methods", "dml", "--study", "new", "--plan-only"),
        ("--methods", "dml,ffl", "--study", "new", "--method.temperature", "2"),
        ("--methods", "dml", "--study", "new", "--seed", "1"),
        ("--methods", "dml", "--study", "new", "--executor", "slurm"),
        ("--methods", "dml", "--study", "new", "--address", "x"),
        ("--methods", "dml", "--study", "/proc/x"),
        ("--methods", "dml", "--study", "x" * 300),
        ("--methods", "dml", "--study", "new", "--vary", "all"),
        ("--methods", "dml", "--study", "new", "--sweep", "x"),
        ("--methods", "dml", "--study", "new", "--sweep", ""),
        ("--methods", "dml", "--study", "new", "--sweep", "seed=1,2"),
        ("--methods", "dml", "--study", "new", "--sweep", "learning_rate=0.1,0"),
        ("study", "--methods", "dml"),
        ("study", "nowhere"),
        ("--methods", "ffsd", "--study", "new"),
        ("--methods", "dml:seed=3", "--study", "new"),
        ("--methods", "dml", "--study", "new", "--data", "nothing"),
        ("--methods", "dml", "--study", "new", "--config", "x"),
    ):
        yield in_words("compare", *arguments)
    for arguments in (
        (),
        ("nothing",),
        ("",),
        ("ffl",),
        ("ffl/table1a", "--scale", "0"),
        ("ffl/table1a", "--scale", "-1"),
        ("ffl/table1a", "--scale", "2"),
        ("ffl/table1a", "--only", "nothing such"),
        ("ffl/table1a", "--seeds", "x"),
        ("ffl/table1a", "--study", ""),
        ("ffl/table1a", "--study", "run"),
        ("ffl/table1a", "--workers", "0"),
        ("../x",),
    ):
        yield in_words("reproduce", *arguments)
    for arguments in (
        ("nowhere",),
        ("",),
        ("run/recipe.yaml",),
        (".", "--data", "nothing"),
        (".", "--peers", "nothing"),
        (".", "--metric", "x"),
        (".", "x"),
        (".", "--data", ""),
    ):
        yield in_words("rank", *arguments)
    for what in ("", "nothing", "method", "methods --jsn", "methods x"):
        yield in_words("list", *what.split(" "))
    for shell in ("", "nothing"):
        yield in_words("--print-completion", shell)


def recipes() -> Iterator[Wrong]:
    """Recipes that are none."""
    texts = {
        "empty": "",
        "a list": "- 1\n",
        "a text": "hello\n",
        "a number": "3\n",
        "not YAML": "a: [",
        "two documents": "a: 1\n---\nb: 2\n",
        "an unknown entry": "epoch: 3\n",
        "a number as a key": "3: 4\n",
        "a nested unknown": "method: {nam: ffl}\n",
        "no name": "method: {}\n",
        "a list as method": "method: [ffl]\n",
        "a number as data": "data: 3\n",
        "null as peers": "peers: null\n",
        "a list of peers": "peers: [resnet8]\n",
        "a text as epochs": "epochs: ten\n",
        "a float as epochs": "epochs: 3.5\n",
        "NaN": "learning_rate: .nan\n",
        "infinite": "learning_rate: .inf\n",
        "negative": "learning_rate: -1\n",
        "a bool as seed": "seed: true\n",
        "a date": "seed: 2024-01-01\n",
        "tabs": "epochs:\t\t3\n\tseed: 1\n",
        "an alias": "method: &a {name: ffl}\ndata: *a\n",
        "a tag": "epochs: !!int '3x'\n",
        "latin-1": "peers: r\xe9seau\n",
        "a teacher that is a number": "teacher: 3\n",
        "milestones as text": "milestones: 0.5\n",
        "a binary": "peers: !!binary aGVsbG8=\n",
        "a set": "peers: !!set {a, b}\n",
        "duplicate of other kind": "method: ffl\nmethod: [x]\n",
        "options of another method": "method: {name: dml, ekd: false}\n",
        "options of wrong kind": "method: {name: dml, temperature: hot}\n",
        "NaN in a method": "method: {name: dml, temperature: .nan}\n",
        "options of other data": "data: {name: digits, root: x}\n",
        "NaN in data": "data: {name: digits, validation: .nan}\n",
        "a list in a data option": "data: {name: digits, per_class: [5]}\n",
    }

    def call(text: str) -> Callable[[], None]:
        def run() -> None:
            Path("wrong.yaml").write_bytes(text.encode("latin-1"))
            try:
                command("train", "--config", "wrong.yaml", "--run", "new", "--quiet")()
            finally:
                Path("wrong.yaml").unlink()

        return run

    for name, text in texts.items():
        yield Wrong("recipes", name, call(text))
    entries: dict[str, list[Any]] = {
        "epochs": [0, None, [], {}],
        "peers": [3, [], {}, ""],
        "seed": [-1, "x", 2**70],
        "batch_size": [0, None, 1.5],
        "optimizer": ["rmspropp", 3, None],
        "schedule": ["linear", 1],
        "channels_last": [3, "x"],
        "precision": ["fp8", 16],
        "learning_rate": ["0,1", None, []],
        "share_until": [3, []],
        "milestones": [[0.5, "x"], [2], {}],
    }
    for name, wrong in entries.items():
        for value in wrong:
            yield Wrong("recipes", f"{name}: {value!r}", call(json.dumps({name: value})))


def called(function: Callable[[], object]) -> Callable[[], None]:
    """A call from Python that ends as a command does."""

    def call() -> None:
        import sys

        from collegium.errors import CollegiumError

        try:
            function()
        except CollegiumError as error:
            print(f"collegium: {error}", file=sys.stderr)
            sys.exit(error.exit_status)

    return call


def arrays() -> Iterator[Wrong]:
    """Arrays, networks and arguments from Python."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    good = ((x, y), (x, y))
    floats = x.astype(np.float32)
    bad_images = {
        "no images": x[:0],
        "one dimension": np.zeros(40, np.uint8),
        "two dimensions": np.zeros((40, 64), np.uint8),
        "five dimensions": x[None],
        "more images than labels": x[:39],
        "objects": np.array([object()] * 40),
        "texts": np.array(["a"] * 40),
        "channels first": np.moveaxis(x, 3, 1),
        "17 channels": np.zeros((40, 8, 8, 17), np.uint8),
        "no pixels": np.zeros((40, 0, 8, 3), np.uint8),
        "no channels": np.zeros((40, 8, 8, 0), np.uint8),
        "NaN": np.where(draw.random(x.shape) < 0.01, np.nan, floats),
        "infinite": floats + np.inf,
        "complex": x * 1j,
        "dates": x.astype("datetime64[s]"),
        "beyond float32": floats.astype(np.float64) * 1e300,
        "None": None,
        "a text": "x",
        "a list": [1, 2, 3],
        "nested lists": [[1], [2, 3]],
        "int64 beyond 255": x.astype(np.int64) * 1000,
        "negative": -x.astype(np.int64) - 1,
        "bool": x > 3,
        "a number": 3,
        "a generator": (image for image in x),
    }
    for name, value in bad_images.items():
        for part in ("train", "test"):
            data = ((value, y), good[1]) if part == "train" else (good[0], (value, y))
            yield Wrong("images from Python", f"{part}: {name}", with_data(data))
    bad_labels = {
        "none": y[:0],
        "NaN": np.where(y == 1, np.nan, y),
        "floats with halves": y + 0.5,
        "infinite": y + np.inf,
        "negative": y - 2,
        "one class": y * 0,
        "two dimensions": np.eye(4)[y],
        "texts": y.astype(str),
        "objects": np.array([object()] * 40),
        "too few": y[:-1],
        "too large": y + 10**9,
        "beyond int64": y.astype(np.uint64) + 2**63,
        "bool of one": y < 99,
        "dates": y.astype("datetime64[s]"),
        "None": None,
        "begins at 1": y + 1,
        "gaps": y * 100,
        "255 as nothing": np.where(y == 3, 255, y),
        "a number": 3,
        "complex": y * 1j,
        "nested": [[0], [1, 2]],
    }
    for name, value in bad_labels.items():
        known = name in ("one class", "bool of one", "begins at 1")  # on one side: a note tells of it
        if known:
            yield Wrong("labels from Python", f"both: {name}", with_data(((x, value), (x, value))))
        else:
            yield Wrong("labels from Python", f"train: {name}", with_data(((x, value), good[1])))
            yield Wrong("labels from Python", f"test: {name}", with_data((good[0], (x, value))))
    others: dict[str, Any] = {
        "one pair": good[0],
        "three": (*good, good[0]),
        "no pairs": ((), ()),
        "a number": 3,
        "a set": {1, 2},
        "a list": [],
        "arrays alone": (x, y),
        "a dict without a name": {"per_class": 3},
        "other channels": ((x, y), (x[..., :1], y)),
        "other sizes": ((x, y), (x[:, :4], y)),
        "a class": dict,
        "bytes": b"digits",
        "a number as name": {"name": 3},
    }
    for name, value in others.items():
        yield Wrong("data from Python", name, with_data(value))
    networks: dict[str, Callable[[], Any]] = {
        "no networks": list,
        "a text": lambda: ["resnet8"],
        "a class": lambda: [nn.Linear, nn.Linear],
        "a function": lambda: [len, len],
        "None": lambda: [None, None],
        "other classes": lambda: [net(3), net(3)],
        "no parameters": lambda: [nn.Flatten(), nn.Flatten()],
        "other channels": lambda: [net(4, 5), net(4, 5)],
        "raises": lambda: [Raises(), Raises()],
        "None as output": lambda: [Says(None)] * 2,
        "a text as output": lambda: [Says("x")] * 2,
        "one output": lambda: [Says(torch.zeros(()))] * 2,
        "a map as output": lambda: [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)],
        "the same twice": lambda: [net(4)] * 2,
        "a tuple of two": lambda: [Says((1, 2))] * 2,
        "integers": lambda: [Says(torch.zeros(2, 4, dtype=torch.int64))] * 2,
        "frozen": frozen,
        "a number": lambda: 3,
        "NaN weights": lambda: [nan_weights(), nan_weights()],
        "a dict": lambda: {"a": net(4)},
        "one for two": lambda: [net(4)],
    }
    for name, make in networks.items():
        yield Wrong("networks from Python", name, with_networks(make))
    calls: dict[str, dict[str, Any]] = {
        "an unknown entry": {"epoch": 3},
        "epochs as text": {"epochs": "3"},
        "peers as a number": {"peers": 3},
        "a run of bytes": {"run": b"x"},
        "a run as a number": {"run": 3},
        "method as a list": {"method": ["ffl"]},
        "a method of no name": {"method": {}},
        "NaN": {"learning_rate": float("nan")},
        "a tensor": {"learning_rate": torch.tensor(0.1)},
        "milestones as a set": {"milestones": {0.5}},
        "devices as text": {"devices": "two"},
        "trust as text, of a config": {"config": 3},
        "a teacher of no use": {"teacher": "run"},
        "a layout": {"layout": "x"},
        "seed as text": {"seed": "1"},
        "a teacher as number": {"teacher": 3},
        "data as None name": {"data": {"name": None}},
    }
    for name, changes in calls.items():
        yield Wrong("calls from Python", name, with_call(changes))


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("I never answer\nin one line")


class Says(nn.Module):
    def __init__(self, what: object) -> None:
        super().__init__()
        self.what, self.w = what, nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> object:
        return self.what


def net(classes: int, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def frozen() -> list[nn.Module]:
    return [net(4).requires_grad_(False) for _ in range(2)]


def nan_weights() -> nn.Module:
    made = net(4)
    nn.init.constant_(made[0].weight, float("nan"))  # type: ignore[index, union-attr]
    return made


SMALL: dict[str, Any] = {"method": "dml", "epochs": 1, "batch_size": 20, "device": "cpu", "quiet": True, "run": "new"}


def with_data(data: Any) -> Callable[[], None]:
    from collegium import api

    return called(lambda: api.train(data=data, peers="2xresnet8", **SMALL))


def with_networks(make: Callable[[], Any]) -> Callable[[], None]:
    from collegium import api

    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    return called(lambda: api.train(data=((x, y), (x, y)), peers=make(), **SMALL))


def with_call(changes: dict[str, Any]) -> Callable[[], None]:
    from collegium import api

    data = {"data": {"name": "digits", "per_class": 4}, "peers": "2xresnet8"}
    return called(lambda: api.train(**SMALL | data | changes))


def table(declared: int, seed: int) -> list[Wrong]:
    """All that are written out, and so many of those that are made from what the command line declares."""
    return [*commands(), *recipes(), *arrays(), *sample(list(options()), declared, seed)]


def check(wrong: Wrong, work: Path, before: dict[str, tuple[Any, ...]]) -> tuple[str, float]:
    """Its outcome, and seconds of computing."""
    outcome = trial(wrong.call, work, seconds=60.0)
    found = sentence_fault(outcome, work)
    after = snapshot(work)
    if after != before:
        changed = sorted(name for name in after.keys() | before.keys() if after.get(name) != before.get(name))
        found = found or f"left {', '.join(changed[:3])}"
    return found or OK, outcome.seconds


def sample(every: list[Wrong], count: int, seed: int) -> list[Wrong]:
    """So many of each kind as its share is, the same for a seed."""
    draw = random.Random(seed)
    return every if count >= len(every) else [every[k] for k in sorted(draw.sample(range(len(every)), count))]


def main() -> None:
    made = parser(__doc__ or "", 100_000)
    made.add_argument("--declared", type=int, default=300, help="cases made from what the command line declares")
    given = made.parse_args()
    warm()
    record = Record("wrong", given.out)
    with tempfile.TemporaryDirectory() as scratch:
        base, work = Path(scratch) / "base", Path(scratch) / "work"
        base.mkdir()
        must(trial(command("train", *TINY, "--run", "run", "--quiet"), base), "training")
        make_study(base)
        shutil.copytree(
            base / "run", base / "unfinished", ignore=shutil.ignore_patterns("result.json*", "peers", "checkpoints")
        )
        Image.new("L", (16, 16), 90).save(base / "image.png")
        (base / "empty").mkdir()
        (base / "broken").mkdir()
        for name in ("broken.png", "broken/a.png", "broken.onnx", "broken.pt2"):
            (base / name).write_bytes(b"broken")
        copy(base, work)
        before = snapshot(work)
        cases = sample(table(given.declared, given.seed), given.count, given.seed)
        for number, wrong in enumerate(cases):
            found, seconds = check(wrong, work, before)
            record.add(Case(number, wrong.kind, ascii(wrong.what)[1:-1], ascii(found)[1:-1], seconds))
            if found != OK:
                shutil.rmtree(work)
                copy(base, work)
                before = snapshot(work)
    finish(record, given)


if __name__ == "__main__":
    main()
