"""Files that an attacker made, given to the command line: nothing runs, hangs, leaves its folder or takes memory.

python benchmarks/faults/hostile.py [--count 1000] [--kinds KINDS] [--out FOLDER]

Every case has a folder of its own with a finished run, an unfinished one and a study, of which one thing is replaced.
Beside it lies another folder, in which nothing may change.
"""

import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from attack import (
    ELSE,
    ENDLESS_KEY,
    FORMULA,
    GO_ON,
    MARKUP,
    STEERING,
    USES,
    Attack,
    Place,
    Runs,
    archive,
    bound_socket,
    change_json,
    change_yaml,
    many_bytes,
    nested_folders,
    pickle_bomb,
    replace,
    zip_bomb,
)
from hostile_exported import exported
from hostile_hub import hub, pushed
from hostile_images import images
from hostile_weights import weights
from trials import (
    GIB,
    OK,
    TINY,
    Case,
    Outcome,
    Record,
    command,
    copy,
    finish,
    make_study,
    must,
    parser,
    sentence_fault,
    snapshot,
    spread,
    steering_fault,
    trial,
    warm,
)

SECONDS = 5.0  # of computing
PATIENCE = 60.0  # by the clock, after which a case counts as one that hangs
MEMORY = GIB
RECURSION = sys.getrecursionlimit()


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("*.pt"))[-1]


def code() -> Iterator[Attack]:
    """Names of code, in every file that has names."""
    (evil, cell) = "module:evil.net", "study"
    names = [evil, "module:os.system:command=touch EXECUTED", "module:subprocess.getoutput:cmd=touch EXECUTED"]
    for name in names:
        for use in ("export", "teacher"):
            yield Attack(
                "code",
                f"peers/peer0/config.json names {name}",
                lambda p, n=name: change_json(p.work / "run/peers/peer0/config.json", network=n),
                USES[use],
            )
        for use in ("evaluate", "report", "ensemble", "config"):
            yield Attack(
                "code",
                f"recipe.yaml has the peers {name}",
                lambda p, n=name: change_yaml(p.work / "run/recipe.yaml", peers=n),
                USES[use],
            )
    for part in ("method", "data"):
        for use in ("evaluate", "report", "ensemble", "config"):
            yield Attack(
                "code",
                f"recipe.yaml has the {part} module:evil.net",
                lambda p, part=part: change_yaml(p.work / "run/recipe.yaml", **{part: {"name": "module:evil.net"}}),
                USES[use],
            )
    yield Attack(
        "code",
        "recipe.yaml has a method of code",
        lambda p: change_yaml(p.work / "run/recipe.yaml", method={"name": evil}),
        USES["rank"],
        refused=False,
    )
    for part, value in {"method": {"name": evil}, "peers": evil, "data": {"name": evil}}.items():
        for use in ("compare", "add", "rank"):
            yield Attack(
                "code",
                f"study.yaml has the {part} {evil}",
                lambda p, part=part, value=value: change_study(p.work / cell, **{part: value}),
                USES[use],
                refused=False,  # what all cells have of their own is not read
            )
    for use in ("export", "evaluate"):
        yield Attack(
            "code", "a module called as one that is imported later lies in the folder", shadow, USES[use], False
        )


def shadow(place: Place) -> None:
    text = f"import os\nos.system({place.touch!r})\n"
    for name in ("safetensors", "yaml", "onnx", "sitecustomize", "evil"):
        (place.work / f"{name}.py").write_text(text)


def change_study(study: Path, **entries: Any) -> None:
    content = yaml.safe_load((study / "study.yaml").read_text())
    content["common"] |= entries
    (study / "study.yaml").write_text(yaml.safe_dump(content))


