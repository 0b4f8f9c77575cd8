"""Peers on the Hugging Face Hub, by a stand-in for its API: a push is a folder, and a pull is data of somebody else."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import collegium
from collegium import hub
from collegium.cli import main
from collegium.errors import DataError, UsageError
from collegium.networks import build
from collegium.student import save_peer


class FakeHub:
    """What is called OWNER/NAME lies in a folder of that name; every push is a new revision."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads: list[str] = []
        self.made: dict[str, bool] = {}

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.made[name] = private
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def model_info(self, name: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        assert files_metadata
        if not (self.folder / name).is_dir():
            raise OSError("404 Client Error.\nRepository Not Found for url.")
        files = sorted((self.folder / name).iterdir())
        commit = hashlib.sha1(b"".join(file.read_bytes() for file in files)).hexdigest()
        assert revision in (None, "main")
        siblings = [SimpleNamespace(rfilename=file.name, size=file.stat().st_size) for file in files]
        return SimpleNamespace(sha=commit, siblings=siblings)

    def hf_hub_download(self, name: str, file: str, *, revision: str, local_dir: Path) -> str:
        self.downloads.append(file)
        return str(shutil.copyfile(self.folder / name / file, local_dir / file))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: made)
    monkeypatch.setenv("COLLEGIUM_DATA", str(tmp_path / "data"))
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "run"
    data = {"name": "digits", "per_class": 5}
    peers = "resnet8,timm/resnet10t:drop_rate=0.1"
    collegium.train(method="dml", peers=peers, data=data, epochs=1, batch_size=25, device="cpu", run=folder, quiet=True)
    return folder


def test_a_peer_that_is_pushed_is_pulled_with_the_same_answers(fake: FakeHub, run: Path) -> None:
    assert collegium.push(run, "me/digits") == "https://huggingface.co/me/digits" and fake.made == {"me/digits": False}
    pushed = {file.name for file in (fake.folder / "me/digits").iterdir()}
    named = {"config.json", "model.safetensors"}
    assert pushed == {*named, *(f"{name}.sha256" for name in named), "README.md"}
    images = torch.rand(3, 1, 16, 16)
    expected = collegium.load_peer(run)(images)
    for name in ("hf://me/digits", "hf://me/digits@main", Path("hf://me/digits")):
        assert torch.equal(collegium.load_peer(name)(images), expected)
    assert len(fake.downloads) == 4 and "README.md" not in fake.downloads  # once, and nothing that is not needed


def test_the_commands(fake: FakeHub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["push", str(run), "me/second", "--predictor", "peer1", "--private"])
    assert capsys.readouterr().out == "https://huggingface.co/me/second\n" and fake.made["me/second"]
    Image.new("L", (16, 16), 90).save(tmp_path / "a.png")
    main(["predict", "hf://me/second", str(tmp_path / "a.png")])
    assert "a.png" in capsys.readouterr().out
    main(["evaluate", "hf://me/second", "--data", "digits", "--json"])
    assert json.loads(capsys.readouterr().out)["test_images"] == 450
    main(["export", "hf://me/second", "--out", str(tmp_path / "a.pt2")])
    assert (tmp_path / "a.pt2").is_file()
    with pytest.raises(UsageError, match="is one peer, and not on this machine: give --out FILE"):
        collegium.export("hf://me/second")


