"""Attacks by files of weights: weights=FILE for a peer."""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attack import (
    ELSE,
    ENDLESS_KEY,
    NAMES,
    NO_FILES,
    Attack,
    Place,
    Runs,
    archive,
    change_json,
    change_yaml,
    many_bytes,
    pickle_bomb,
    safetensors_files,
    torch_saved,
    zip_bomb,
)
from safetensors.torch import load_file, save
from torch import Tensor


class Opcodes:
    """What a pickle says in place of weights: the call of a global with arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def old_format(pickled: bytes) -> bytes:
    """A file of torch before 1.6, whose fourth pickle is given."""
    before = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True})
    return b"".join(map(torch_pickle, before)) + pickled


def many_parts(count: int) -> bytes:
    """An archive whose list of parts is long, of which none is there."""
    first = b"PK\x03\x04" + bytes(26)
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    listed = one * count
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(listed), 0)
    where = struct.pack("<IIQI", 0x07064B50, 0, len(listed), 1)
    return (
        first + listed + end + where + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


def lying_archive() -> bytes:
    """An archive whose list says that a part of 1 GiB has ten bytes."""
    file = io.BytesIO(zip_bomb("archive/data.pkl", torch_pickle({}), 16))
    content = bytearray(file.getvalue())
    place = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[place + 24 : place + 28] = struct.pack("<I", 10)
    return bytes(content)


def torch_pickle(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def storage_of_gigabytes() -> bytes:
    """A pickle of a tensor of 10^12 values, whose storage has as many, by the pickle; the file has four bytes."""
    content = torch_saved({"a": torch.zeros(257)})
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        said = packed.read("archive/data.pkl")
    assert said.count(b"M\x01\x01") == 2  # of the storage and of the tensor
    long = 10**12
    return archive(
        {
            "archive/data.pkl": said.replace(b"M\x01\x01", b"\x8a\x06" + long.to_bytes(6, "little")),
            "archive/data/0": bytes(4),
        }
    )


def script_of_torch() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    return file.getvalue()


def torch_files(touch: str) -> dict[str, Callable[[], bytes]]:
    """Contents of .pt files that hold no weights, or more than weights."""
    runs, ten = Runs(touch), torch.zeros(10)
    return {
        "runs a command": lambda: torch_saved({"a": runs}),
        "runs a command, in the old format": lambda: torch_saved(runs, old=True),
        "runs a command, as a plain pickle": lambda: pickle.dumps(runs),
        "runs a command beside weights": lambda: torch_saved({"model": {"a": ten}, "hook": runs}),
        "runs a command as a key": lambda: torch_saved({"a": ten, "b": {"c": [runs]}}),
        "is a whole network": lambda: torch_saved(torch.nn.Linear(2, 2)),
        "is a script of TorchScript": script_of_torch,
        "is a bomb of references": lambda: pickle_bomb(),
        "asks for 10^12 bytes": lambda: torch_saved({"a": Opcodes(bytearray, 10**12)}),
        "asks for 30 GB, in 40 parts": lambda: archive(
            {"archive/data.pkl": b"\x80\x02}(" + many_bytes(40, 7 * 10**8) + b"u."}
        ),
        "asks for a tensor of 10^12 numbers": lambda: torch_saved({"a": Opcodes(torch.FloatTensor, 10**12)}),
        "declares a storage of terabytes": lambda: storage_of_gigabytes(),
        "unpacks to 20 GiB": lambda: zip_bomb("archive/data.pkl", torch_pickle({}), 20),
        "says that 1 GiB are ten bytes": lambda: lying_archive(),
        "has a million parts": lambda: many_parts(1_000_000),
        "has a pickle of 30 million operations": lambda: archive(
            {"archive/data.pkl": b"\x80\x02" + b"}" + b"q\0" * 30_000_000 + b"."}
        ),
        "has a pickle of 30 million operations, in the old format": lambda: old_format(
            b"}" + b"q\0" * 30_000_000 + b"."
        ),
        "has a key of 2^60 values": lambda: archive({"archive/data.pkl": ENDLESS_KEY}),
        "has a key of 2^60 values, in the old format": lambda: old_format(ENDLESS_KEY),
        "has no pickle": lambda: archive({"archive/data/0": bytes(4)}),
        "has parts with paths to elsewhere": lambda: archive(
            {"../../../outside/secret": b"x", "/outside/secret": b"x"}
        ),
        "is nested deeply": lambda: archive({"archive/data.pkl": b"\x80\x02" + b"}" * 100_000 + b"."}),
        "is a list": lambda: torch_saved([ten]),
        "is a number": lambda: torch_saved(3),
        "has numbers as names": lambda: torch_saved({1: ten}),
    }


def odd_tensors(own: dict[str, Tensor]) -> dict[str, dict[Any, Any]]:
    """What makes weights by name wrong in one place."""
    warnings.simplefilter("ignore")  # of torch, on sparse and quantised tensors
    name = next(key for key, value in own.items() if value.ndim == 4)
    one = torch.zeros(1)
    odd: dict[str, Any] = {
        "NaN": own[name] * float("nan"),
        "infinite": own[name] + float("inf"),
        "of another shape": own[name][:, :, :1],
        "a single number": torch.tensor(1.0),
        "of no rows": own[name][:0],
        "whole numbers": own[name].to(torch.int64),
        "true or false": own[name] > 0,
        "complex": own[name] * 1j,
        "of 8-bit floats": own[name].to(torch.float8_e4m3fn),
        "of 8-bit floats that are NaN": (own[name] * float("nan")).to(torch.float8_e5m2),
        "float64 beyond float32": own[name].double() + 1e300,
        "10^12 values of one number": one.expand(10**6, 10**6),
        "10^12 values of one number, in its shape but one": one.expand(10**10, *own[name].shape[1:]),
        "without values": own[name].to("meta"),
        "sparse": own[name].to_sparse(),
        "sparse, of 10^18 values": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), one, (10**9, 10**9)),
        "quantised": torch.quantize_per_tensor(own[name], 0.1, 0, torch.qint8),
        "a nested list": [[0.0]],
    }
    found = {f"a tensor is {what}": {name: value} for what, value in odd.items()}
    found |= {f"a tensor is called {ascii(text)}": {text: one} for text in (*NAMES, "x" * 10**6, "../../x", "")}
    return found


PICKLED_ALONE = ("10^12", "10^18", "without values", "sparse", "quantised", "list")
"""Kinds of tensors that safetensors cannot hold."""


def safetensors_saved(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def weights() -> Iterator[Attack]:
    """A file of weights for a peer: weights=FILE."""

    def training(file: str, network: str = "resnet8") -> tuple[str, ...]:
        return (*ELSE, "--peers", f"{network}:weights={file},resnet8")

    def put(place: Place, name: str, content: bytes | Callable[[Place], bytes]) -> None:
        (place.work / name).write_bytes(content if isinstance(content, bytes) else content(place))

    def own(place: Place) -> dict[str, Tensor]:
        return load_file(place.work / "run/peers/peer0/model.safetensors")

    for number, what in enumerate(safetensors_files()):
        yield Attack(
            "weights",
            f"w.safetensors: {what}",
            lambda p, w=what: put(p, "w.safetensors", safetensors_files()[w]()),
            training("w.safetensors", "resnet8" if number % 4 else "timm/resnet10t"),
        )
    for what in torch_files(""):
        yield Attack(
            "weights",
            f"w.pt {what}",
            lambda p, w=what: put(p, "w.pt", torch_files(p.touch)[w]()),
            training("w.pt"),
        )
    for ending in ("safetensors", "pth"):
        yield Attack(
            "weights",
            f"w.{ending} is a file of torch.save that runs a command",
            lambda p, e=ending: put(p, f"w.{e}", torch_files(p.touch)["runs a command"]()),
            training(f"w.{ending}", "timm/resnet10t"),
        )
    for what in odd_tensors({"x": torch.zeros(1, 1, 3, 3)}):
        for ending, write in (("pt", torch_saved), ("safetensors", safetensors_saved)):
            if ending == "pt" or not any(word in what for word in PICKLED_ALONE):
                yield Attack(
                    "weights",
                    f"w.{ending}: {ascii(what)}"[:120],
                    lambda p, w=what, e=ending, write=write: put(p, f"w.{e}", write(own(p) | odd_tensors(own(p))[w])),
                    training(f"w.{ending}"),
                    refused="8-bit floats" not in what or "NaN" in what,
                )
    positions = {"pos_embed": torch.zeros(1).expand(1, 10**10, 192)}
    yield Attack(
        "weights",
        "w.pt: positions of 10^10 places, which timm would resample",
        lambda p: put(p, "w.pt", torch_saved(positions)),
        training("w.pt", "timm/vit_tiny_patch16_224:img_size=32"),
    )
    for ending in ("pt", "pth", "safetensors"):
        for what, maker in NO_FILES.items():
            yield Attack(
                "weights",
                f"w.{ending} is {what}",
                lambda p, m=maker, e=ending: m(p.work / f"w.{e}"),
                training(f"w.{ending}"),
            )
            yield Attack(
                "weights",
                f"the checksum of w.{ending} is {what}",
                lambda p, m=maker, e=ending: (
                    put(p, f"w.{e}", save(own(p)) if e == "safetensors" else torch_saved(own(p))),
                    m(p.work / f"w.{e}.sha256"),
                ),
                training(f"w.{ending}"),
                refused=False,
            )
    for text in NAMES:
        name = f"{text.replace('/', '').replace(':', '').replace(',', '')}.pt"
        yield Attack(
            "weights",
            f"the file is called {ascii(name)}, and runs a command",
            lambda p, n=name: put(p, n, torch_files(p.touch)["runs a command"]()),
            training(name),
        )
    for value in (
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "/proc/kcore",
        "/etc/passwd",
        "../outside/secret",
        "~root",
    ):
        yield Attack("weights", f"the file is {value}", lambda p: None, training(value))
    for use in (("evaluate", "run"), ("export", "run", "--predictor", "ensemble"), ("report", "run")):
        yield Attack(
            "weights",
            "the peers of recipe.yaml start from files that run a command",
            lambda p: (
                put(p, "w.pt", torch_files(p.touch)["runs a command"]()),
                change_yaml(p.work / "run/recipe.yaml", peers="resnet8:weights=w.pt,timm/resnet10t:weights=/dev/zero"),
            ),
            use,
            refused=False,
        )
    yield Attack(
        "weights",
        "the network of a peer's config.json starts from a file that runs a command",
        lambda p: (
            put(p, "w.pt", torch_files(p.touch)["runs a command"]()),
            change_json(p.work / "run/peers/peer0/config.json", network="resnet8:weights=w.pt"),
        ),
        ("export", "run"),
        refused=False,
    )