def pickles() -> Iterator[Attack]:
    """Pickles that run something, wherever a file could be read as one."""

    def saved(place: Place, file: Path, wrap: Callable[[Any], Any] = lambda runs: runs) -> None:
        content = io.BytesIO()
        torch.save(wrap(Runs(place.touch)), content)
        replace(file, content.getvalue())

    for use in ("evaluate", "report", "ensemble"):
        yield Attack(
            "pickles",
            "checkpoints are pickles that run a command",
            lambda p: [saved(p, file) for file in (p.work / "run/checkpoints").glob("*.pt")],
            USES[use],
        )
    yield Attack(
        "pickles",
        "one checkpoint is a pickle that runs a command",
        lambda p: saved(p, newest(p.work / "part")),
        GO_ON,
        refused=False,
    )
    yield Attack(
        "pickles",
        "a command within a training state",
        lambda p: saved(p, newest(p.work / "run"), lambda runs: {"learner": {"x": runs}, "epoch": 2}),
        USES["evaluate"],
        refused=False,
    )
    yield Attack(
        "pickles",
        "a checkpoint of the oldest format",
        lambda p: [replace(file, pickle.dumps(Runs(p.touch))) for file in (p.work / "run/checkpoints").glob("*.pt")],
        USES["evaluate"],
    )
    for use in ("export", "teacher", "start"):
        yield Attack(
            "pickles",
            "model.safetensors is a pickle",
            lambda p: saved(p, p.work / "run/peers/peer0/model.safetensors"),
            USES[use],
        )
    for name in ("spectra.npz", "images.npz"):
        yield Attack(
            "pickles",
            f"{name} holds an array of objects",
            lambda p, n=name: np.savez(
                p.work / n, spectra=np.array([Runs(p.touch)]), x=np.array([Runs(p.touch)]), y=np.zeros(1)
            ),
            (*ELSE, "--data", "spectra", "--data.path", name),
        )
    for ending in ("npy", "mat", "npz"):
        yield Attack(
            "pickles",
            f"a scene's cube.{ending} is a pickle",
            lambda p, e=ending: replace(p.work / f"cube.{e}", pickle.dumps(Runs(p.touch))),
            (*ELSE, "--data", "scene", "--data.cube", f"cube.{ending}", "--data.labels", f"cube.{ending}"),
        )
    yield Attack(
        "pickles",
        "CIFAR-10's batches run a command",
        cifar_pickle,
        (*ELSE[:-5], "--data", "cifar10", "--data.root", "sets", "--run", "new", "--quiet"),
    )
    yield Attack(
        "pickles",
        "weights of timm's run a command",
        lambda p: saved(p, p.work / "w.pth"),
        (*ELSE, "--peers", "timm/resnet10t:checkpoint_path=w.pth"),
    )
    yield Attack(
        "pickles",
        "recipe.yaml has a tag that makes objects",
        lambda p: (p.work / "r.yaml").write_text(f"peers: !!python/object/apply:os.system ['{p.touch}']\n"),
        ("train", "--config", "r.yaml", "--run", "new"),
    )
    yield Attack(
        "pickles",
        "study.yaml has a tag that makes objects",
        lambda p: (p.work / "study/study.yaml").write_text(f"common: !!python/object/apply:os.system ['{p.touch}']\n"),
        USES["compare"],
    )


def cifar_pickle(place: Place) -> None:
    folder = place.work / "sets/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Runs(place.touch)))


FILES = [
    ("recipe.yaml", ("evaluate", "repeat", "rank")),
    ("result.json", ("report", "export", "repeat", "rank")),
    ("metrics.csv", ("report", "rank")),
    ("peers/peer0/config.json", ("export", "teacher")),
    ("peers/peer0/model.safetensors", ("export", "start")),
    ("peers/peer0/model.safetensors.sha256", ("export",)),
    ("checkpoints/step_000000004.pt", ("evaluate", "report")),
    ("checkpoints/step_000000004.pt.sha256", ("evaluate",)),
]