def test_timm_reads_the_folder_of_its_own_networks(run: Path) -> None:
    import timm

    folder = run / "peers" / "peer1"
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = json.loads((folder / "config.json").read_text())
    images = torch.rand(2, 1, 16, 16)
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    normalised = (images - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    torch.testing.assert_close(theirs((images - mean) / std), collegium.load_peer(folder)(normalised))
    assert theirs.pretrained_cfg["label_names"] == list("0123456789") and theirs.num_classes == 10
    assert "architecture" not in json.loads((run / "peers" / "peer0" / "config.json").read_text())


def test_timm_is_told_the_normalisation_and_the_size_that_a_network_really_has(tmp_path: Path) -> None:
    import timm

    mean, std = (0.3, 0.4, 0.5), (0.2, 0.2, 0.3)
    for name, size in (("timm/mobilenetv3_small_050:normalise=imagenet", 32), ("timm/vit_tiny_patch16_224", 224)):
        network = build(name, num_classes=3, in_channels=3, image_size=(32, 32), mean=mean, std=std).eval()
        save_peer(network, tmp_path / "peer", num_classes=3, image_size=[32, 32], mean=list(mean), std=list(std))
        theirs = timm.create_model(f"local-dir:{tmp_path / 'peer'}", pretrained=True).eval()
        expected = theirs.pretrained_cfg
        assert tuple(expected["input_size"]) == (3, size, size)
        images = torch.rand(2, 3, size, size)
        own = (images - torch.tensor(expected["mean"]).view(3, 1, 1)) / torch.tensor(expected["std"]).view(3, 1, 1)
        given = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(theirs(own), network(given), atol=1e-5, rtol=1e-4)
        assert (expected["mean"] == pytest.approx([0.485, 0.456, 0.406])) == ("imagenet" in name)
        shutil.rmtree(tmp_path / "peer")


def test_a_card_says_what_the_run_did(run: Path) -> None:
    text = (run / "peers" / "peer1" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["library_name"] == "timm" and said["pipeline_tag"] == "image-classification"
    (found,) = said["model-index"][0]["results"]
    result = json.loads((run / "result.json").read_text())
    assert found["metrics"][0]["value"] == pytest.approx(1 - result["predictors"]["peer1"]["last"]["top1_error"])
    assert found["dataset"] == {"name": "digits", "type": "digits"} and said["datasets"] == ["digits"]
    for part in ("trained with `dml`, beside resnet8, by Collegium", "450 test images", "local-dir:FOLDER", "seed 0"):
        assert part in " ".join(body.split())
    first = (run / "peers" / "peer0" / "README.md").read_text()
    assert yaml.safe_load(first.split("---\n", 2)[1])["library_name"] == "collegium" and "timm.create" not in first


def test_a_card_tells_no_path(run: Path) -> None:
    from collegium.model_card import card
    from collegium.training.run_folder import RunFolder

    result = RunFolder(run).result() or {}
    config = json.loads((run / "peers" / "peer0" / "config.json").read_text())
    recipe = RunFolder(run).recipe().to_dict() | {"start_from": "/home/me/secret"}
    text = card("peer0", config, {**result, "data": "folder:/home/me/patients"}, recipe)
    assert "/home" not in text and "data of the kind folder" in text and "datasets:" not in text
    text = card("peer0", config, {**result, "data": "huggingface:someone/pets"}, recipe)
    assert yaml.safe_load(text.split("---\n", 2)[1])["datasets"] == ["someone/pets"]


def test_an_edited_card_is_pushed_as_it_is_and_a_missing_one_is_made(fake: FakeHub, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "peers" / "peer0" / "README.md"
    file.write_text("mine")
    collegium.push(tmp_path / "run", "me/edited")
    assert (fake.folder / "me/edited/README.md").read_text() == "mine"
    file.unlink()
    collegium.push(tmp_path / "run", "me/made")
    made = (fake.folder / "me/made/README.md").read_text()
    assert made == (run / "peers" / "peer0" / "README.md").read_text()


def other(fake: FakeHub, name: str, **config: Any) -> Path:
    """A peer that somebody else has put there."""
    folder = fake.folder / name
    folder.mkdir(parents=True)
    network = build("resnet8", num_classes=3, in_channels=3, image_size=(8, 8))
    described = {"network": "resnet8", "in_channels": 3, "num_classes": 3, "image_size": [8, 8]} | config
    (folder / "config.json").write_text(json.dumps(described))
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def test_what_is_pulled_runs_no_code_and_is_bounded(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other(fake, "them/code", network="module:theirs.Net")
    with pytest.raises(UsageError, match="trust"):
        collegium.load_peer("hf://them/code")
    (other(fake, "them/pickle") / "pytorch_model.bin").write_bytes(b"pickle")
    collegium.load_peer("hf://them/pickle")
    assert "pytorch_model.bin" not in fake.downloads
    monkeypatch.setitem(hub.LARGEST, "model.safetensors", 1000)
    other(fake, "them/large")
    with pytest.raises(DataError, match=r"model.safetensors of hf://them/large has .* bytes; it may have 1,000"):
        collegium.load_peer("hf://them/large")
    assert not list((tmp_path / "data").rglob("them--large/*/model.safetensors"))


def test_what_is_not_as_the_hub_says_is_not_kept(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    other(fake, "them/cut")

    def cut(name: str, file: str, *, revision: str, local_dir: Path) -> None:
        (local_dir / file).write_bytes(b"{}")

    monkeypatch.setattr(fake, "hf_hub_download", cut)
    with pytest.raises(DataError, match="config.json of hf://them/cut is not as long as the Hub says"):
        collegium.load_peer("hf://them/cut")


def test_a_damaged_download_is_noticed_by_its_checksum(fake: FakeHub, run: Path) -> None:
    collegium.push(run, "me/damaged")
    file = fake.folder / "me/damaged/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged: its checksum is not that in model.safetensors.sha256"):
        collegium.load_peer("hf://me/damaged")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://nobody/nothing", "hf://nobody/nothing cannot be read: 404 Client Error."),
        ("hf://onename", "'hf://onename' names nothing on the Hub: write hf://OWNER/NAME"),
        ("hf://a/../b", "names nothing on the Hub"),
        ("hf://a/b@refs/../../c", "names nothing on the Hub"),
        ("hf://them/empty", "hf://them/empty is not a peer: it has no config.json"),
    ],
)
def test_what_is_not_on_the_hub_is_said(name: str, message: str, fake: FakeHub) -> None:
    (fake.folder / "them/empty").mkdir(parents=True)
    with pytest.raises(UsageError, match=message):
        collegium.load_peer(name)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json.sha256"])
def test_what_a_link_leads_to_is_not_pushed(file: str, fake: FakeHub, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "secret").write_text("mine")
    link = tmp_path / "run" / "peers" / "peer0" / file
    link.unlink()
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=f"{file} is a link, which is not followed|peer0/config.json is damaged"):
        collegium.push(tmp_path / "run", "me/linked")
    assert not fake.made


def test_no_more_is_pushed_than_can_be_pulled(fake: FakeHub, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    os.truncate(tmp_path / "run" / "peers" / "peer0" / "model.safetensors", hub.LARGEST_WEIGHTS + 1)
    with pytest.raises(DataError, match="model.safetensors: it has more than the 4,294,967,296 bytes"):
        collegium.push(tmp_path / "run", "me/large")
    assert not fake.made


def test_what_cannot_be_pushed_is_said(fake: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'name' names nothing on the Hub: write OWNER/NAME"):
        collegium.push(run, "name")
    with pytest.raises(UsageError, match="has no peer 'peer7'; did you mean 'peer"):
        collegium.push(run, "me/x", predictor="peer7")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("401 Unauthorized\nmore")

    monkeypatch.setattr(fake, "create_repo", refuse)
    with pytest.raises(UsageError, match="me/x cannot be pushed: 401 Unauthorized; log in with `hf auth login`"):
        collegium.push(run, "me/x")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"the Hub needs the package huggingface_hub: .*\[huggingface\]"):
        collegium.push(run, "me/x")
