"""Attacks by what others give away: files of weights, repositories of the Hub, exported networks, images to predict."""

import io
import json
import os
import pickle
import shutil
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch
from attack import ELSE, FORMULA, MARKUP, STEERING, Attack, Place, Runs, change_json, change_yaml, pickle_bomb, zip_bomb
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from trials import GIB

Maker = Callable[[Path], object]
NAMES = (*STEERING, MARKUP, FORMULA)


def foreign() -> list[Attack]:
    """All of them."""
    return [*weights(), *hub(), *pushed(), *exported(), *images()]


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind("bound")
        Path("bound").rename(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, Maker] = {
    "a named pipe": os.mkfifo,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a folder": Path.mkdir,
    "a socket": bound_socket,
    "empty": Path.touch,
    "text": lambda path: path.write_text("hello\n" * 100),
    "100 GiB of nothing": lambda path: (path.touch(), os.truncate(path, 100 * GIB)),
}


# Files of weights


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def safetensors_files() -> dict[str, Callable[[], bytes]]:
    """Contents of .safetensors files that are none."""
    one = entry(0, 4, [1])
    twice = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": ' + json.dumps(one).encode() + b"}"
    return {
        "cut in its length": lambda: b"\0\0\0",
        "cut in its header": lambda: safetensors({"a": one})[:20],
        "cut in its data": lambda: safetensors({"a": entry(0, 4000, [1000])}, bytes(10)),
        "a header of 2^63 bytes": lambda: safetensors({"a": one}, bytes(4), 2**63),
        "a header of 2^64 - 1 bytes": lambda: safetensors({"a": one}, bytes(4), 2**64 - 1),
        "a header of 10^9 bytes": lambda: safetensors({"a": one}, bytes(4), 10**9),
        "a header of 50 MB of spaces": lambda: safetensors(
            json.dumps({"a": one}).encode() + b" " * 50_000_000, bytes(4)
        ),
        "no header": lambda: safetensors(b""),
        "a header that is a list": lambda: safetensors([1]),
        "a header of 100,000 lists": lambda: safetensors(b"[" * 100_000),
        "a header of 100,000 mappings": lambda: safetensors(b'{"a":' * 100_000),
        "a header that is not UTF-8": lambda: safetensors(b'{"\xff\xfe": 1}'),
        "no tensors": lambda: safetensors({}),
        "only metadata": lambda: safetensors({"__metadata__": {MARKUP: STEERING[0]}}),
        "a name twice": lambda: safetensors(twice, bytes(4)),
        "offsets that overlap": lambda: safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        "offsets beyond the file": lambda: safetensors({"a": entry(0, 4 * 10**12, [10**12])}, bytes(4)),
        "offsets that go back": lambda: safetensors({"a": entry(8, 4, [1])}, bytes(12)),
        "offsets of 2^64": lambda: safetensors({"a": entry(2**64 - 4, 2**64, [1])}, bytes(4)),
        "a hole": lambda: safetensors({"a": entry(4, 8, [1])}, bytes(8)),
        "10^18 values in no bytes": lambda: safetensors({"a": entry(0, 0, [10**9, 10**9])}),
        "sizes whose product is 2^64": lambda: safetensors({"a": entry(0, 0, [2**32, 2**32])}),
        "a size of 2^63": lambda: safetensors({"a": entry(0, 0, [2**63])}),
        "a size below 0": lambda: safetensors({"a": entry(0, 4, [-1])}, bytes(4)),
        "no values of 10^18 rows": lambda: safetensors({"a": entry(0, 0, [10**18, 0])}),
        "100,000 axes": lambda: safetensors({"a": entry(0, 4, [1] * 100_000)}, bytes(4)),
        "an unknown kind of numbers": lambda: safetensors({"a": entry(0, 4, [1], STEERING[0])}, bytes(4)),
        "200,000 tensors": lambda: safetensors({f"a{k}": entry(0, 0, [0]) for k in range(200_000)}),
        "a name of 10^6 characters": lambda: safetensors({"a" * 10**6: one}, bytes(4)),
    }