def links() -> Iterator[Attack]:
    """Links to files and folders outside, where something is written or read."""

    def link(place: Place, name: str, to: str = "secret", *, hard: bool = False) -> None:
        path, target = place.work / name, place.outside / to
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(target) if hard else path.symlink_to(target)

    written = {
        "report": ["run/report.html", "run/report.html.part"],
        "repeat": ["run/.lock", "run/report.html.part"],
        "export": ["run/exports/peer0.pt2", "run/exports/peer0.pt2.part", "run/exports/peer0.onnx"],
        "go on": [
            *("part/.lock", "part/metrics.csv", "part/metrics.csv.part", "part/result.json.part", "part/split.csv"),
            *("part/checkpoints/step_000000004.pt", "part/checkpoints/step_000000004.pt.part"),
            *("part/peers/peer0/model.safetensors", "part/peers/peer0/config.json.part", "part/report.html"),
        ],
        "compare": ["study/report.html", "study/table.md", "study/runs.csv", "study/summary.csv.part", "study/.lock"],
        "rank": ["rank.html", "rank.html.part"],
        "add": ["study/study.yaml.part", "study/.lock", "study/table.md.part"],
    }
    for use, names in written.items():
        for name in names:
            for hard in (False, True):
                yield Attack(
                    "links",
                    f"{name} is a {'hard' if hard else 'symbolic'} link to a file outside",
                    lambda p, n=name, h=hard: link(p, n, hard=h),
                    USES[use],
                    refused=False,
                )
    folders = {
        "go on": ["part/checkpoints", "part/peers", "part/tensorboard", "part/peers/peer0"],
        "report": ["run/checkpoints", "run/peers"],
        "export": ["run/peers/peer0", "run/exports", "run/peers"],
        "add": ["study/runs", "study/logs", "study/errors"],
        "teacher": ["new/teacher", "run/peers"],
    }
    for use, names in folders.items():
        for name in names:
            yield Attack(
                "links",
                f"{name} is a link to a folder outside",
                lambda p, n=name: link(p, n, "folder"),
                USES[use],
                refused=False,
            )
    for text in ("../../outside/folder", "../peers/peer0", "/etc", "peer0/../../../outside", "peer0\0", "..", ""):
        yield Attack(
            "links",
            f"result.json deploys {text!r}",
            lambda p, t=text: change_json(p.work / "run/result.json", deployed_peer=t),
            USES["export"],
        )
    for text in ("../../../outside/x", "/tmp/x", "dml-digits-seed0-0000000000/../../../x"):
        yield Attack(
            "links",
            f"study.yaml has the key {text!r}",
            lambda p, t=text: change_cells(p.work / "study", key=t, method={"name": "module:evil.net"}),
            USES["compare"],
            refused=False,
        )


def change_cells(study: Path, **entries: Any) -> None:
    content = yaml.safe_load((study / "study.yaml").read_text())
    content["cells"] = [cell | entries for cell in content["cells"]]
    (study / "study.yaml").write_text(yaml.safe_dump(content))


def not_files() -> Iterator[Attack]:
    """Pipes, sockets, devices, folders and links to themselves in place of files."""

    makers: dict[str, Callable[[Path], object]] = {
        "a named pipe": os.mkfifo,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a folder": Path.mkdir,
        "a socket": bound_socket,
        "a link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
    }

    def put(path: Path, maker: Callable[[Path], object]) -> None:
        path.unlink(missing_ok=True)
        maker(path)

    for file, uses in FILES:
        for use in uses:
            for name, maker in makers.items():
                yield Attack(
                    "no files",
                    f"{file} is {name}",
                    lambda p, f=file, m=maker: put(p.work / "run" / f, m),
                    USES[use],
                    refused=False,
                )
    for name, maker in makers.items():
        for use in ("compare", "add", "rank"):
            yield Attack(
                "no files",
                f"study.yaml is {name}",
                lambda p, m=maker: put(p.work / "study/study.yaml", m),
                USES[use],
                refused=False,
            )
        for option in (("--config",), ("--start-from",), ("--teacher",)):
            use = (
                (*ELSE, "--method", "kd", *option, "x.yaml") if option[0] == "--teacher" else (*ELSE, *option, "x.yaml")
            )
            yield Attack(
                "no files", f"the value of {option[0]} is {name}", lambda p, m=maker: put(p.work / "x.yaml", m), use
            )
        yield Attack(
            "no files",
            f"a file of spectra is {name}",
            lambda p, m=maker: put(p.work / "x.npz", m),
            (*ELSE, "--data", "spectra", "--data.path", "x.npz"),
        )
        yield Attack(
            "no files",
            f"a scene's cube is {name}",
            lambda p, m=maker: put(p.work / "x.npy", m),
            (*ELSE, "--data", "scene", "--data.cube", "x.npy", "--data.labels", "x.npy"),
        )


