"""Attacks by repositories of the Hugging Face Hub, and by runs that are pushed to it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attack import (
    ELSE,
    MARKUP,
    NAMES,
    NO_FILES,
    SHOWS,
    STEERING,
    Attack,
    Maker,
    Place,
    Runs,
    change_json,
    picture,
    safetensors_files,
    torch_saved,
)


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


PULLS = {
    "predict": ("predict", "hf://them/net", "image.png"),
    "evaluate": ("evaluate", "hf://them/net", "--data", "digits", "--data.per-class", "4"),
    "export": ("export", "hf://them/net", "--out", "made.pt2"),
    "teacher": (*ELSE, "--method", "kd", "--teacher", "hf://them/net"),
    "start": (*ELSE, "--start-from", "hf://them/net"),
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
        "200,000 keys": json.dumps(dict.fromkeys(map(str, range(200_000)), 0)).encode(),
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


GIFTS: dict[str, Callable[[Place, Path, Path], object]] = {
    "nothing": lambda place, source, target: None,
    "less": lambda place, source, target: target.write_bytes(b"{}"),
    "more": lambda place, source, target: target.write_bytes(source.read_bytes() + bytes(10**6)),
    "as many other bytes": lambda place, source, target: target.write_bytes(bytes(source.stat().st_size)),
    "a link to a file outside": lambda place, source, target: target.symlink_to(place.outside / "secret"),
    "a link to /dev/zero": lambda place, source, target: target.symlink_to("/dev/zero"),
    "a folder": lambda place, source, target: target.mkdir(),
    "a pipe": lambda place, source, target: os.mkfifo(target),
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
