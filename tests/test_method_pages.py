"""The pages about the methods are what the docstrings and the measurements say now."""

import functools
import re
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from collegium import methods, networks
from collegium.cli import main
from collegium.cohort import CohortSpec, PeerOutputs
from collegium.data import ImageData, Split
from collegium.data.batches import NO_AUGMENTATION
from collegium.losses import cross_entropy, distill
from collegium.method import Method, Progress
from collegium.training.experiment import build
from collegium.training.recipe import Recipe

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "methods"
sys.path.insert(0, str(DOCS))

import method_pages  # noqa: E402
from teaching import Edge, measure, small_spec, teaching  # noqa: E402

each_method = pytest.mark.parametrize("name", methods.names())


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return method_pages.files()


def test_every_method_has_a_page_and_a_picture_and_no_other_file_lies_beside_them(written: dict[str, str]) -> None:
    wanted = {f"{name}.{ending}" for name in methods.names() for ending in ("md", "svg")} | {"README.md"}
    assert set(written) == wanted == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("file", ["README.md", *(f"{n}.{end}" for n in methods.names() for end in ("md", "svg"))])
def test_the_committed_pages_are_those_that_are_written_now(file: str, written: dict[str, str]) -> None:
    assert (FOLDER / file).read_text() == written[file], "write them anew: python docs/method_pages.py"


def pairs(name: str, kind: str) -> set[str]:
    return {f"{source} {target}" for source, target in teaching(name).pairs(kind)}


def test_who_teaches_whom_is_what_the_papers_say() -> None:
    labels = {"labels peer0", "labels peer1"}
    assert pairs("independent", "teaches") == labels
    assert pairs("dml", "teaches") == labels | {"peer0 peer1", "peer1 peer0"}
    assert pairs("kd", "teaches") == labels | {"teacher peer0", "teacher peer1"}
    assert pairs("codistillation", "teaches") == labels | {"copy0 peer1", "copy1 peer0"}
    assert pairs("codistillation", "is followed by") == {"peer0 copy0", "peer1 copy1"}
    assert pairs("ffl", "teaches") == labels | {"labels fused", "ensemble fused", "fused peer0", "fused peer1"}
    assert pairs("ffl", "is read by") == {f"peer{k} {node}" for k in (0, 1) for node in ("ensemble", "fused")}
    assert pairs("dualnet", "teaches") == labels | {"labels fused_classifier"}
    assert pairs("dualnet", "trains") == {"fused_classifier peer0", "fused_classifier peer1"}


def test_three_networks_of_afd_form_a_cycle() -> None:
    assert pairs("afd", "teaches") == {
        *("labels peer0", "labels peer1", "labels peer2"),
        *("peer0 peer1", "peer1 peer2", "peer2 peer0"),
    }
    assert pairs("afd", "trains") == {f"discriminators.{k} peer{k}" for k in range(3)}
    assert pairs("afd", "is read by") == {f"peer{j} discriminators.{k}" for k in range(3) for j in (k, (k - 1) % 3)}


class Relay(Method):
    """peer0 teaches peer1, and a layer of the method's own reads both; its loss may come back to peer1."""

    def __init__(self, spec: CohortSpec, *, detach: bool = False) -> None:
        super().__init__(spec)
        self.detach = detach
        self.layer = nn.Linear(2 * spec.num_classes, spec.num_classes)

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, dict[str, Tensor]]:
        z = out.logits
        both = self.layer(torch.cat([z[0].detach(), z[1].detach() if self.detach else z[1]], dim=1))
        return {"peers": {"kd": distill(z[1], z[0], 1.0), "ce": cross_entropy(both, target)}}


@pytest.mark.parametrize("detach", [False, True])
def test_an_edge_is_where_a_gradient_is_and_nowhere_else(detach: bool) -> None:
    found = measure(functools.partial(Relay, detach=detach), small_spec(2))
    edges = {
        Edge("peer0", "teaches", "peer1"),
        Edge("labels", "teaches", "layer"),
        Edge("peer0", "is read by", "layer"),
        Edge("peer1", "is read by", "layer"),
    }
    assert set(found.edges) == (edges if detach else edges | {Edge("layer", "trains", "peer1")})


def test_what_is_no_constant_learns_as_a_target() -> None:
    """OKDDip's authors detach nothing: the leader moves the mean of the others as this moves the leader."""
    assert {"auxiliaries peer2", "peer2 auxiliaries"} <= pairs("okddip", "teaches")
    assert not {edge for edge in pairs("ffsd", "teaches") if edge.startswith("peer2 peer")}


class Parsed(BaseException):
    """Carries the recipe that the command line came to out of it."""


@each_method
def test_the_page_s_command_trains(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(recipe: Recipe, *_: object, **__: object) -> None:
        raise Parsed(recipe)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("collegium.training.run.train", stop)
    page = (FOLDER / f"{name}.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert commands == method_pages.commands(name)
    split = Split(torch.zeros(100, 3, 32, 32, dtype=torch.uint8), torch.arange(100))
    classes, ones = tuple(map(str, range(100))), (1.0,) * 3
    data = ImageData(
        name="cifar100", train=split, test=split, class_names=classes, mean=ones, std=ones, augmentation=NO_AUGMENTATION
    )
    for command in commands:
        program, *arguments = shlex.split(command)
        with pytest.raises(Parsed) as parsed:
            main(arguments)
        recipe = parsed.value.args[0]
        teacher = networks.build("resnet8", num_classes=100) if recipe.teacher else None
        experiment = build(recipe, data=data, teacher=teacher)
    assert program == "collegium" and recipe.method_name == name
    assert type(experiment.learner.method) is methods.get(name)


@each_method
def test_a_page_says_all_and_holds_no_trace_of_other_markup(name: str, written: dict[str, str]) -> None:
    page, cls = written[f"{name}.md"], methods.get(name)
    for trace in (":math:", ".. math::", "``.", "``,", ":class:", ":func:", ":attr:"):
        assert trace not in page
    assert not re.search(r"(?<!`)``(?!`)", page)
    for heading in ("Who teaches whom", "Equations", "Source", "When to use it", "Train it", "Options"):
        assert page.count(f"\n## {heading}\n\n") == 1
    assert page.count("```") % 2 == 0 and page.count("```math") >= 1
    assert ("\nReconstructed: " in page) == bool(cls.reconstructed)
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (FOLDER / link).exists(), link


@each_method
def test_a_picture_names_its_nodes_and_tells_itself_to_screen_readers(name: str, written: dict[str, str]) -> None:
    root = ElementTree.fromstring(written[f"{name}.svg"])
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.find("svg:title", space).text == f"Who teaches whom in {methods.get(name).__name__}"
    assert "labels teach peer0" in root.find("svg:desc", space).text
    shown = {text.text for text in root.findall("svg:text", space)}
    assert {"labels", "peer0", "peer1"} <= shown
    tips = [path for path in root.findall("svg:path", space) if path.get("class").startswith("tip")]
    legend = [text for text in root.findall("svg:text", space) if text.get("class") == "legend"]
    assert len(tips) == len(method_pages.drawn(teaching(name))) + len(legend)