class Opcodes:
    """What a pickle says in place of weights: the call of a global with arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def torch_saved(content: object, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old, pickle_protocol=2)
    return file.getvalue()


def archive(parts: dict[str, bytes]) -> bytes:
    """A file of torch.save whose parts are given."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in ({"archive/version": b"3\n", "archive/byteorder": b"little"} | parts).items():
            packed.writestr(name, content)
    return file.getvalue()


def many_parts(count: int) -> bytes:
    """An archive whose list of parts is long, of which none is there."""
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    listed = one * count
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(listed), 0)
    where = struct.pack("<IIQI", 0x07064B50, 0, len(listed), 1)
    return listed + end + where + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)


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
        "asks for 700 MB many times": lambda: torch_saved({f"a{k}": Opcodes(bytearray, 7 * 10**8) for k in range(40)}),
        "asks for a tensor of 10^12 numbers": lambda: torch_saved({"a": Opcodes(torch.FloatTensor, 10**12)}),
        "declares a storage of terabytes": lambda: storage_of_gigabytes(),
        "unpacks to 20 GiB": lambda: zip_bomb("archive/data.pkl", torch_pickle({}), 20),
        "says that 1 GiB are ten bytes": lambda: lying_archive(),
        "has a million parts": lambda: many_parts(1_000_000),
        "has a pickle of 30 million operations": lambda: archive(
            {"archive/data.pkl": b"\x80\x02" + b"}" + b"q\0" * 30_000_000 + b"."}
        ),
        "has a pickle of 30 million operations, in the old format": lambda: (
            torch_saved({}, old=True)[:-60] + b"N0" * 30_000_000 + b"}."
        ),
        "has no pickle": lambda: archive({"archive/data/0": bytes(4)}),
        "has parts with paths to elsewhere": lambda: archive(
            {"../../../outside/secret": b"x", "/outside/secret": b"x"}
        ),
        "is nested deeply": lambda: archive({"archive/data.pkl": b"\x80\x02" + b"}" * 100_000 + b"."}),
        "is a list": lambda: torch_saved([ten]),
        "is a number": lambda: torch_saved(3),
        "has numbers as names": lambda: torch_saved({1: ten}),
    }


def tensor_files(own: dict[str, Tensor]) -> dict[str, dict[Any, Any]]:
    """Weights by name which are wrong in one place."""
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
    found: dict[str, dict[Any, Any]] = {f"a tensor is {what}": own | {name: value} for what, value in odd.items()}
    found |= {f"a tensor is called {ascii(text)}": own | {text: one} for text in (*NAMES, "x" * 10**6, "../../x", "")}
    found["a million names"] = own | dict.fromkeys(map(str, range(100_000)), one)
    return found