def bombs() -> Iterator[Attack]:
    """Small files that stand for large ones."""
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
    )
    deep = "[" * 100_000
    texts = {
        "aliases that stand for 9^12 words": aliases,
        "100,000 nested lists": f"peers: {deep}",
        "100,000 nested mappings": "peers: " + "{a: " * 100_000,
        "nested blocks": "\n".join("  " * k + "a:" for k in range(2000)),
        "merged aliases": "a: &a {b: 1}\n<<: [" + ", ".join(["*a"] * 1000) + "]\n",
        "a number of 10^6 digits": "epochs: " + "9" * 10**6,
        "a float beyond all": "learning_rate: 1e999999999",
        "a base-60 number": "epochs: " + ":".join(["59"] * 100_000),
        "a date that cannot be": "epochs: 9999-99-99",
        "zeros": "\0" * 1000,
        "no text": b"\xff\xfe\xfd" * 1000,
    }
    for name, text in texts.items():
        yield Attack(
            "bombs",
            f"recipe.yaml holds {name}",
            lambda p, t=text: replace(p.work / "run/recipe.yaml", t),
            USES["evaluate"],
        )
        yield Attack(
            "bombs",
            f"a config holds {name}",
            lambda p, t=text: replace(p.work / "x.yaml", t),
            (*ELSE, "--config", "x.yaml"),
            refused=name != "a base-60 number",
        )
        yield Attack(
            "bombs",
            f"study.yaml holds {name}",
            lambda p, t=text: replace(p.work / "study/study.yaml", t),
            USES["compare"],
        )
    documents = {
        "100,000 nested lists": deep,
        "100,000 nested mappings": '{"a":' * 100_000,
        "a number of 10^6 digits": '{"epochs": ' + "9" * 10**6 + "}",
        "NaN": json.dumps({"seconds": float("nan")}),
        "an infinite number": '{"seconds": 1e999}',
        "half a surrogate": '{"method": "\\ud800"}',
        "a million keys": json.dumps(dict.fromkeys(map(str, range(10**6)), 0)),
    }
    for name, text in documents.items():
        yield Attack(
            "bombs",
            f"result.json holds {name}",
            lambda p, t=text: replace(p.work / "run/result.json", t),
            USES["report"],
        )
        yield Attack(
            "bombs",
            f"config.json holds {name}",
            lambda p, t=text: replace(p.work / "run/peers/peer0/config.json", t),
            USES["export"],
        )
    yield Attack("bombs", "folders lie 1500 deep", lambda p: nested_folders(p.work, 1500), USES["rank"], refused=False)
    for name in ("recipe.yaml", "result.json", "metrics.csv"):
        yield Attack(
            "bombs", f"{name} has 100 GiB", lambda p, n=name: os.truncate(p.work / "run" / n, 100 * GIB), USES["report"]
        )
    for name in ("result.json", "recipe.yaml"):
        yield Attack(
            "bombs",
            f"{name} has 100 GiB",
            lambda p, n=name: os.truncate(p.work / "run" / n, 100 * GIB),
            USES["rank"],
            refused=False,
        )
    yield Attack(
        "bombs",
        "a checkpoint has 100 GiB",
        lambda p: [
            (os.truncate(f, 100 * GIB), Path(f"{f}.sha256").unlink()) for f in (p.work / "run/checkpoints").glob("*.pt")
        ],
        USES["evaluate"],
    )
    yield Attack(
        "bombs",
        "a peer's weights have 100 GiB",
        lambda p: (
            os.truncate(p.work / "run/peers/peer0/model.safetensors", 100 * GIB),
            (p.work / "run/peers/peer0/model.safetensors.sha256").unlink(),
        ),
        USES["export"],
    )
    yield Attack(
        "bombs",
        "metrics.csv is one field of 10^7 characters",
        lambda p: replace(p.work / "run/metrics.csv", "epoch\n" + '"' + "1" * 10**7 + '"\n'),
        USES["report"],
    )
    yield Attack(
        "bombs",
        "a checkpoint unpacks to 20 GiB",
        lambda p: [
            replace(file, zip_bomb("archive/data.pkl", pickle.dumps({}), 20))
            for file in (p.work / "run/checkpoints").glob("*.pt")
        ],
        USES["evaluate"],
    )
    yield Attack(
        "bombs",
        "spectra unpack to 20 GiB",
        lambda p: replace(p.work / "x.npz", npz_bomb(20)),
        (*ELSE, "--data", "spectra", "--data.path", "x.npz"),
    )
    yield Attack(
        "bombs",
        "a cube unpacks to 20 GiB",
        lambda p: replace(p.work / "x.npz", npz_bomb(20)),
        (*ELSE, "--data", "scene", "--data.cube", "x.npz", "--data.labels", "x.npz"),
    )
    yield Attack(
        "bombs",
        "a pickle of many copies",
        lambda p: [replace(file, pickle_bomb()) for file in (p.work / "run/checkpoints").glob("*.pt")],
        USES["evaluate"],
    )
    for what, pickled in {
        "has a key of 2^60 values": ENDLESS_KEY,
        "asks for 30 GB, in 40 parts": b"\x80\x02}(" + many_bytes(40, 7 * 10**8) + b"u.",
    }.items():
        yield Attack(
            "bombs",
            f"a checkpoint {what}",
            lambda p, c=pickled: [
                replace(file, archive({"archive/data.pkl": c})) for file in (p.work / "run/checkpoints").glob("*.pt")
            ],
            USES["evaluate"],
        )
    yield Attack(
        "bombs", "an image of 60,000 x 60,000 pixels", image_bomb, (*ELSE, "--data", "folder:images"), refused=False
    )
    for shape in ("(1000000000, 1000000000)", "(-1,)", "(10,)*1000", "(2**63, 2)"):
        yield Attack(
            "bombs",
            f"an array says that its shape is {shape}",
            lambda p, s=shape: replace(p.work / "x.npy", npy_header(s)),
            (*ELSE, "--data", "scene", "--data.cube", "x.npy", "--data.labels", "x.npy"),
        )