def weights() -> Iterator[Attack]:
    """A file of weights for a peer: weights=FILE."""

    def training(file: str, network: str = "resnet8") -> tuple[str, ...]:
        return (*ELSE, "--peers", f"{network}:weights={file},resnet8")

    def put(place: Place, name: str, content: bytes | Callable[[Place], bytes]) -> None:
        (place.work / name).write_bytes(content if isinstance(content, bytes) else content(place))

    def own(place: Place) -> dict[str, Tensor]:
        return load_file(place.work / "run/peers/peer0/model.safetensors")

    for what in safetensors_files():
        for network in ("resnet8", "timm/resnet10t"):
            yield Attack(
                "weights",
                f"w.safetensors: {what}",
                lambda p, w=what: put(p, "w.safetensors", safetensors_files()[w]()),
                training("w.safetensors", network),
            )
    for what in torch_files(""):
        yield Attack(
            "weights",
            f"w.pt {what}",
            lambda p, w=what: put(p, "w.pt", torch_files(p.touch)[w]()),
            training("w.pt"),
        )
        yield Attack(
            "weights",
            f"w.safetensors {what}",
            lambda p, w=what: put(p, "w.safetensors", torch_files(p.touch)[w]()),
            training("w.safetensors", "timm/resnet10t"),
        )
    shapes = {"x": torch.zeros(1, 1, 3, 3)}
    for what in tensor_files(shapes):
        well = "8-bit floats" in what and "NaN" not in what
        yield Attack(
            "weights",
            f"w.pt: {ascii(what)}"[:120],
            lambda p, w=what: put(p, "w.pt", torch_saved(tensor_files(own(p))[w])),
            training("w.pt"),
            refused=not well,
        )
        dense = (value for value in tensor_files(shapes)[what].values())
        if all(isinstance(v, Tensor) and not v.is_sparse and not v.is_quantized and not v.is_meta for v in dense):
            if "10^12" not in what:
                yield Attack(
                    "weights",
                    f"w.safetensors: {ascii(what)}"[:120],
                    lambda p, w=what: put(
                        p, "w.safetensors", save({k: v.contiguous() for k, v in tensor_files(own(p))[w].items()})
                    ),
                    training("w.safetensors"),
                    refused=not well,
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


# The Hub


class Hub:
    """The API of a Hub whose repositories are folders; what it says and gives can be changed.

    Args:
        folder: OWNER/NAME in it is a repository.
        said: what is said of a repository in place of what is so: sha, siblings, and sizes by file.
        give: writes a file that is asked for, by its path there and the one that it is to have.
    """

    def __init__(self, folder: Path, said: dict[str, Any], give: Callable[[Path, Path], object] | None) -> None:
        self.folder, self.said, self.give = folder, said, give or shutil.copyfile

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def model_info(self, name: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        if not (self.folder / name).is_dir():
            raise OSError(f"404 Client Error: {name} {revision} {MARKUP} {STEERING[0]}\nRepository Not Found")
        sizes: dict[Any, Any] = {file.name: file.lstat().st_size for file in (self.folder / name).iterdir()}
        siblings = [SimpleNamespace(rfilename=n, size=s) for n, s in (sizes | self.said.get("sizes", {})).items()]
        return SimpleNamespace(**{"sha": "0123456789abcdef", "siblings": siblings} | self.said)

    def hf_hub_download(self, name: str, file: str, *, revision: str, local_dir: Path) -> str:
        self.give(self.folder / name / file, Path(local_dir) / file)
        return str(Path(local_dir) / file)


def connected(
    said: dict[str, Any] | None = None, give: Callable[[Place, Path, Path], object] | None = None
) -> Callable[[Place], None]:
    """Makes the Hub of a command that in the folder hub."""

    def connect(place: Place) -> None:
        import huggingface_hub

        given = None if give is None else lambda source, target: give(place, source, target)
        os.environ["COLLEGIUM_DATA"] = str(place.work / "data")
        huggingface_hub.HfApi = lambda **_: Hub(place.work / "hub", said or {}, given)  # type: ignore[misc, assignment]

    return connect


def repository(place: Place, *, name: str = "them/net", **config: Any) -> Path:
    """A repository with a peer."""
    folder = place.work / "hub" / name
    shutil.copytree(place.work / "run/peers/peer0", folder)
    (folder / "README.md").write_text(f"# {MARKUP}\n{STEERING[0]}\n")
    if config:
        change_json(folder / "config.json", **config)
    picture(place)
    return folder


def picture(place: Place) -> Path:
    file = place.work / "image.png"
    Image.new("L", (16, 16), 90).save(file)
    return file


PULLS = {
    "predict": ("predict", "hf://them/net", "image.png"),
    "evaluate": ("evaluate", "hf://them/net", "--data", "digits", "--data.per-class", "4"),
    "export": ("export", "hf://them/net", "--out", "made.pt2"),
    "teacher": (*ELSE, "--method", "kd", "--teacher", "hf://them/net"),
    "start": (*ELSE, "--start-from", "hf://them/net"),
}
SHOWS = {
    "in words": ("--top", "3"),
    "as JSON": ("--json",),
    "as CSV": ("--out", "labels.csv"),
    "as JSON lines": ("--out", "labels.jsonl"),
}


def hub() -> Iterator[Attack]:
    """A repository that somebody else has put on the Hub."""
    configs: list[dict[str, Any]] = [
        {"network": "module:evil.net"},
        {"network": "module:os.system:command=touch EXECUTED"},
        {"network": "timm/resnet18:pretrained:checkpoint_path=../../outside/secret"},
        {"network": "hf://them/net"},
        {"network": "x" * 10**6},
        {"num_classes": 10**6},
        {"num_classes": 11},
        {"image_size": [10**4, 10**4]},
        {"image_size": [1, 1]},
        {"mean": [0.5] * 3},
        {"std": [1e-30]},
        {"resize": 10**5},
        {"resize": [10**5, 10**5]},
        {"center_crop": [10**9, 10**9]},
        {"center_crop": [-1, -1]},
        {"center_crop": "x"},
        {"center_crop": 3},
        {"interpolation": MARKUP},
        {"bands": [10**9]},
        {"class_names": []},
        {"class_names": ["x"] * 10},
        {"class_names": ["x"] * 11},
        {"class_names": ["x" * 10**6] * 10},
    ]
    for config in configs:
        for use in ("predict", "evaluate", "teacher") if "network" in config else ("predict", "evaluate"):
            yield Attack(
                "hub",
                f"config.json has {config}"[:100],
                lambda p, c=config: repository(p, **c),
                PULLS[use],
                refused=str(config.get("network", "")).startswith("module:"),
                prepare=connected(),
            )
    for text in NAMES:
        for how, options in SHOWS.items():
            yield Attack(
                "hub",
                f"config.json names classes {ascii(text)}, shown {how}",
                lambda p, t=text: repository(p, class_names=[f"{t}{k or ''}" for k in range(10)]),
                (*PULLS["predict"], *options),
                refused=False,
                prepare=connected(),
            )
    for use in PULLS:
        for file in ("config.json", "model.safetensors", "config.json.sha256", "model.safetensors.sha256"):
            yield Attack(
                "hub",
                f"{file} is a pickle that runs a command",
                lambda p, f=file: (repository(p) / f).write_bytes(torch_saved(Runs(p.touch))),
                PULLS[use],
                prepare=connected(),
            )
        yield Attack(
            "hub",
            "files beside a peer run a command",
            lambda p: [
                (repository(p, name=name) / file).write_bytes(torch_saved(Runs(p.touch)))
                for name, file in (("them/net", "pytorch_model.bin"), ("them/other", "module.py"))
            ],
            PULLS[use],
            refused=False,
            prepare=connected(),
        )
    for what, content in {
        "100,000 nested lists": b"[" * 100_000,
        "a number of 10^6 digits": b'{"network": ' + b"9" * 10**6 + b"}",
        "a million keys": json.dumps(dict.fromkeys(map(str, range(10**6)), 0)).encode(),
        "no JSON": b"\0" * 1000,
    }.items():
        yield Attack(
            "hub",
            f"config.json holds {what}",
            lambda p, c=content: (repository(p) / "config.json").write_bytes(c),
            PULLS["predict"],
            prepare=connected(),
        )
    for what, content in safetensors_files().items():
        yield Attack(
            "hub",
            f"model.safetensors: {what}",
            lambda p, c=content: (
                (repository(p) / "model.safetensors").write_bytes(c()),
                (p.work / "hub/them/net/model.safetensors.sha256").unlink(),
            ),
            PULLS["predict"],
            prepare=connected(),
        )
    for file in ("config.json", "model.safetensors", "config.json.sha256"):
        for size in (None, -1, 0, 10**18, "12", [1], True, float("nan")):
            yield Attack(
                "hub",
                f"the Hub says that {file} has {size!r} bytes",
                lambda p: repository(p),
                PULLS["predict"],
                prepare=connected({"sizes": {file: size}}),
            )
        for what, give in GIFTS.items():
            yield Attack(
                "hub",
                f"in place of {file} comes {what}",
                lambda p: repository(p),
                PULLS["predict"],
                prepare=connected(give=only(file, give)),
            )
    for name in ("../../outside/secret", "/etc/passwd", "..", "", "config.json/../../x", None, 3, "x" * 10**6, *NAMES):
        yield Attack(
            "hub",
            f"the Hub lists {ascii(name)[:60]}",
            lambda p: repository(p),
            PULLS["predict"],
            refused=False,
            prepare=connected({"sizes": {name: 10}}),
        )
    for sha in ("../../../outside", "", None, 3, "x", "a" * 10**6, "0123456789abcdef\n", "/etc", STEERING[0]):
        yield Attack(
            "hub",
            f"the Hub calls the revision {ascii(sha)[:60]}",
            lambda p: repository(p),
            PULLS["predict"],
            prepare=connected({"sha": sha}),
        )
    for siblings in (None, []):
        yield Attack(
            "hub",
            f"the Hub lists {siblings}",
            lambda p: repository(p),
            PULLS["predict"],
            prepare=connected({"siblings": siblings}),
        )
    for file in ("config.json", "model.safetensors"):
        for what, maker in NO_FILES.items():
            if what != "100 GiB of nothing":
                yield Attack(
                    "hub",
                    f"what was downloaded as {file} is now {what}",
                    lambda p, f=file, m=maker: downloaded(p, f, m),
                    PULLS["predict"],
                    refused=False,
                    prepare=connected(),
                )
    names = ["", "x", "a/b/c", "../net", "them/..", "./net", "them/net@", "them/net@../../x", "them/net@" + "x" * 10**5]
    names += [
        "them/net:weights=x",
        "them/net?x=1",
        "them/net#x",
        "them/net\n",
        "them//net",
        "/etc/passwd",
        "them/net/..",
    ]
    names += [
        "x" * 10**5,
        "a/" + "b" * 96,
        "them\\net",
        "them/n\u202eet",
        "them/net\0",
        "~/net",
        "-x/-y",
        "them/%2e%2e",
    ]
    for name in (*names, *(f"them/{text}" for text in NAMES), *(f"them/net@{text}" for text in NAMES)):
        for use in ("predict", "teacher"):
            yield Attack(
                "hub",
                f"the name is {ascii(name)[:60]}",
                lambda p: repository(p),
                tuple(part.replace("hf://them/net", f"hf://{name}") for part in PULLS[use]),
                prepare=connected(),
            )


def only(file: str, give: Callable[[Place, Path, Path], object]) -> Callable[[Place, Path, Path], object]:
    return lambda place, source, target: (
        give(place, source, target) if target.name == file else shutil.copyfile(source, target)
    )


def refusing(text: str) -> Callable[[Place, Path, Path], object]:
    def give(place: Place, source: Path, target: Path) -> None:
        raise OSError(text)

    return give


def in_folder_elsewhere(place: Place, source: Path, target: Path) -> None:
    shutil.rmtree(target.parent)
    target.parent.symlink_to(place.outside / "folder")


GIFTS: dict[str, Callable[[Place, Path, Path], object]] = {
    "nothing": lambda place, source, target: None,
    "less": lambda place, source, target: target.write_bytes(b"{}"),
    "more": lambda place, source, target: target.write_bytes(source.read_bytes() + bytes(10**6)),
    "as many other bytes": lambda place, source, target: target.write_bytes(bytes(source.stat().st_size)),
    "a link to a file outside": lambda place, source, target: target.symlink_to(place.outside / "secret"),
    "a link to /dev/zero": lambda place, source, target: target.symlink_to("/dev/zero"),
    "a folder": lambda place, source, target: target.mkdir(),
    "a pipe": lambda place, source, target: os.mkfifo(target),
    "a folder that is a link elsewhere": in_folder_elsewhere,
    "an error that steers": refusing(f"{STEERING[0]}{STEERING[1]}{MARKUP}"),
    "an error of a million characters": refusing("x y" * 10**6),
    "an error of nothing": refusing(""),
}


def downloaded(place: Place, file: str, maker: Maker) -> None:
    """What an earlier command has downloaded, of which a file is replaced."""
    folder = repository(place)
    kept = place.work / "data/.collegium/hub/them--net/0123456789abcdef"
    shutil.copytree(folder, kept)
    (kept / file).unlink()
    maker(kept / file)


def pushed() -> Iterator[Attack]:
    """A run of somebody else's that is pushed to the Hub: no other file may go there, nor much."""
    push = ("push", "run", "me/net")

    def link(place: Place, name: str, to: str = "secret") -> None:
        path = place.work / "run/peers/peer0" / name
        path.unlink(missing_ok=True)
        path.symlink_to(place.outside / to)

    files = ("model.safetensors", "config.json", "model.safetensors.sha256", "config.json.sha256", "README.md")
    for file in files:
        yield Attack(
            "pushed",
            f"{file} of the peer is a link to a file outside",
            lambda p, f=file: link(p, f),
            push,
            refused=False,
            prepare=connected(),
        )
        for what, maker in NO_FILES.items():
            yield Attack(
                "pushed",
                f"{file} of the peer is {what}",
                lambda p, f=file, m=maker: (
                    (p.work / "run/peers/peer0" / f).unlink(),
                    (p.work / "run/peers/peer0" / f"{f}.sha256").unlink(missing_ok=True),
                    m(p.work / "run/peers/peer0" / f),
                ),
                push,
                refused=False,
                prepare=connected(),
            )
    for predictor in (
        "../../../outside",
        "..",
        "",
        "peer0/../peer1",
        "peer0\0",
        "/etc",
        STEERING[0],
        "peer" + "9" * 1000,
    ):
        yield Attack(
            "pushed",
            f"the predictor is {ascii(predictor)[:60]}",
            lambda p: None,
            (*push, f"--predictor={predictor}"),
            prepare=connected(),
        )
    for text in NAMES:
        yield Attack(
            "pushed",
            f"result.json names method and data {ascii(text)}",
            lambda p, t=text: (
                (p.work / "run/peers/peer0/README.md").unlink(),
                change_json(p.work / "run/result.json", method=t, data=t),
            ),
            push,
            refused=False,
            prepare=connected(),
        )
        yield Attack(
            "pushed",
            f"the name on the Hub is me/{ascii(text)}",
            lambda p: None,
            ("push", "run", f"me/{text}"),
            prepare=connected(),
        )


# Exported networks


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
        "branches 90 deep": lambda p: branches(90),
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
    json.dumps(dict.fromkeys(map(str, range(10**6)), 0)),
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


# Images


def png(width: int, height: int, *, rows: int | None = None, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG file of zeros, of which so many rows are there."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer, line = zlib.compressobj(9), bytes(1 + channels * width)
    packed = b"".join(packer.compress(line) for _ in range(min(height if rows is None else rows, height)))
    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + part(b"IDAT", packed + packer.flush()) + part(b"IEND", b"")


def png_part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(width: int, height: int, **more: int) -> bytes:
    """A TIFF file in grey of one strip, whose pixels are not there."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height % 2**32}
    tags |= {int(key[1:]): value for key, value in more.items()}
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + listed + struct.pack("<I", 0)


def saved(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(file, kind, **options)
    return file.getvalue()


def frames() -> bytes:
    file = io.BytesIO()
    pages = [Image.new("P", (16, 16), k % 250) for k in range(3000)]
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def image_files() -> dict[str, tuple[str, Callable[[], bytes], bool]]:
    """Image files: in words -> ending, content, and whether they must be refused."""
    jpeg = bytearray(saved("JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    middle = bytearray(saved("JPEG"))
    middle[place : place + 4] = struct.pack(">HH", 9_990, 9_990)
    gif = bytearray(saved("GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    webp = bytearray(saved("WEBP", lossless=True))
    return {
        "PNG of 60,000 x 60,000 pixels": ("png", lambda: png(60_000, 60_000, rows=20), True),
        "PNG of 2^31 - 1 pixels in a row": (
            "png",
            lambda: png(16, 1).replace(struct.pack(">II", 16, 1), b"\x7f\xff\xff\xff\0\0\0\1"),
            True,
        ),
        "PNG of no pixels": ("png", lambda: png(16, 1).replace(struct.pack(">II", 16, 1), bytes(8)), True),
        "PNG of 10^8 pixels, whole": ("png", lambda: png(10_000, 10_000), False),
        "PNG of 10^8 pixels in colour": ("png", lambda: png(10_000, 9_999, colour=2), False),
        "PNG of 10^8 pixels with transparency": ("png", lambda: png(10_000, 9_999, colour=6), False),
        "PNG of 10^8 pixels, cut": ("png", lambda: png(10_000, 10_000, rows=100), True),
        "PNG of 1 x 10^8 pixels": ("png", lambda: png(1, 10**7), False),
        "PNG with 200 MB of text": (
            "png",
            lambda: png(16, 16, extra=png_part(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))),
            False,
        ),
        "PNG with 200 MB of a profile": (
            "png",
            lambda: png(16, 16, extra=png_part(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))),
            False,
        ),
        "PNG with a part of 2^31 bytes": ("png", lambda: png(16, 16, extra=struct.pack(">I", 2**31) + b"tEXt"), True),
        "JPEG of 65,000 x 65,000 pixels": ("jpg", lambda: bytes(jpeg), True),
        "JPEG that says 10^8 pixels": ("jpg", lambda: bytes(middle), False),
        "GIF of 65,535 x 65,535 pixels": ("webp", lambda: bytes(gif), True),
        "GIF of 3000 frames": ("png", frames, False),
        "TIFF of 2^31 x 2^31 pixels": ("tif", lambda: tiff(2**31, 2**31), True),
        "TIFF of 10^8 pixels, none there": ("tif", lambda: tiff(10_000, 10_000), True),
        "TIFF whose pages go round": ("tif", lambda: tiff(16, 16)[:-4] + struct.pack("<I", 8), True),
        "TIFF of 2^32 - 1 samples": ("tif", lambda: tiff(16, 16, t277=2**32 - 1), True),
        "BMP of 2^31 - 1 pixels": (
            "bmp",
            lambda: (
                b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
            ),
            True,
        ),
        "PPM of 10^9 x 10^9 pixels": ("ppm", lambda: b"P6 1000000000 1000000000 255\n" + bytes(100), True),
        "PPM of 10^5 digits": ("ppm", lambda: b"P6 " + b"9" * 10**5 + b" 1 255\n" + bytes(100), True),
        "PPM of 9,999 x 9,999 pixels, none there": ("ppm", lambda: b"P6 9999 9999 255\n", True),
        "WebP, cut": ("webp", lambda: bytes(webp[:30]), True),
        "WebP of 16,383 x 16,383 pixels": (
            "webp",
            lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + bytes(20),
            True,
        ),
        "PostScript": (
            "png",
            lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(%pipe%touch EXECUTED) (w) file\n",
            True,
        ),
        "SVG": ("png", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", True),
        "a pickle": ("png", lambda: pickle.dumps(Runs("touch EXECUTED")), True),
        "an array": ("png", lambda: b"\x93NUMPY\x01\x00", True),
        "JPEG with EXIF of cycles": ("jpg", lambda: saved("JPEG", exif=exif_cycle()), False),
    }


def exif_cycle() -> bytes:
    """EXIF data whose folder is its own sub-folder."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + tags + struct.pack("<I", 8)


def images() -> Iterator[Attack]:
    """Images to predict."""
    predict = ("predict", "run", "images")

    def put(place: Place, name: str | bytes, content: bytes | None = None) -> None:
        folder = place.work / "images"
        folder.mkdir(exist_ok=True)
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else os.fsencode(name))
        with open(path, "wb") as file:
            file.write(png(16, 16) if content is None else content)

    for what, (ending, _, refused) in image_files().items():
        for options in ((), ("--skip-broken",)):
            yield Attack(
                "images",
                f"{what}{' with --skip-broken' if options else ''}",
                lambda p, w=what, e=ending: (put(p, f"a.{e}", image_files()[w][1]()), put(p, "b.png")),
                (*predict, *options),
                refused=refused and not options,
            )
    for what, maker in NO_FILES.items():
        yield Attack(
            "images",
            f"a.png is {what}",
            lambda p, m=maker: (put(p, "b.png"), m(p.work / "images/a.png")),
            predict,
            refused=False,
        )
        yield Attack(
            "images", f"the image is {what}", lambda p, m=maker: m(p.work / "a.png"), ("predict", "run", "a.png")
        )
        yield Attack(
            "images",
            f"the folder is {what}",
            lambda p, m=maker: m(p.work / "images"),
            predict,
            refused=what != "a link",
        )
        for ending in ("csv", "jsonl"):
            yield Attack(
                "images",
                f"labels.{ending} is {what}",
                lambda p, m=maker, e=ending: (put(p, "b.png"), m(p.work / f"labels.{e}")),
                (*predict, "--out", f"labels.{ending}"),
                refused=False,
            )
    for ending in ("csv", "jsonl"):
        for name in (f"labels.{ending}", f"labels.{ending}.part"):
            for hard in (False, True):
                yield Attack(
                    "images",
                    f"{name} is a {'hard' if hard else 'symbolic'} link to a file outside",
                    lambda p, n=name, h=hard: (
                        put(p, "b.png"),
                        (p.work / n).hardlink_to(p.outside / "secret")
                        if h
                        else (p.work / n).symlink_to(p.outside / "secret"),
                    ),
                    (*predict, "--out", f"labels.{ending}"),
                    refused=False,
                )
    names: list[str | bytes] = [f"{text.replace('/', '')}.png" for text in NAMES]
    names += [
        "-x.png",
        "+1+1.png",
        "@a.png",
        "\t=1.png",
        "a\nb.png",
        'a,b".png',
        b"\xff\xfe.png",
        b"\x9b31m.png",
        "é.png",
    ]
    for name in names:
        for how, options in SHOWS.items():
            yield Attack(
                "images",
                f"a file is called {ascii(name)}, shown {how}",
                lambda p, n=name: (put(p, n), put(p, "b.png")),
                (*predict, *options),
                refused=False,
            )
        yield Attack(
            "images",
            f"a broken file is called {ascii(name)}",
            lambda p, n=name: put(p, n, b"x"),
            predict,
        )
        yield Attack(
            "images",
            f"a broken file is called {ascii(name)}, with --skip-broken",
            lambda p, n=name: (put(p, n, b"x"), put(p, "b.png")),
            (*predict, "--skip-broken"),
            refused=False,
        )
    for what, make in {
        "a link to the folder above": lambda p: (p.work / "images/up").symlink_to(".."),
        "a link to /": lambda p: (p.work / "images/root").symlink_to("/"),
        "a link to a file outside": lambda p: (p.work / "images/a.png").symlink_to(p.outside / "secret"),
        "folders 5000 deep": lambda p: deep(p.work / "images", 5000),
        "folders that end in .png": lambda p: (p.work / "images/a.png").mkdir(),
        "20,000 empty folders": lambda p: [(p.work / f"images/{k}").mkdir() for k in range(20_000)],
    }.items():
        yield Attack(
            "images", f"the folder has {what}", lambda p, m=make: (put(p, "b.png"), m(p)), predict, refused=False
        )


def deep(folder: Path, depth: int) -> None:
    """Folders in folders, deeper than a path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