def npz_bomb(gib: int) -> bytes:
    """Arrays whose header says 20 GiB of zeros; as much of it is there as can be packed quickly."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("spectra", "x", "y", "cube", "labels"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(npy_header(f"({gib * GIB // 8}, 8)"))
                file.write(bytes(64 * 2**20))
    return content.getvalue()


def npy_header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def image_bomb(place: Place) -> None:
    size = 60_000
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(2**20))
    for name in ("a", "b"):
        folder = place.work / "images" / name
        folder.mkdir(parents=True)
        for k in range(3):
            (folder / f"{k}.png").write_bytes(
                b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")
            )


def sizes() -> Iterator[Attack]:
    """Numbers and names beyond measure."""
    values: list[dict[str, Any]] = [
        {"num_classes": 10**12},
        {"num_classes": -1},
        {"in_channels": 10**9},
        {"image_size": [10**9, 10**9]},
        {"image_size": [0, 0]},
        {"image_size": [10**5, 10**5]},
        {"num_classes": 10**6, "class_names": ["x"]},
        {"network": "resnet" + "9" * 100},
        {"network": "wrn_1000_100000"},
        {"network": "x" * 10**6},
        {"network": "timm/" + "a" * 10**5},
        {"network": "resnet8:" + "a=1:" * 10**5},
        {"network": "densenet_100_1000000"},
        {"network": "timm/vit_base_patch16_224:embed_dim=10000000"},
        {"network": "timm/resnet18:num_classes=100000000000"},
        {"network": "hybridsn"},
        {"network": "vgg16:" * 1000},
        {"network": ""},
        {"mean": [1e308]},
        {"std": [0.0]},
        {"std": [float("nan")]},
        {"class_names": [["x"] * 10] * 10},
    ]
    for value in values:
        shown = str(value)[:60]
        for use in ("export", "teacher"):
            yield Attack(
                "sizes",
                f"config.json has {shown}",
                lambda p, v=value: change_json(p.work / "run/peers/peer0/config.json", **v),
                USES[use],
                refused=False,
            )
    recipes: list[dict[str, Any]] = [
        {"peers": "100000000xresnet8"},
        {"peers": "250xresnet8"},
        {"peers": ",".join(["resnet8"] * 10**5)},
        {"peers": "resnet6000002"},
        {"peers": "x" * 10**6},
        {"batch_size": 10**12},
        {"seed": 10**30},
        {"milestones": [0.5] * 10**5},
        {"keep_checkpoints": 10**18},
        {"share_until": "stage2," * 10**5},
        {"data": {"name": "digits", "per_class": 10**12}},
        {"data": {"name": "digits", "validation": 1e300}},
        {"data": {"name": "folder:" + "x/" * 10**5}},
        {"data": {"name": "folder:/dev/fd/0"}},
        {"data": {"name": "x" * 10**6}},
        {"method": {"name": "x" * 10**6}},
        {"method": {"name": "dml", "y" * 10**5: 1}},
        {"method": {"name": "dml", "temperature": 1e300}},
        {"z" * 10**6: 1},
    ]
    for value in recipes:
        shown = str(value)[:60]
        for use in ("evaluate",) if value == {"peers": "250xresnet8"} else ("evaluate", "config"):  # as may be trained
            yield Attack(
                "sizes",
                f"recipe.yaml has {shown}",
                lambda p, v=value: change_yaml(p.work / "run/recipe.yaml", **v),
                USES[use],
                refused=False,
            )
    results: list[dict[str, Any]] = [
        {"epochs": 10**15},
        {"class_names": ["x" * 10**6] * 10},
        {"class_names": ["x"] * 10**6},
        {"method": "m" * 10**6},
        {"notes": ["n" * 10**6] * 10},
        {"peers": ["resnet8"] * 10**5},
        {"deployed_peer": "peer" + "9" * 10**5},
        {"seconds": 1e300},
        {"training_images": 10**30},
        {"test_images_per_class": [10**18] * 10},
    ]
    for value in results:
        shown = str(value)[:60]
        for use in ("report", "rank", "repeat"):
            yield Attack(
                "sizes",
                f"result.json has {shown}",
                lambda p, v=value: change_json(p.work / "run/result.json", **v),
                USES[use],
                refused=False,
            )


def texts() -> Iterator[Attack]:
    """Names that steer terminals, pages and tables."""
    for text in (*STEERING, MARKUP, FORMULA):
        shown = ascii(text)
        yield Attack(
            "texts",
            f"result.json names the method {shown}",
            lambda p, t=text: change_json(p.work / "run/result.json", method=t),
            USES["repeat"],
            refused=False,
        )
        yield Attack(
            "texts",
            f"result.json names a class {shown}",
            lambda p, t=text: change_json(p.work / "run/result.json", class_names=[t, *map(str, range(1, 10))]),
            USES["report"],
            refused=False,
        )
        yield Attack(
            "texts",
            f"result.json names the data {shown}",
            lambda p, t=text: change_json(p.work / "run/result.json", data=t, notes=[t]),
            USES["rank"],
            refused=False,
        )
        yield Attack(
            "texts",
            f"study.yaml labels a row {shown}",
            lambda p, t=text: change_label(p.work / "study", t),
            USES["compare"],
            refused=False,
        )
        yield Attack(
            "texts",
            f"recipe.yaml has an entry {shown}",
            lambda p, t=text: change_yaml(p.work / "run/recipe.yaml", **{t: 1}),
            USES["evaluate"],
        )
        yield Attack(
            "texts",
            f"config.json names the network {shown}",
            lambda p, t=text: change_json(p.work / "run/peers/peer0/config.json", network=t),
            USES["export"],
        )
        if "/" not in text:
            yield Attack(
                "texts",
                f"a class folder is called {shown}",
                lambda p, t=text: class_folders(p, t),
                (*ELSE, "--data", "folder:images"),
                refused=False,
            )
            yield Attack(
                "texts",
                f"a run is called {shown}",
                lambda p, t=text: (p.work / "run").rename(p.work / t),
                ("evaluate", text),
                refused=False,
            )
            yield Attack(
                "texts",
                f"a run beneath the folder is called {shown}",
                lambda p, t=text: (p.work / "run").rename(p.work / t),
                USES["rank"],
                refused=False,
            )


def change_label(study: Path, label: str) -> None:
    content = yaml.safe_load((study / "study.yaml").read_text())
    for cell in content["cells"]:
        content["left_out"][label] = label
        cell["label"] = label
    (study / "study.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))


def class_folders(place: Place, name: str) -> None:
    from PIL import Image

    for k, folder in enumerate((name, "b")):
        (place.work / "images" / folder).mkdir(parents=True)
        for j in range(12):
            Image.new("RGB", (9, 9), (20 * j, 99 * k, 0)).save(place.work / "images" / folder / f"{j}.png")


def attacks() -> list[Attack]:
    """All of them."""
    own = [*code(), *pickles(), *links(), *not_files(), *bombs(), *sizes(), *texts()]
    return [*own, *weights(), *hub(), *pushed(), *exported(), *images()]


def make_base(folder: Path) -> Path:
    """What every case begins with."""
    folder.mkdir(parents=True)
    must(trial(command("train", *TINY, "--run", "run", "--quiet"), folder), "training")
    must(trial(command("train", *TINY, "--run", "part", "--quiet", "--overwrite"), folder), "training")
    part = folder / "part"
    for name in ("result.json", "report.html"):
        (part / name).unlink(missing_ok=True)
    shutil.rmtree(part / "peers")
    for file in (newest(part), Path(f"{newest(part)}.sha256")):
        file.unlink()
    make_study(folder)
    return folder


def check(attack: Attack, base: Path, folder: Path) -> tuple[str, Outcome]:
    """Tries one case in ``folder``, which is made and removed."""
    place = Place(folder / "work", folder / "outside")
    copy(base, place.work)
    (place.outside / "folder").mkdir(parents=True)
    for name in ("secret", "folder/step_000000009.pt", "folder/config.json"):
        (place.outside / name).write_text(f"{name}, which nobody may change\n")
    (place.work / "evil.py").write_text(f"import os\nos.system({place.touch!r})\ndef net(num_classes): pass\n")
    attack.make(place)
    before = snapshot(place.outside)
    sys.setrecursionlimit(RECURSION)
    prepare = partial(attack.prepare, place) if attack.prepare else None
    outcome = trial(command(*attack.use), place.work, seconds=PATIENCE, memory=MEMORY, prepare=prepare)
    sys.setrecursionlimit(10 * RECURSION)  # for this process's own look at folders
    found = ""
    if (place.outside / "EXECUTED").exists() or list(folder.rglob("EXECUTED")):
        found = "something ran"
    elif "nobody may change" in outcome.text or uploaded(place.work / "hub", "nobody may change"):
        found = "something outside was told"
    elif snapshot(place.outside) != before:
        found = "something outside was changed"
    elif outcome.seconds > SECONDS:
        found = f"took {outcome.seconds:.1f} s of computing"
    elif outcome.status == 0 and not attack.refused:
        found = steering_fault(outcome) or page_fault(place.work)
    else:
        found = sentence_fault(outcome, place.work, folder)
    shutil.rmtree(folder)
    return found or OK, outcome


def uploaded(hub: Path, text: str) -> bool:
    """Whether a file on the Hub of a case holds a text."""
    return any(
        text.encode() in file.read_bytes() for file in hub.rglob("*") if file.is_file() and not file.is_symlink()
    )


def page_fault(work: Path) -> str:
    """Whether a page or a table holds text that a browser or a spreadsheet would follow."""
    for page in (p for p in work.rglob("*.html") if p.is_file()):
        if MARKUP in page.read_text(errors="replace"):
            return f"{page.name} holds the markup"
    for table in (p for p in work.rglob("*.csv") if p.is_file()):
        if any(
            line.startswith(("=HYPERLINK", '"=HYPERLINK')) for line in table.read_text(errors="replace").splitlines()
        ):
            return f"{table.name} holds the formula"
    return ""


def main() -> None:
    made = parser(__doc__ or "", 10_000)
    made.add_argument("--kinds", default="", help="those alone whose kind is one of these, with commas between")
    options = made.parse_args()
    warm()
    import timm  # noqa: F401

    chosen = [attack for attack in attacks() if not options.kinds or attack.kind in options.kinds.split(",")]
    record = Record("hostile", options.out)
    with tempfile.TemporaryDirectory() as scratch:
        base = make_base(Path(scratch) / "base")
        for number, attack in enumerate(spread(chosen, options.count)):
            found, outcome = check(attack, base, Path(scratch) / str(number))
            what = f"{attack.what}: {' '.join(attack.use)[:100]}"
            record.add(Case(number, attack.kind, ascii(what)[1:-1], ascii(found)[1:-1], outcome.seconds))
    finish(record, options)


if __name__ == "__main__":
    main()
